"""What a torch module keeps for its passes: engine models by configuration, plans, where its parameters are.

Needs no torch of its own: modules and tensors are the caller's.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from . import core
from .layers import LayerCheck

_PLANS = 16  # plans kept for each configuration of a model
_CONFIGURATIONS = 4


_lock = threading.Lock()  # of all caches: it is held for microseconds


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


class Cache:
    """A small mapping that forgets what was used least recently. Safe to share between threads."""

    def __init__(self, size: int):
        self._size = size
        self._items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of key; made, outside the lock, when it is not there."""
        with _lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        with _lock:
            self._items[key] = value
            while len(self._items) > self._size:
                self._items.popitem(last=False)
        return value


class ModuleWeights:
    """A module's parameters in the engine's order, looked up anew at each call.

    Weights that were replaced, cast, moved, edited or reparametrised are honoured. Replaced and changed layers are
    refused: see LayerCheck.
    """

    def __init__(self, root: Any, names: Sequence[str]):
        self._check = LayerCheck(root)
        self._parameters = core.Parameters(root, names, self._check)

    def collect(self) -> list[Any]:
        """The tensors, contiguous (and on a GPU on multiples of 16 bytes), in order."""
        tensors = self._parameters.collect()
        if self._check.compute():
            tensors = self._parameters.collect()
        self._check.warn()
        if tensors and tensors[0].is_cuda:
            tensors = [tensor if tensor.data_ptr() % 16 == 0 else tensor.clone() for tensor in tensors]
        return [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]


class Engine:
    """A module's engine models by configuration. Holds no weights. A copied or unpickled module gets an empty one."""

    def __init__(self):
        self._models = Cache(_CONFIGURATIONS)

    def __deepcopy__(self, memo) -> "Engine":
        return type(self)()

    def __reduce__(self):
        return (type(self), ())

    def model(self, root: Any, kind: Callable[[dict[str, Any]], core.Model], config: dict[str, Any]) -> "EngineModel":
        """The engine's model of `config`, whose parameters are below `root`.

        Args:
            kind: core.VisionModel or core.TextModel.

        Raises:
            ValueError: sizes that do not go together; the message names the field.
        """
        # id: a shallow copy of a model shares this object. What is cached keeps root alive, so ids stay apart.
        replica = getattr(root, "_is_replica", False)
        key = (
            0 if replica else id(root),
            *((name, tuple(value) if isinstance(value, list) else value) for name, value in config.items()),
        )
        if not replica:
            return self._models.get(key, lambda: EngineModel(root, kind(config)))
        # torch.nn.DataParallel makes new replicas at each call: only what has no weights is kept of them.
        planned = self._models.get(key, lambda: Planned(kind(config)))
        return EngineModel(root, planned.model, planned.plans)


class Planned:
    """A configuration and its plans, without weights."""

    def __init__(self, model: core.Model):
        self.model = model
        self.plans = Cache(_PLANS)


class EngineModel:
    """One configuration of a module: its plans and its weights. plans: those of another of the same model."""

    def __init__(self, root: Any, model: core.Model, plans: Cache | None = None):
        self.parameters = ModuleWeights(root, [name for name, _ in model.weights])
        self._model = model
        self._plans = Cache(_PLANS) if plans is None else plans

    def plan(self, *sizes: int, **request: Any) -> core.Plan:
        """The plan for the sizes and the request, from the cache when it was made before."""
        return self._plans.get((sizes, tuple(request.items())), lambda: self._model.plan(*sizes, **request))

"""All contact with ps3c._core: the parameters it reads, plans and their cache, outputs and workspace.

Tensors go by reference: the engine reads parameters and inputs where torch keeps them and writes outputs that torch
allocated. Nothing is copied unless a parameter is not contiguous.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import nn

from . import _arguments

try:
    from . import _core
except ImportError as error:  # torch is imported above, so that both share one OpenMP runtime
    raise ImportError(
        f"ps3c's compiled part, ps3c._core, cannot be loaded ({error}). Install ps3c with pip and "
        "leave the folder of its sources, or build it in place with `pip install -e .`"
    ) from error

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_PLANS = 16  # plans kept for each configuration of a model
_CONFIGURATIONS = 4


class Cache:
    """A small mapping that forgets what was used least recently. Safe to share between threads."""

    def __init__(self, size: int):
        self._size = size
        self._items: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of key; made, outside the lock, when it is not there."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        with self._lock:
            self._items[key] = value
            while len(self._items) > self._size:
                self._items.popitem(last=False)
        return value


class Parameters:
    """A module's parameters in the engine's order, looked up anew at each call.

    Weights that were replaced, cast, moved or edited are honoured, and a replaced module is noticed.
    """

    def __init__(self, root: nn.Module, names: Sequence[str]):
        self._parameters = _core.Parameters(root, names, _check_module)

    def collect(self) -> list[torch.Tensor]:
        """The tensors, contiguous (and on a GPU on multiples of 16 bytes), in order."""
        tensors = self._parameters.collect()
        if tensors and tensors[0].is_cuda:
            tensors = [tensor if tensor.data_ptr() % 16 == 0 else tensor.clone() for tensor in tensors]
        return [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]


def _check_module(path: str, module: nn.Module) -> None:
    # A layer that computes something else (an adapter, a quantised layer) has a `weight` too; using only that would
    # give wrong numbers without a word.
    home = type(module).__module__
    if home.startswith(("torch.nn.modules.", "ps3c.", "torch.nn.utils.parametrize")) or hasattr(
        module, "parametrizations"
    ):
        return
    raise TypeError(
        f"{path}: got a {home}.{type(module).__qualname__} in place of the layer that was constructed, which ps3c "
        "cannot compute; merge it into a plain layer (for LoRA: merge_and_unload) first"
    )


class Engine:
    """What a model keeps for its forward passes: engine models by configuration, plans, and where parameters are.

    Holds no weights. A copied or unpickled model starts with an empty one.
    """

    def __init__(self):
        self._models = Cache(_CONFIGURATIONS)

    def __deepcopy__(self, memo) -> "Engine":
        return type(self)()

    def __reduce__(self):
        return (type(self), ())

    def model(self, root: nn.Module, make: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> "EngineModel":
        """The engine's model of `config`, whose parameters are below `root`.

        Raises:
            ValueError: sizes that do not go together; the message names the field.
        """
        # id: a shallow copy of a model shares this object. What is cached keeps root alive, so ids stay apart.
        key = (
            id(root),
            *((name, tuple(value) if isinstance(value, list) else value) for name, value in config.items()),
        )
        return self._models.get(key, lambda: EngineModel(root, make(config)))


class EngineModel:
    def __init__(self, root: nn.Module, core):
        self.parameters = Parameters(root, [name for name, _ in core.weights])
        self._core = core
        self._plans = Cache(_PLANS)

    def plan(self, *sizes: int, **request) -> Any:
        """`_core`'s plan for the sizes and arguments, from the cache when it was made before."""
        return self._plans.get((sizes, tuple(request.items())), lambda: self._core.plan(*sizes, **request))


def device_of(tensor: torch.Tensor) -> tuple[str, int]:
    return (tensor.device.type, tensor.device.index or 0)


def empty(what: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """torch.empty, with MemoryError where memory cannot be had."""
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:
        if device.type == "cuda" and isinstance(error, torch.cuda.OutOfMemoryError):
            raise  # scripts catch this one; its text says what the allocator holds
        size = 1
        for length in shape:
            size *= length
        raise MemoryError(
            f"no memory for {what}: {size * dtype.itemsize} bytes of {dtype} {tuple(shape)} on {device}"
        ) from error


def run_arguments(plan: Any, device: torch.device) -> dict[str, Any]:
    """Workspace and settings of one run."""
    return {"workspace": workspace(plan, device), **settings(device)}


def workspace(plan: Any, device: torch.device) -> torch.Tensor:
    return empty("the workspace", (plan.workspace_bytes,), torch.uint8, device)


def settings(device: torch.device) -> dict[str, Any]:
    """Threads, stream and precision of one run, as torch has them now."""
    cuda = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "stream": torch.cuda.current_stream(device).cuda_stream if cuda else 0,
        "tf32": cuda and _allows_tf32(),
    }


def _allows_tf32() -> bool:
    """May float32 products use TF32? torch.backends.cuda.matmul.allow_tf32, which set_float32_matmul_precision sets."""
    matmul = torch.backends.cuda.matmul
    try:
        return matmul.allow_tf32
    except RuntimeError:  # torch 2.9 and later refuse the old name once the new one was assigned
        return matmul.fp32_precision == "tf32"


def workspace_limit(value: int | None) -> int:
    """A model's workspace_limit as a plan wants it; 0 where it is None."""
    return 0 if value is None else _arguments.positive("workspace_limit", value)


def check_tensor(name: str, value: Any) -> torch.Tensor:
    """A plain tensor with memory of its own kind, or TypeError naming the argument and what is wrong."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got a sparse tensor ({value.layout}), expected a dense one: call .to_dense()")
    if value.is_quantized:
        raise TypeError(f"{name}: got a quantised tensor ({value.dtype}), expected a plain one: call .dequantize()")
    if value.is_meta:
        raise TypeError(f"{name}: got a meta tensor, which has no values")
    if value.is_complex():
        raise TypeError(
            f"{name}: got a {'conjugate ' if value.is_conj() else ''}complex tensor ({value.dtype}), "
            "expected a real one"
        )
    if value.is_neg():
        raise TypeError(f"{name}: got a tensor with the negative bit set, expected plain memory: call .resolve_neg()")
    return value


def check_weights(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """dtype of a model's weights. TypeError: one that cannot be computed with, or weights without memory."""
    check_tensor("weights", tensors[0])
    dtype = tensors[0].dtype
    if dtype not in DTYPES:
        raise TypeError(f"weights: got {dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    return dtype


def check_grad(inputs: dict[str, torch.Tensor | None], training: bool, tensors: Sequence[torch.Tensor]) -> None:
    """NotImplementedError where gradients are wanted: a forward pass of ps3c has none."""
    if not torch.is_grad_enabled():
        return
    hint = "ps3c computes forward passes only, without gradients"
    for name, tensor in inputs.items():
        if tensor is not None and tensor.requires_grad:
            raise NotImplementedError(
                f"{name}: got a tensor that requires grad, but {hint}: run under torch.no_grad(), or pass "
                f"{name}.detach()"
            )
    if training and any(tensor.requires_grad for tensor in tensors):
        raise NotImplementedError(
            f"the model is in train() mode with parameters that require grad, but {hint}: call .eval() or "
            ".requires_grad_(False), or run under torch.no_grad()"
        )

"""Whether a module's layers are still what the engine computes: those that were constructed.

The engine reads weights and computes the layers itself. So a change of a layer that is no change of its weights, such
as another activation or a patched forward, would be ignored. It is refused here; a hook is warned of once.

Needs no torch of its own: modules are the caller's.
"""

import sys
import warnings
from collections.abc import Iterable
from typing import Any

_ABSENT = None
# Attributes of layers that change their results. Those that a layer had when it was constructed, and those that say
# something where it had none.
_SETTINGS = (
    "eps normalized_shape stride padding dilation groups kernel_size padding_mode num_heads head_dim batch_first "
    "approximate max_norm negative_slope"
).split()
_ADDITIONS = ("scale", "act", "activation", "rope")
# The engine's configuration reads these anew at each call.
_HONOURED = {("trunk.attn_pool.norm", "eps")}
# Hooks that only compute the weight, which LayerCheck calls.
_REPARAMETRISATIONS = ("torch.nn.utils.prune", "torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


class BuiltLayers:
    """The layers below a module at the time of the call: types, settings and parts. Copied and pickled with it."""

    def __init__(self, root: Any):
        self.layers: dict[str, tuple[type, dict[str, Any], dict[str, tuple[type, bool]]]] = {}
        for path, module in root.named_modules():
            own = vars(module)
            settings = {name: own[name] for name in _SETTINGS if name in own and (path, name) not in _HONOURED}
            settings.update((name, _ABSENT) for name in _ADDITIONS if name not in own)
            parts = {
                name: (type(child), any(True for _ in child.parameters()))
                for name, child in own["_modules"].items()
                if child is not None
            }
            self.layers[path] = (type(module), settings, parts)


class LayerCheck:
    """The check of core.Parameters for the layers below `root`.

    Args:
        root: its attribute `_built` says how the layers were constructed; without it: as they are now.
    """

    def __init__(self, root: Any):
        built = vars(root).get("_built")
        self._layers = (built if isinstance(built, BuiltLayers) else BuiltLayers(root)).layers
        self._computed: dict[str, list[tuple[Any, Any]]] = {}  # path: (hook, module)
        self._unheard: list[str] = []
        self._warned: set[str] = set()

    def __call__(self, path: str, module: Any) -> list[tuple[Any, str]]:
        """Raises TypeError for a layer that the engine does not compute. Returns what to watch of it."""
        own = vars(module)
        built = self._layers.get(path)
        _check_type(path, module, built[0] if built else None)
        watched: list[tuple[Any, str]] = [(own, name) for name in ("_modules", "forward", *_HOOKS)]
        watched.append((type(module), "forward"))
        if built:
            _check_parts(path, own["_modules"], built[2])
            _check_settings(path, own, built[1])
            watched += [(own, name) for name in built[1]]
            watched += [(own["_modules"], name) for name, (_, weights) in built[2].items() if not weights]
            for name, (_, weights) in built[2].items():
                child = own["_modules"].get(name)
                if not weights and child is not None:
                    watched += self._check_plain(f"{path}.{name}", child)
        self._check_calls(path, module)
        if "." not in path:
            watched += self._global_hooks()
        return watched

    def _check_plain(self, path: str, module: Any) -> list[tuple[Any, str]]:
        """A layer without weights, such as an activation: the engine's names do not lead to it."""
        own = vars(module)
        settings = self._layers[path][1] if path in self._layers else {}
        _check_settings(path, own, settings)
        self._check_calls(path, module)
        return [(own, name) for name in ("forward", *_HOOKS, *settings)]

    def _check_calls(self, path: str, module: Any) -> None:
        own, kind = vars(module), type(module)
        if "forward" in own and "_hf_hook" not in own:  # accelerate's hooks move inputs and weights to a device
            raise TypeError(
                f"{path}.forward: got a function of its own, expected {kind.__qualname__}.forward: ps3c computes the "
                "layer as it was constructed and does not call it"
            )
        hooks = [hook for name in _HOOKS for hook in own[name].values()]
        computing = [hook for hook in hooks if _computes_weight(hook)]
        self._computed.pop(path, None)
        if computing:
            self._computed[path] = [(hook, module) for hook in computing]
        home = getattr(kind.forward, "__module__", None) or ""
        if len(hooks) > len(computing):
            self._warn_later(path, "a forward hook")
        if not home.startswith(("torch.", "ps3c.")) or hasattr(kind.forward, "__wrapped__"):
            self._warn_later(path, f"{kind.__qualname__}.forward from {home or 'elsewhere'}")

    def _global_hooks(self) -> list[tuple[Any, str]]:
        module = sys.modules.get("torch.nn.modules.module")
        own = vars(module) if module else {}
        if any(own.get(name) for name in _GLOBAL_HOOKS):
            self._warn_later("every layer", "a global forward hook")
        return [(own, name) for name in _GLOBAL_HOOKS]

    def _warn_later(self, path: str, what: str) -> None:
        line = f"{path}: got {what}"
        if line not in self._warned:
            self._warned.add(line)
            self._unheard.append(line)

    def warn(self) -> None:
        """Warns, once, of what was found and is not called."""
        if self._unheard:
            lines, self._unheard = self._unheard, []
            more = f" (and {len(lines) - 12} more)" if len(lines) > 12 else ""
            warnings.warn(
                f"{'; '.join(lines[:12])}{more}, expected none inside the model: ps3c computes a whole pass at once "
                "and does not call it",
                stacklevel=2,
            )

    def compute(self) -> bool:
        """Computes pruned and normalised weights, as torch does before a layer's forward. False: there are none."""
        for pairs in list(self._computed.values()):
            for hook, module in pairs:
                hook(module, ())
        return bool(self._computed)


def _computes_weight(hook: Any) -> bool:
    return any(base.__module__ in _REPARAMETRISATIONS for base in type(hook).__mro__)


def _check_type(path: str, module: Any, built: type | None) -> None:
    # A layer that computes something else (an adapter, a quantised layer) has a `weight` too. Using that weight alone
    # would give wrong numbers without an error.
    kind = type(module)
    home = kind.__module__
    known = home.startswith(("torch.nn.modules.", "ps3c.", "torch.nn.utils.parametrize")) or hasattr(
        module, "parametrizations"
    )
    if known and (built is None or isinstance(module, built) or _same_forward(kind, built)):
        return
    raise TypeError(
        f"{path}: got a {home}.{kind.__qualname__} in place of the layer that was constructed, which ps3c "
        "cannot compute; merge it into a plain layer (for LoRA: merge_and_unload) first"
    )


def _same_forward(kind: Any, built: Any) -> bool:
    """Both are layers of torch with one forward, as Linear and its subclass in MultiheadAttention."""
    return built.__module__.startswith("torch.nn.modules.") and kind.forward is built.forward


def _check_parts(path: str, parts: dict[str, Any], built: dict[str, tuple[type, bool]]) -> None:
    now = {name for name, child in parts.items() if child is not None and name != "parametrizations"}
    for verb, names in (("without", set(built) - now), ("with a new", now - set(built))):
        if names:
            raise TypeError(
                f"{path}: got a layer {verb} part {_listed(names)}, expected the parts that were constructed: "
                f"{_listed(built)}"
            )
    for name, (kind, weights) in built.items():
        if not weights and name in parts:
            _check_type(f"{path}.{name}", parts[name], kind)


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "") or "none"


def _check_settings(path: str, own: dict[str, Any], settings: dict[str, Any]) -> None:
    for name, expected in settings.items():
        value = own.get(name, own["_modules"].get(name, _ABSENT))
        if value is not expected and (type(value) is not type(expected) or value != expected):
            raise TypeError(
                f"{path}.{name}: got {value!r:.80}, expected {'none' if expected is _ABSENT else repr(expected)}, as "
                "it was constructed: ps3c computes the layer with that"
            )

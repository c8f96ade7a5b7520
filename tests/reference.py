"""The reference: ps3-torch 0.1.3, loaded under another module name, with the documented corrections.

`make reference` installs the wheel aside, in .cache/reference, and what it imports beyond ps3c's own requirements
(timm, einops, torchvision) in .cache/reference-packages, so that the environment under test has none of them.
PS3C_REFERENCE names another folder. The reference never shares a name with the drop-in package `ps3`.

Corrections, each in a subclass that calls the reference's own methods:

* the remainder of integer quotas goes to the last scale, in the automatic quotas and in partial looks (the wheel drops
  it; the repository's head and its README keep it);
* equal probabilities are taken lowest index first (the order of `Tensor.topk` on a CPU is arbitrary, CUDA's is this);
* `num_token_look_close="all"` works (the wheel compares a string with a number).
"""

import functools
import importlib.util
import os
import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

MODULE = "ps3_torch_reference"
CACHE = Path(__file__).resolve().parent.parent / ".cache"


def folder() -> Path:
    """The folder that holds the reference's `ps3` package. RuntimeError, with the remedy, when it is not there."""
    base = Path(os.environ.get("PS3C_REFERENCE", CACHE / "reference"))
    for candidate in (base / "ps3", base):
        if (candidate / "modeling_ps3.py").is_file():
            return candidate
    raise RuntimeError(
        f"the reference, ps3-torch 0.1.3, is not in {base}; "
        "`make reference` installs it, PS3C_REFERENCE names another place"
    )


def declare_torchvision_operators() -> None:
    """torchvision's Python part wants two operators of its library, which has no build for every torch.

    Does nothing without torchvision. Called before anything imports it: transformers does, where it finds it.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or "torchvision" in sys.modules:
        return
    try:
        torch.ops.load_library(str(Path(spec.origin).parent / "_C.so"))
    except OSError:
        pass
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


@functools.cache
def load() -> types.ModuleType:
    """The reference's package, its encoder replaced by the corrected one."""
    path = folder()
    import transformers  # noqa: F401  (before torchvision can be found: it is not for transformers to use)

    if importlib.util.find_spec("timm") is None:
        sys.path.append(str(CACHE / "reference-packages"))
    declare_torchvision_operators()
    spec = importlib.util.spec_from_file_location(MODULE, path / "__init__.py", submodule_search_locations=[str(path)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
        modeling = importlib.import_module(f"{MODULE}.modeling_ps3")
    modeling.PS3VisionEncoder = module.PS3VisionEncoder = corrected(modeling.PS3VisionEncoder)
    return module


def stable_topk(tensor: torch.Tensor, k, dim: int = -1) -> types.SimpleNamespace:
    """Tensor.topk with the lowest index first among equals; refuses what topk refuses."""
    k = int(k)
    if not 0 <= k <= tensor.shape[dim]:
        raise RuntimeError(f"selected index k={k} out of range")
    order = torch.sort(tensor, dim=dim, descending=True, stable=True)
    return types.SimpleNamespace(values=order.values.narrow(dim, 0, k), indices=order.indices.narrow(dim, 0, k))


@contextmanager
def lowest_index_first():
    original = torch.Tensor.topk
    torch.Tensor.topk = stable_topk
    try:
        yield
    finally:
        torch.Tensor.topk = original


class Quotas(list):
    """Quotas of a whole look, from which the reference's deepcopy takes those of the look at hand."""

    def __init__(self, whole: list, look: list):
        super().__init__(whole)
        self.look = look

    def __deepcopy__(self, memo):
        return list(self.look)


def share(quotas: list, tokens: int) -> list:
    """`quotas` scaled to a sum of `tokens`, the remainder to the last scale."""
    shares = [int(quota * tokens / sum(quotas)) for quota in quotas]
    shares[-1] += tokens - sum(shares)
    return shares


def corrected(encoder: type) -> type:
    class PS3VisionEncoder(encoder):
        # When set: selection probabilities to use in place of the computed ones, so that two dtypes select alike.
        forced_probs = None
        # What the last forward computed of its own: selection, bottom-up and top-down probabilities.
        own_probs = None

        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            if config.max_select_num_each_scale is None:
                quotas = self.max_select_num_each_scale
                quotas[-1] += config.max_select_num - sum(quotas)

        def get_selection_probs(self, *args, **kwargs):
            self.own_probs = probs, bottomup, topdown = super().get_selection_probs(*args, **kwargs)
            if self.forced_probs is not None:
                probs = [forced.to(prob) for forced, prob in zip(self.forced_probs, probs)]
            return probs, bottomup, topdown

        def get_selection_maps(self, select_probs, old_selection_maps=None, num_select_token=None, **kwargs):
            whole = self.max_select_num_each_scale
            if num_select_token is not None:
                self.max_select_num_each_scale = Quotas(whole, share(whole, num_select_token))
            try:
                with lowest_index_first():
                    return super().get_selection_maps(select_probs, old_selection_maps, None, **kwargs)
            finally:
                self.max_select_num_each_scale = whole

        def forward(self, x, *args, num_look_close=None, num_token_look_close=None, **kwargs):
            if num_token_look_close == "all":
                num_token_look_close = None
                num_look_close = num_look_close if num_look_close == 0 else "all"
            return super().forward(
                x, *args, num_look_close=num_look_close, num_token_look_close=num_token_look_close, **kwargs
            )

    return PS3VisionEncoder

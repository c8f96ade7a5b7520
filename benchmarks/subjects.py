"""The measured models, built in ps3c and in ps3-torch 0.1.3 with the same random weights.

The weights are those of tests/models.py: with the values that a constructor sets, all patches would have the same
probability. Both models share the tensors, so a process has them in memory once. tests/reference.py loads ps3-torch
under another name and corrects its quotas, so that both models select the same number of patches. ps3-torch uses its
own top-k, so that its time is measured.
"""

import contextlib
import functools
import warnings
from typing import Any

import common  # noqa: F401  (finds the tests' modules)
import models
import reference
import torch

SO400M = dict(
    model_name="vit_so400m_patch14_siglip_378",
    hidden_size=1152,
    pool="map",
    ps3_scales=[378, 756, 1512],
    select_based_on_layer=[0, 9, 18, 26],
    max_select_num=2560,
)

VISION = {
    "1.5k": SO400M,
    "4k": dict(SO400M, ps3_scales=[378, 756, 1512, 3780]),
    # For --tiny: these run in seconds and use every part of the code.
    "tiny-1.5k": dict(models.TINY),
    "tiny-4k": dict(models.TINY, ps3_scales=[64, 128, 256, 640]),
    # For the overhead of a call: a trunk of six blocks with 64 channels, and a small selection network.
    "small-call": dict(
        models.TINY,
        model_name="test_vit",
        hidden_size=64,
        select_based_on_layer=[0, 2, 4, 5],
        highres_selection_feature=False,
    ),
    "vit_tiny": dict(models.TINY),
}

SIGLIP2 = dict(
    output_dim=1152,
    prompt_proj_dim=1152,
    context_length=64,
    vocab_size=256000,
    width=1152,
    heads=16,
    layers=27,
    mlp_ratio=3.7362,
    no_causal_mask=True,
    pool_type="last",
    proj_bias=True,
    act_kwargs={"approximate": "tanh"},
    norm_kwargs={"eps": 1e-6},
)

TEXT = {"siglip2": SIGLIP2, "tiny-siglip2": dict(models.TEXT_TINY, act_kwargs={"approximate": "tanh"})}


@contextlib.contextmanager
def no_draws():
    """Disables the random initialisation of parameters: for half a billion parameters it takes longer than a pass."""
    names = ("trunc_normal_", "normal_", "uniform_", "kaiming_uniform_")
    saved = {name: getattr(torch.nn.init, name) for name in names}
    for name in names:
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(torch.nn.init, name, function)


def _empty(package, kind: str, config: dict[str, Any]) -> torch.nn.Module:
    with no_draws(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(package, f"PS3{kind}Model")(getattr(package, f"PS3{kind}Config")(**config))


def reference_package():
    """The package of ps3-torch, which selects with torch.topk. RuntimeError if it is not installed."""
    package = reference.load()
    reference.lowest_index_first = contextlib.nullcontext
    return package


@functools.lru_cache(maxsize=1)
def _state(kind: str, name: str) -> dict[str, torch.Tensor]:
    import ps3c

    config = VISION[name] if kind == "Vision" else TEXT[name]
    return models.random_weights(_empty(ps3c, kind, config), seed=15)


class Pair:
    """ps3c's model `ours` and ps3-torch's model `theirs`, with the same weights, dtype and device."""

    def __init__(self, kind: str, name: str, dtype: torch.dtype, device: str = "cpu", only: tuple[str, ...] = ()):
        """kind: "Vision" or "Text". only: ("ours",) or ("theirs",) builds one; the other is None."""
        import ps3c

        config = VISION[name] if kind == "Vision" else TEXT[name]
        state = {key: tensor.to(device, dtype) for key, tensor in _state(kind, name).items()}
        self.ours = self.theirs = None
        if "theirs" not in only:
            self.ours = self._finish(_empty(ps3c, kind, config), state, dtype, device)
        if "ours" not in only:
            self.theirs = self._finish(_empty(reference_package(), kind, config), state, dtype, device)
        self.weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())

    @staticmethod
    def _finish(model, state, dtype, device):
        model.load_state_dict(state, assign=True)
        model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        if hasattr(model, "vision_model"):
            model.vision_model.num_hidden_layers_to_return = 2
        return model


def another_theirs(pair: Pair, name: str) -> torch.nn.Module:
    """Another ps3-torch vision model with the same weights, for a caller that changes the model."""
    state = pair.theirs.state_dict()
    some = next(iter(state.values()))
    return Pair._finish(_empty(reference_package(), "Vision", VISION[name]), state, some.dtype, some.device)


def image(name: str, dtype: torch.dtype, device: str = "cpu", batch: int = 1) -> torch.Tensor:
    """Square images of the model's largest scale: (batch, 3, side, side)."""
    side = VISION[name]["ps3_scales"][-1]
    return models.image(batch, side, side).to(device, dtype)


def texts(batch: int, length: int, vocabulary: int) -> torch.Tensor:
    """(batch, length) int64 token ids."""
    return torch.randint(2, vocabulary, (batch, length), generator=torch.Generator().manual_seed(batch))


def missing_reference() -> str:
    """The reason why ps3-torch cannot be loaded, or an empty string."""
    try:
        reference_package()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def output_bytes(output: Any) -> int:
    """Bytes of the tensors in an output. Each storage is counted once."""
    storages = {}
    stack = [output]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return sum(storages.values())


def selected_tokens(output: Any) -> int:
    """The number of selected high-res patches per image in a vision output."""
    maps = output.selection_maps
    return 0 if maps is None else int(sum(int((one[0] > 0).sum()) for one in maps))

"""The models that are measured, built alike in ps3c and in ps3-torch 0.1.3, on the same random weights.

The weights are lively (tests/models.py): with those a constructor leaves, selection has nothing to choose. Both models
hold the very same tensors, so that a process needs them once. ps3-torch is loaded aside (tests/reference.py) with its
quotas corrected, so that both take as many patches, and with its own top-k, which is what it costs.
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
    # For --tiny: seconds, and every part of the code.
    "tiny-1.5k": dict(models.TINY),
    "tiny-4k": dict(models.TINY, ps3_scales=[64, 128, 256, 640]),
    # For the cost of a call: a trunk of six blocks, 64 wide, and a short selection.
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
    """Constructors leave their parameters as they come: drawing half a billion of them takes longer than a pass."""
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
    """ps3-torch, selecting by its own torch.topk. RuntimeError with the remedy when it is not there."""
    package = reference.load()
    reference.lowest_index_first = contextlib.nullcontext
    return package


@functools.lru_cache(maxsize=1)
def _state(kind: str, name: str) -> dict[str, torch.Tensor]:
    import ps3c

    config = VISION[name] if kind == "Vision" else TEXT[name]
    return models.lively_state(_empty(ps3c, kind, config), seed=15)


class Pair:
    """ps3c's model and ps3-torch's on the same weights, in one dtype on one device; `theirs` is None without it."""

    def __init__(self, kind: str, name: str, dtype: torch.dtype, device: str = "cpu", only: tuple[str, ...] = ()):
        """kind: "Vision" or "Text". only: ("ours",) or ("theirs",) to build one of them."""
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
    """One more of ps3-torch's vision models on the same weights, for a caller that changes the model."""
    state = pair.theirs.state_dict()
    some = next(iter(state.values()))
    return Pair._finish(_empty(reference_package(), "Vision", VISION[name]), state, some.dtype, some.device)


def image(name: str, dtype: torch.dtype, device: str = "cpu", batch: int = 1) -> torch.Tensor:
    """A square image of the model's largest scale."""
    side = VISION[name]["ps3_scales"][-1]
    return models.image(batch, side, side).to(device, dtype)


def texts(batch: int, length: int, vocabulary: int) -> torch.Tensor:
    """(batch, length) int64 token ids."""
    return torch.randint(2, vocabulary, (batch, length), generator=torch.Generator().manual_seed(batch))


def missing_reference() -> str:
    """Why ps3-torch cannot be loaded, or an empty string."""
    try:
        reference_package()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def output_bytes(output: Any) -> int:
    """Bytes of the tensors that an output holds, each storage once."""
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
    """High-res patches that one image of a vision output has."""
    maps = output.selection_maps
    return 0 if maps is None else int(sum(int((one[0] > 0).sum()) for one in maps))

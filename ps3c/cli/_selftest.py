"""For `ps3c check`: runs small random models in every mode, at one level and at the naive level, and compares.

Tolerances depend on the dtype. float32: a relative error (Frobenius norm) of 5e-6 against the naive level. 16-bit
types: 1.5 times the naive level's own error against float32, or the dtype's unit roundoff if that is larger. Selection
maps must be equal. Every look takes all patches, or those of the ground truth, so rounding cannot change the selection.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ..engine import core

DTYPES = ("float32", "float16", "bfloat16")
LIMIT = 5e-6
TIMES = 1.5

# The published models' patch size (14), head dim (72) and MLP ratio (3.7362), with fewer layers and channels.
SIGLIP: dict[str, Any] = dict(
    width=72,
    depth=2,
    heads=1,
    mlp_hidden=269,
    patch=14,
    grid=4,
    norm_eps=1e-6,
    tanh_gelu=False,
    crop_positions=False,
    final_norm=True,
    scales=[56, 112, 168],
    max_select_num=[64, 144],
    separate_positions=True,
    select_layers=[0, 1],
    highres_features=False,
    adapter="none",
    pool_width=72,
    pool_heads=1,
    pool_hidden=269,
    pool_eps=1e-6,
)
C_RADIO: dict[str, Any] = {
    **SIGLIP,
    "grid": 12,
    "crop_positions": True,
    "final_norm": False,
    "separate_positions": False,
    "adapter": "v2",
    "adapter_hidden": 104,
    "adapter_out": 72,
    "adapter_blocks": 1,
}
C_RADIO_V1 = {**C_RADIO, "adapter": "v1"}
# The convolution network reads the image at 1512 x 1512 pixels, which takes long, so only one case uses it.
CONVOLUTIONS = dict(highres_features=True, conv_width=8, conv_out=24, conv_depth=1, conv_kernel=56)
HALF = {"max_select_num": [32, 72]}  # the number of patches that the ground truth marks in each scale

TEXT: dict[str, Any] = dict(
    width=72,
    depth=2,
    heads=1,
    mlp_hidden=269,
    context_length=16,
    vocab_size=97,
    output_dim=72,
    prompt_dim=40,
    norm_eps=1e-6,
    causal=False,
    class_token=False,
    pad_id=0,
    layer_scale=False,
    tanh_gelu=True,
    projection_linear=True,
    projection_bias=True,
    pool="last",
)
BARE = dict(causal=True, tanh_gelu=False, projection_linear=False, projection_bias=False)


@dataclass(frozen=True)
class Case:
    """One pass over images of size (height, width) in pixels, or over two texts of context_length tokens.

    marked: how many of the last scale's 12 x 12 patches the ground truth marks.
    """

    config: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (180, 180)
    images: int = 1
    marked: int = 72


def _features(looks: Any = 1, **request: Any) -> dict[str, Any]:
    return dict(mode="features", num_look_close=looks, hidden_states=2, pooled=True, **request)


_PRETRAIN = dict(mode="pretrain", prompt=True, gt_maps=True, pool_gt_only=True, global_text=True)

CASES: dict[str, Case] = {
    "SigLIP, low resolution": Case(SIGLIP, dict(mode="low_res", hidden_states=2)),
    "SigLIP, look": Case(SIGLIP, _features()),
    "SigLIP, look with a prompt": Case({**SIGLIP, **CONVOLUTIONS}, _features(prompt=True), size=(120, 180)),
    "SigLIP, two looks, ground truth": Case({**SIGLIP, **HALF}, _features(2, gt_maps=True)),
    "SigLIP, smooth": Case(SIGLIP, _features(prompt=True, smooth=True)),
    "SigLIP, first scale": Case(
        {**SIGLIP, **HALF}, _features(gt_maps=True, first_n_scales=(1,)), marked=40
    ),  # selects 64 and 40 patches
    "SigLIP, pre-training": Case({**SIGLIP, **HALF}, _PRETRAIN, images=2),
    "C-RADIO, low resolution": Case(C_RADIO, dict(mode="low_res", hidden_states=2)),
    "C-RADIO, look with a prompt": Case(C_RADIO, _features(prompt=True), size=(120, 180)),
    "C-RADIO, two looks, ground truth": Case({**C_RADIO_V1, **HALF}, _features(2, gt_maps=True)),
    "C-RADIO, pre-training": Case({**C_RADIO, **HALF}, _PRETRAIN, images=2),
    "text, last": Case(TEXT),
    "text, first": Case({**TEXT, "pool": "first", "layer_scale": True}),
    "text, argmax": Case({**TEXT, **BARE, "pool": "argmax"}),
    "text, none": Case({**TEXT, "pool": "none"}),
    "text, class token": Case({**TEXT, **BARE, "class_token": True}),
}


def random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random float32 values for a parameter, scaled so that activations stay near 1."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.1 * noise
    if noise.ndim == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    if "pos_emb" in name or name.endswith("positional_embedding"):
        return 0.3 * noise
    if noise.ndim < 2 or name.endswith(("latent", "token_embedding.weight")):
        return noise
    return noise / noise[0].numel() ** 0.5


@dataclass(frozen=True)
class _Place:
    """The dtype and the level of a run. level: a CPU level, or "cuda" for the first GPU."""

    dtype: torch.dtype
    level: str

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.level == "cuda" else "cpu")

    def plan_arguments(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch."), "device": (self.device.type, 0)}

    def run_arguments(self, plan: Any) -> dict[str, Any]:
        on_gpu = self.level == "cuda"
        return {
            "workspace": torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=self.device),
            "threads": torch.get_num_threads(),
            "level": None if on_gpu else self.level,
            "stream": torch.cuda.current_stream().cuda_stream if on_gpu else 0,
        }

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def weights(self, model: core.Model) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [random_weight(name, shape, generator).to(self.device, self.dtype) for name, shape in model.weights]


@functools.cache
def _run(name: str, dtype: str, level: str) -> dict[str, list[torch.Tensor]]:
    """The outputs of a case by name, as float64 on the CPU."""
    place = _Place(getattr(torch, dtype), level)
    case = CASES[name]
    outputs = (_vision if "patch" in case.config else _text)(case, place)
    return {name: [tensor.double().cpu() for tensor in tensors] for name, tensors in outputs.items()}


def _vision(case: Case, place: _Place) -> dict[str, list[torch.Tensor]]:
    model, width, request = core.VisionModel(case.config), case.config["width"], case.request
    count = case.images
    plan = model.plan(count, *case.size, **request, **place.plan_arguments())
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(count, 3, *case.size, generator=generator).to(place.device, place.dtype)
    ground_truth = (torch.arange(144) < case.marked).float().view(1, 12, 12).expand(count, 12, 12)
    inputs = {
        "prompt": torch.randn(count, width, generator=generator).to(place.device, place.dtype),
        "gt_maps": ground_truth.to(place.device),
        "global_text": torch.tensor([[1.0], [0.0]])[:count].to(place.device),
    }
    inputs = {name: tensor for name, tensor in inputs.items() if request.get(name)}
    tokens, grids = plan.low_res_tokens + plan.selected_tokens, plan.grids[1:]
    outputs: dict[str, Any] = {
        "hidden_states": [place.empty(count, tokens, width) for _ in range(plan.hidden_states)],
        "pooled": place.empty(count, plan.pooled_width),
    }
    maps = {"features": ["selection_maps", "selection_probs"], "low_res": []}
    every = ["selection_maps", "selection_probs", "bottomup_probs", "topdown_probs"]
    for name in maps.get(request["mode"], every):
        outputs[name] = [place.empty(count, *grid) for grid in grids]
    plan.run(place.weights(model), pixels, **inputs, **outputs, **place.run_arguments(plan))
    return {**outputs, "pooled": [outputs["pooled"]]}


def _text(case: Case, place: _Place) -> dict[str, list[torch.Tensor]]:
    model, config = core.TextModel(case.config), case.config
    length = config["context_length"]
    plan = model.plan(2, length, **place.plan_arguments())
    ids = (torch.arange(2 * length).reshape(2, -1) * 7 % config["vocab_size"]).to(place.device)
    tokens = (length,) if config["pool"] == "none" and not config["class_token"] else ()
    pooled, prompt = (place.empty(2, *tokens, config[name]) for name in ("output_dim", "prompt_dim"))
    plan.run(place.weights(model), ids, pooled=pooled, prompt=prompt, **place.run_arguments(plan))
    return {"pooled": [pooled], "prompt": [prompt]}


def compare(name: str, dtype: str, level: str) -> float:
    """The largest error of a case's outputs, divided by its tolerance. A value above 1 is a failure."""
    got, naive, exact = _run(name, dtype, level), _run(name, dtype, "naive"), _run(name, "float32", "naive")
    worst = 0.0
    for output, wants in exact.items():
        for mine, plain, want in zip(got[output], naive[output], wants):
            if output == "selection_maps":
                worst = max(worst, 0.0 if torch.equal(mine, plain) else float("inf"))
                continue
            allowed = LIMIT
            if dtype != "float32":
                allowed = max(TIMES * relative_error(plain, want), torch.finfo(getattr(torch, dtype)).eps / 2)
            worst = max(worst, relative_error(mine, want) / allowed)
    return worst


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Frobenius norm of got - want, divided by the norm of want. Infinite if got has values that are not finite."""
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got.double() - want.double()).norm() / want.double().norm())


# ---- the user's own model -------------------------------------------------------------------------------------------

_SMALL = 20_000_000  # parameters; the naive level runs a vision tower up to this size in seconds
_CHECKPOINT_LIMIT = {torch.float32: 2e-5, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def compare_checkpoint(encoder) -> Iterator[tuple[str, float]]:
    """Compares the pooled low-res vector of each CPU level with that of the slowest level: (level, error / tolerance).

    The slowest level is "naive" for a small model, otherwise "portable".
    """
    if encoder.device.type != "cpu":
        return
    vision = encoder.model.vision_model
    levels = core.cpu_levels()
    if sum(parameter.numel() for parameter in vision.parameters()) > _SMALL:
        levels.remove("naive")
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(1, 3, encoder.scales[0], encoder.scales[0], generator=generator).to(encoder.dtype)
    model, width = vision._engine_model(), vision.trunk.attn_pool.latent.shape[-1]
    weights = model.parameters.collect()
    dtype = str(encoder.dtype).removeprefix("torch.")
    plan = model.plan(1, *pixels.shape[2:], dtype=dtype, mode="low_res", hidden_states=0)
    results = {}
    for level in levels:
        results[level] = torch.empty(1, width, dtype=encoder.dtype)
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8)
        how = dict(workspace=workspace, threads=torch.get_num_threads(), level=level)
        plan.run(weights, pixels, pooled=results[level], **how)
    plainest = results.pop(levels[-1])
    for level, pooled in results.items():
        yield level, relative_error(pooled, plainest) / _CHECKPOINT_LIMIT[encoder.dtype]

"""A small random vision tower and text tower, run whole at one level and at the naive one. For `ps3c check`."""

import functools
from collections.abc import Iterator
from typing import Any

import torch

from .. import _core

# The proportions of the published models in small: patches of 14, heads of 72, an MLP of 3.7362. One look takes every
# patch, so that a close call in the ranking can't make two levels differ.
VISION: dict[str, Any] = dict(
    width=144,
    depth=3,
    heads=2,
    mlp_hidden=538,
    patch=14,
    grid=4,
    norm_eps=1e-6,
    tanh_gelu=False,
    crop_positions=False,
    final_norm=True,
    scales=[56, 112, 168],
    max_select_num=[64, 144],
    separate_positions=True,
    select_layers=[0, 2],
    highres_features=True,
    conv_width=16,
    conv_out=24,
    conv_depth=1,
    conv_kernel=28,
    adapter="none",
    pool_width=144,
    pool_heads=2,
    pool_hidden=538,
    pool_eps=1e-6,
)
TEXT: dict[str, Any] = dict(
    width=144,
    depth=3,
    heads=2,
    mlp_hidden=538,
    context_length=16,
    vocab_size=97,
    output_dim=144,
    prompt_dim=144,
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
SIDE = 180  # of the square image, in pixels

LIMIT = 5e-6  # relative error in float32; of 16-bit types: 1.5 times the naive level's own distance from float32
TIMES = 1.5


def lively(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random values that keep activations near 1, float32."""
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


def _weights(model, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [lively(name, shape, generator).to(device, dtype) for name, shape in model.weights]


@functools.cache
def _run(tower: str, dtype: str, level: str) -> dict[str, torch.Tensor]:
    """Outputs by name, float64. level "cuda": the first GPU."""
    device = torch.device("cuda" if level == "cuda" else "cpu")
    how = dict(
        threads=torch.get_num_threads(),
        level=None if level == "cuda" else level,
        stream=torch.cuda.current_stream().cuda_stream if level == "cuda" else 0,
    )
    outputs = (_vision if tower == "vision" else _text)(dtype, device, how)
    return {name: tensor.double().cpu() for name, tensor in outputs.items()}


def _place(device: torch.device) -> Any:
    return (device.type, 0)


def _vision(dtype: Any, device: torch.device, how: dict) -> dict[str, torch.Tensor]:
    kind = getattr(torch, dtype)
    model, place = _core.VisionModel(VISION), _place(device)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=generator).to(device, kind)
    prompt = torch.randn(1, VISION["width"], generator=generator).to(device, kind)
    plan = model.plan(1, SIDE, SIDE, dtype=dtype, device=place, num_look_close=1, prompt=True)
    tokens = plan.low_res_tokens + plan.selected_tokens
    features = torch.empty(1, tokens, VISION["width"], dtype=kind, device=device)
    probs = [torch.empty(1, *grid, dtype=kind, device=device) for grid in plan.grids[1:]]
    plan.run(
        _weights(model, kind, device),
        pixels,
        prompt=prompt,
        hidden_states=[features],
        selection_maps=[torch.empty_like(prob) for prob in probs],
        selection_probs=probs,
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=device),
        **how,
    )
    return {"features": features, "probabilities": torch.cat([prob.flatten() for prob in probs])}


def _text(dtype: Any, device: torch.device, how: dict) -> dict[str, torch.Tensor]:
    kind = getattr(torch, dtype)
    model, place = _core.TextModel(TEXT), _place(device)
    plan = model.plan(2, TEXT["context_length"], dtype=dtype, device=place)
    ids = (torch.arange(2 * TEXT["context_length"]).reshape(2, -1) * 7 % TEXT["vocab_size"]).to(device)
    pooled = torch.empty(2, TEXT["output_dim"], dtype=kind, device=device)
    prompt = torch.empty(2, TEXT["prompt_dim"], dtype=kind, device=device)
    workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=device)
    plan.run(_weights(model, kind, device), ids, pooled=pooled, prompt=prompt, workspace=workspace, **how)
    return {"pooled": pooled, "prompt": prompt}


def compare(tower: str, dtype: str, level: str) -> float:
    """The greatest error, in what is allowed: above 1 is a fault. tower: "vision" or "text"."""
    got, naive, exact = _run(tower, dtype, level), _run(tower, dtype, "naive"), _run(tower, "float32", "naive")
    worst = 0.0
    for name, want in exact.items():
        allowed = LIMIT if dtype == "float32" else TIMES * relative_error(naive[name], want)
        worst = max(worst, relative_error(got[name], want) / allowed)
    return worst


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of want; infinite where got is not finite."""
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got.double() - want.double()).norm() / want.double().norm())


# ---- the user's own model -------------------------------------------------------------------------------------------

_SMALL = 20_000_000  # parameters of a vision tower that the naive level can run in seconds
_CHECKPOINT_LIMIT = {torch.float32: 2e-5, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def compare_checkpoint(encoder) -> Iterator[tuple[str, float]]:
    """The pooled low-res vector at each CPU level against the plainest that takes seconds: (level, error in limits)."""
    if encoder.device.type != "cpu":
        return
    vision = encoder.model.vision_model
    levels = _core.cpu_levels()
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

"""Small models of every kind with seeded random weights, built in the same way in ps3c and in the reference.

The weights that a constructor sets hide faults: biases of 0, LayerNorm weights of 1, a layer scale of 1e-6. Here
LayerNorm weights are near 1, matrices are scaled by their fan-in, and biases and position tables are not zero.
"""

import copy
import functools
import os
import warnings

import reference
import torch

# ---- configurations ---------------------------------------------------------------------------------------------

TINY = dict(
    model_name="vit_tiny_patch16_224",
    class_token=False,
    pool="map",
    img_size=64,
    hidden_size=192,
    ps3_scales=[64, 128, 256],
    select_based_on_layer=[0, 3, 6, 11],
    max_select_num=64,
    radio=False,
    highres_selection_module_hidden_dim=16,
    highres_selection_module_out_dim=24,
    highres_selection_module_depth=1,
    highres_selection_module_kernel_size=56,
)

RADIO = dict(
    radio=True,
    img_size=256,
    radio_adapter_mlp_version="v2",
    radio_adapter_mlp_input_dim=192,
    radio_adapter_mlp_hidden_dim=72,
    radio_adapter_mlp_output_dim=1152,
    radio_adapter_mlp_num_inner=2,
)

VISION = {
    "tiny": {},
    # Without img_size the position table keeps the trunk's own 14 x 14 grid and is always resampled.
    "own_grid": dict(img_size=None),
    "two_scales": dict(ps3_scales=[64, 128], max_select_num=20),
    "four_scales": dict(ps3_scales=[32, 64, 128, 256], max_select_num=70, img_size=32),
    "five_scales": dict(ps3_scales=[32, 64, 96, 128, 160], max_select_num=33, img_size=96),
    # 200 is no multiple of 64: the reference's zoom is 200 // 64 = 3, its residual table 12 x 12 for a 12 x 12 grid;
    # 300 zooms by 4, and the residual table (18 x 18) is cropped to 16 x 16.
    "uneven_scales": dict(ps3_scales=[64, 200, 300], max_select_num=48),
    "no_residual": dict(separate_pos_emb=False),
    "no_highres": dict(highres_selection_feature=False),
    "deep_highres": dict(
        highres_selection_module_depth=3,
        highres_selection_module_hidden_dim=40,
        highres_selection_module_kernel_size=100,
    ),
    "stride_28": dict(
        highres_selection_module_kernel_size=28,
        highres_selection_module_hidden_dim=16,
        highres_selection_module_out_dim=16,
    ),
    "one_select_layer": dict(select_based_on_layer=[11]),
    "repeated_select_layer": dict(select_based_on_layer=[5, 5, 0]),
    "few": dict(max_select_num=7),
    "odd": dict(max_select_num=37),
    "given_quotas": dict(max_select_num_each_scale=[20, 5]),
    "whole_first": dict(max_select_num_each_scale=[64, 64]),
    "radio_v2": dict(RADIO),
    "radio_v2_norm": dict(RADIO, final_norm=True, radio_adapter_mlp_num_inner=0),
    "radio_v1": dict(RADIO, radio_adapter_mlp_version="v1", radio_adapter_mlp_num_inner=1),
    "radio_v1_norm": dict(RADIO, radio_adapter_mlp_version="v1", radio_adapter_mlp_num_inner=0, final_norm=True),
    "small": dict(model_name="vit_small_patch16_224", hidden_size=384),
    "siglip": dict(model_name="vit_base_patch16_siglip_224", hidden_size=768, img_size=None),
    # timm's own test trunk: 64 channels, 6 blocks, 2 heads, an MLP of 3.0.
    "test_vit": dict(model_name="test_vit", hidden_size=64, select_based_on_layer=[0, 2, 4, 5]),
    # The real trunk's proportions (patch 14, heads of 72, an MLP of 3.7362) in small.
    "patch14": dict(
        model_name="ps3c_test_patch14",
        hidden_size=144,
        img_size=56,
        ps3_scales=[56, 112, 224],
        select_based_on_layer=[0, 1, 2, 3],
    ),
}

TEXT_TINY = dict(
    output_dim=48,
    prompt_proj_dim=40,
    context_length=12,
    vocab_size=97,
    width=64,
    heads=4,
    layers=3,
    mlp_ratio=4.0,
    no_causal_mask=True,
    pool_type="last",
    proj_bias=True,
    norm_kwargs={"eps": 1e-6},
)

TEXT = {
    "siglip": {},
    "siglip2": dict(act_kwargs={"approximate": "tanh"}),
    "first": dict(pool_type="first"),
    "argmax": dict(pool_type="argmax"),
    "none": dict(pool_type="none"),
    "causal": dict(no_causal_mask=False, pool_type="argmax"),
    "causal_last": dict(no_causal_mask=False),
    "causal_none": dict(no_causal_mask=False, pool_type="none"),
    "cls": dict(no_causal_mask=False, embed_cls=True),
    "cls_pad_1": dict(no_causal_mask=False, embed_cls=True, pad_id=1),
    "cls_no_mask": dict(embed_cls=True),
    "layer_scale": dict(ls_init_value=1e-2),
    "bare_projection": dict(proj_bias=False),
    "clip": dict(no_causal_mask=False, pool_type="argmax", proj_bias=False, norm_kwargs={}, ls_init_value=0.1),
    # Heads of 72 and an MLP of int(144 * 3.7362) = 538 - 1 channels, as the real text tower has in large.
    "wide_heads": dict(width=144, heads=2, mlp_ratio=3.7362),
    "one_layer": dict(layers=1, width=32, heads=1),
}


# Under sanitizers these models alone have the convolution network, whose image has 1512 x 1512 pixels: seconds a pass.
WITH_HIGHRES = ("deep_highres", "stride_28")


def vision_config(name: str) -> dict:
    config = copy.deepcopy({**TINY, **VISION[name]})
    if "PS3C_ASAN" in os.environ and name not in WITH_HIGHRES:
        config["highres_selection_feature"] = False
    return config


def text_config(name: str) -> dict:
    return copy.deepcopy({**TEXT_TINY, **TEXT[name]})


# ---- a small trunk with the real one's proportions ---------------------------------------------------------------

PATCH14 = dict(width=144, depth=4, heads=2, mlp_ratio=3.7362, patch=14)


@functools.cache
def register_patch14() -> None:
    """Makes "ps3c_test_patch14" known to timm (for the reference) and to ps3c's table of architectures."""
    reference.load()  # puts timm on the path
    import timm
    from timm.models.vision_transformer import VisionTransformer

    from ps3c.torch_api.architectures import ARCHITECTURES, Architecture

    def ps3c_test_patch14(pretrained=False, **kwargs):
        for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            kwargs.pop(key, None)
        return VisionTransformer(
            patch_size=PATCH14["patch"],
            embed_dim=PATCH14["width"],
            depth=PATCH14["depth"],
            num_heads=PATCH14["heads"],
            mlp_ratio=PATCH14["mlp_ratio"],
            **kwargs,
        )

    ps3c_test_patch14.__module__ = "timm.models.vision_transformer"
    timm.models.register_model(ps3c_test_patch14)
    ARCHITECTURES["ps3c_test_patch14"] = Architecture(**PATCH14, img_size=56, class_token=False)


# ---- weights ------------------------------------------------------------------------------------------------------


def random_weight(name: str, shape: tuple, generator: torch.Generator) -> torch.Tensor:
    """Random float32 values for a parameter, scaled so that activations stay near 1."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("gamma") or (
        name.endswith(".weight")
        and ".blocks." in name
        and noise.ndim == 1
        and name.rsplit(".", 2)[-2].isdigit()
        and "highres" in name
    ):
        return 0.5 + 0.1 * noise  # layer scales
    if noise.ndim == 1 and name.endswith("weight"):
        return 1.0 + 0.1 * noise  # LayerNorm
    if noise.ndim == 1 and name.endswith("bias"):
        return 0.1 * noise
    if name.endswith(("pos_embed", "positional_embedding")) or "pos_emb_residual" in name:
        return 0.3 * noise
    if name.endswith(("latent", "prior_prompt", "cls_emb", "token_embedding.weight")):
        return noise
    if name.endswith("text_projection"):
        return noise / shape[0] ** 0.5
    return noise * 1.2 / noise[0].numel() ** 0.5


def random_weights(model: torch.nn.Module, seed: int) -> dict:
    """A random state_dict for `model`. The same names and shapes give the same values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: random_weight(name, tuple(tensor.shape), generator) for name, tensor in sorted(model.state_dict().items())
    }


# ---- pairs of models ----------------------------------------------------------------------------------------------

CLASSES = {
    "vision": ("PS3VisionModel", "PS3VisionConfig", vision_config),
    "text": ("PS3TextModel", "PS3TextConfig", text_config),
}


def build(package, kind: str, name: str) -> torch.nn.Module:
    """A model of configuration `name` from `package` (ps3c or the reference), with the constructor's weights."""
    model, config, table = CLASSES[kind]
    settings = table(name)
    if settings.get("model_name") == "ps3c_test_patch14":
        register_patch14()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(package, model)(getattr(package, config)(**settings)).eval().requires_grad_(False)


@functools.lru_cache(maxsize=4)
def _state(kind: str, name: str) -> dict:
    import ps3c

    return random_weights(build(ps3c, kind, name), seed=sum(map(ord, kind + name)))


@functools.lru_cache(maxsize=4)
def theirs(kind: str, name: str, dtype: torch.dtype = torch.float32, rounded: torch.dtype = None):
    """The reference's model. rounded: float32 arithmetic on weights that went through this dtype."""
    model = build(reference.load(), kind, name)
    model.load_state_dict(_state(kind, name))
    return model.to(rounded or dtype).to(dtype)


@functools.lru_cache(maxsize=4)
def ours(kind: str, name: str, dtype: torch.dtype = torch.float32):
    """ps3c's model with the same weights."""
    return build_ours(kind, name).to(dtype)


def build_ours(kind: str, name: str):
    """As ours, float32, but a new one that the caller may change."""
    import ps3c

    model = build(ps3c, kind, name)
    model.load_state_dict(_state(kind, name))
    return model


# ---- inputs -------------------------------------------------------------------------------------------------------


def image(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(batch, 3, height, width) float32: broad shapes and noise, about what a normalised photograph holds."""
    generator = torch.Generator().manual_seed(1000 * height + width + seed)
    coarse = torch.randn(batch, 3, min(5, height), min(5, width), generator=generator)
    shapes = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return shapes + 0.3 * torch.randn(batch, 3, height, width, generator=generator)


def prompt(batch: int, width: int, seed: int = 0) -> torch.Tensor:
    """(batch, width) float32."""
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(77 + seed))


def gt_maps(batch: int, height: int, width: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """(batch, height, width) of `dtype`: a rectangle of ones, elsewhere zeros."""
    generator = torch.Generator().manual_seed(55 + seed)
    maps = torch.zeros(batch, height, width)
    for sample in maps:
        y, x = (int(torch.randint(0, max(size - 1, 1), (1,), generator=generator)) for size in (height, width))
        sample[y : y + max(height // 3, 1), x : x + max(width // 3, 1)] = 1
    return maps.to(dtype)


def relative_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of `exact`, in float64."""
    result, exact = result.double(), exact.double()
    scale = exact.norm().item()
    return (result - exact).norm().item() / (scale if scale > 0 else 1.0)

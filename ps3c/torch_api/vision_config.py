"""What a PS3VisionConfig means: its checks, the quotas of a look, the engine's configuration."""

from typing import Any

from .. import _arguments
from .architectures import Architecture, find_architecture
from .configuration_ps3 import PS3VisionConfig

SIGLIP_WIDTH, SIGLIP_HEADS, SIGLIP_MLP_RATIO = 1152, 16, 3.7362  # of the attention pool behind a C-RADIO trunk


def architecture_of(config: PS3VisionConfig) -> Architecture:
    """The trunk of a config. ValueError: one that PS3 cannot use, with the reason."""
    if config.pretrained:
        raise ValueError(
            "pretrained: got True, but ps3c does not fetch the trunk's weights from timm; PS3 checkpoints "
            "hold them: use from_pretrained"
        )
    architecture = find_architecture(config.model_name)
    if config.pool != "map":
        raise ValueError(f"pool: got {config.pool!r}, expected 'map': PS3 pools by attention")
    class_token = architecture.class_token if config.class_token is None else config.class_token
    if class_token:
        raise ValueError(
            f"class_token: got {config.class_token}, which gives {config.model_name} a class token; PS3 "
            "takes a trunk without prefix tokens: set class_token=False"
        )
    if config.dynamic_img_size is False:
        raise ValueError("dynamic_img_size: got False, expected True: every scale has a size of its own")
    if config.radio and config.radio_adapter_mlp_input_dim != architecture.width:
        raise ValueError(
            f"radio_adapter_mlp_input_dim: got {config.radio_adapter_mlp_input_dim}, expected "
            f"{architecture.width}, the width of {config.model_name}"
        )
    if config.radio and config.radio_adapter_mlp_output_dim != SIGLIP_WIDTH:
        raise ValueError(
            f"radio_adapter_mlp_output_dim: got {config.radio_adapter_mlp_output_dim}, expected "
            f"{SIGLIP_WIDTH}, the width of the attention pool"
        )
    return architecture


def img_size_of(config: PS3VisionConfig, architecture: Architecture) -> int:
    """Side in pixels of the table of positions."""
    size = architecture.img_size if config.img_size is None else config.img_size
    if isinstance(size, (list, tuple)):
        if len(size) != 2 or size[0] != size[1]:
            raise ValueError(f"img_size: got {size}, expected one size or two equal ones: positions form a square")
        size = size[0]
    return _arguments.positive("img_size", size, architecture.patch)


def scales_of(config: PS3VisionConfig, patch: int) -> list[int]:
    """Scales in pixels, ascending."""
    if not isinstance(config.ps3_scales, (list, tuple)) or len(config.ps3_scales) < 2:
        raise ValueError(f"ps3_scales: got {config.ps3_scales!r}, expected a list of two sizes or more")
    scales = sorted(_arguments.positive("ps3_scales", scale, patch) for scale in config.ps3_scales)
    if scales[0] % patch:
        raise ValueError(
            f"ps3_scales: got a lowest scale of {scales[0]}, expected a multiple of the patch size, {patch}"
        )
    return scales


def select_layers_of(config: PS3VisionConfig, depth: int) -> list[int]:
    """Layers whose features rank the patches; a negative one counts from the last."""
    name, layers = "select_based_on_layer", config.select_based_on_layer
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"{name}: got {layers!r}, expected a list of layers")
    numbers = [_arguments.index(name, layer, "integers") for layer in layers]
    for number in numbers:
        if not -depth <= number < depth:
            raise ValueError(f"{name}: got {number}, expected {-depth} to {depth - 1}: the trunk has {depth} layers")
    return [number % depth for number in numbers]


def check_conv(config: PS3VisionConfig) -> None:
    """Sizes of the convolution network. ValueError or TypeError names the one that cannot be used."""
    if config.highres_selection_feature:
        for part in ("hidden_dim", "out_dim", "kernel_size"):
            name = f"highres_selection_module_{part}"
            _arguments.positive(name, getattr(config, name))
        name = "highres_selection_module_depth"
        _arguments.positive(name, getattr(config, name), 0)


def automatic_quotas(config: PS3VisionConfig, scales: list[int]) -> list[int]:
    """Patches that a look takes of each high-res scale: max_select_num shared out by numbers of pixels.

    What whole numbers leave over goes to the last scale, as in the project's repository; its release 0.1.3 drops it.
    """
    total = _arguments.positive("max_select_num", config.max_select_num)
    pixels = [scale * scale for scale in scales[1:]]
    quotas = [int(total * count / sum(pixels)) for count in pixels]
    quotas[-1] += total - sum(quotas)
    return quotas


def check_quotas(quotas: Any, scales: int, automatic: list[int]) -> list[int]:
    """max_select_num_each_scale as anybody may have set it: one positive integer a high-res scale."""
    name = "max_select_num_each_scale"
    if not isinstance(quotas, (list, tuple)):
        raise TypeError(f"{name}: got {_arguments.shown(quotas)}, expected a list of {scales} integers")
    if len(quotas) != scales:
        raise ValueError(f"{name}: got {len(quotas)} numbers, expected {scales}, one for each high-res scale")
    numbers = [_arguments.index(name, quota, "positive integers") for quota in quotas]
    if numbers != automatic:  # which may round to 0 for a small scale
        for number in numbers:
            if number < 1:
                raise ValueError(f"{name}: got {_arguments.shown(number)}, expected positive integers")
    return numbers


def engine_config(encoder) -> dict[str, Any]:
    """The engine's configuration of a PS3VisionEncoder as it is now (ps3c_vision_config in ps3c.h)."""
    c, a, pool = encoder.config, encoder.architecture, encoder.trunk.attn_pool
    high_scales = len(encoder.ps3_scales) - 1
    if pool.latent.numel() == 0:
        raise TypeError(
            f"trunk.attn_pool.latent: got an empty tensor of shape {tuple(pool.latent.shape)}, expected (1, 1, width): "
            "gather partitioned weights (DeepSpeed ZeRO-3) first, such as in deepspeed.zero.GatheredParameters"
        )
    config = {
        "width": a.width,
        "depth": a.depth,
        "heads": a.heads,
        "mlp_hidden": a.mlp_hidden,
        "patch": a.patch,
        "grid": encoder.trunk.patch_embed.grid_size[0],
        "norm_eps": a.norm_eps,
        "tanh_gelu": a.gelu == "tanh",
        "crop_positions": bool(c.radio),
        "final_norm": not c.radio or bool(c.final_norm),
        "scales": list(encoder.ps3_scales),
        "max_select_num": check_quotas(encoder.max_select_num_each_scale, high_scales, encoder.automatic_quotas),
        "separate_positions": bool(c.separate_pos_emb),
        "select_layers": select_layers_of(c, a.depth),
        "highres_features": bool(c.highres_selection_feature),
        "pool_width": pool.latent.shape[-1],
        "pool_heads": pool.num_heads,
        "pool_hidden": pool.mlp.fc1.out_features,
        "pool_eps": pool.norm.eps,
    }
    conv, adapter = bool(c.highres_selection_feature), bool(c.radio)
    config["conv_width"] = c.highres_selection_module_hidden_dim if conv else 0
    config["conv_out"] = c.highres_selection_module_out_dim if conv else 0
    config["conv_depth"] = c.highres_selection_module_depth if conv else 0
    config["conv_kernel"] = c.highres_selection_module_kernel_size if conv else 0
    config["adapter"] = c.radio_adapter_mlp_version if adapter else "none"
    config["adapter_hidden"] = c.radio_adapter_mlp_hidden_dim if adapter else 0
    config["adapter_out"] = c.radio_adapter_mlp_output_dim if adapter else 0
    config["adapter_blocks"] = c.radio_adapter_mlp_num_inner if adapter else 0
    return config

"""Holds config.json against the shapes of the tensors in the weight files, before a model is built."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, short_reason
from ..torch_api import vision_config
from ..torch_api.configuration_ps3 import PS3TextConfig, PS3VisionConfig
from ..torch_api.limits import check_limits, short

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_DTYPES = ("float32", "float16", "bfloat16", "float64")
_MOST_LABELS = 1 << 16  # transformers makes a string for each of num_labels
_SLACK = 1 << 22  # elements that a checkpoint may lack, besides as many as it has

Expected = tuple[str, list[tuple[int, str]]]  # a tensor's name; each axis: size, and the field that decides it


def check_config(checkpoint: "Checkpoint") -> None:
    """Raises CheckpointError if config.json has values that are too large or that do not fit the weight files."""
    config = checkpoint.config
    parts = [("vision_config", PS3VisionConfig), ("text_config", PS3TextConfig)]
    if config["model_type"] == "ps3_vision_model":
        _check_part(checkpoint, "", config, PS3VisionConfig)
    else:
        _check_plain(checkpoint, "", config)
        for name, kind in parts if checkpoint.has_text else parts[:1]:
            part = config.get(name)
            if part is not None and not isinstance(part, dict):
                raise _error(checkpoint, f"{name}: got {type(part).__name__}, expected an object")
            _check_part(checkpoint, f"{name}.", part or {}, kind)
    _check_dtypes(checkpoint)


def _error(checkpoint: "Checkpoint", reason: str) -> CheckpointError:
    return CheckpointError(checkpoint.folder, f"config.json: {reason}")


def _check_plain(checkpoint: "Checkpoint", prefix: str, values: dict[str, Any]) -> None:
    """What transformers itself reads of a configuration."""
    labels = values.get("num_labels", 0)
    if labels is not None and not (isinstance(labels, int) and 0 <= labels <= _MOST_LABELS):
        raise _error(checkpoint, f"{prefix}num_labels: got {short(labels)}, expected 0 to {_MOST_LABELS}")
    if values.get("quantization_config") is not None:
        raise _error(checkpoint, f"{prefix}quantization_config: got a quantised model, expected weights of {_listed()}")


def _check_part(checkpoint: "Checkpoint", prefix: str, values: dict[str, Any], kind: Any) -> None:
    _check_plain(checkpoint, prefix, values)
    try:
        config = kind(**{name: value for name, value in values.items() if name != "model_type"})
        check_limits(config)
        expected = list(_vision(config) if kind is PS3VisionConfig else _text(config))
        blocks = list(_vision_blocks(config) if kind is PS3VisionConfig else _text_blocks(config))
    except MemoryError:
        raise
    except Exception as error:
        raise _error(checkpoint, prefix + short_reason(error)) from error
    for stem, count, field in blocks:
        _check_blocks(checkpoint, stem, count, prefix + field)
    for name, axes in expected:
        _check_tensor(checkpoint, name, axes, prefix)


def _check_blocks(checkpoint: "Checkpoint", stem: str, count: int, field: str) -> None:
    numbers = {name[len(stem) :].split(".")[0] for name in checkpoint.tensors if name.startswith(stem)}
    if numbers and len(numbers) != count:
        raise _error(
            checkpoint, f"{field}: got {count} blocks, expected {len(numbers)} as in the weight files ({stem}*)"
        )


def _check_tensor(checkpoint: "Checkpoint", name: str, axes: list[tuple[int, str]], prefix: str) -> None:
    shape = tuple(size for size, _ in axes)
    info = checkpoint.tensors.get(name)
    if info is None:
        size, present = math.prod(shape), sum(math.prod(one.shape) for one in checkpoint.tensors.values())
        if size > present + _SLACK:
            field = max(axes)[1]
            raise _error(
                checkpoint, f"{prefix}{field}: makes {name} of shape {shape}, which is not in the weight files"
            )
        return
    if len(info.shape) != len(shape):
        return  # named by transformers, with both shapes
    for axis, (size, field) in enumerate(axes):
        if info.shape[axis] != size:
            raise _error(
                checkpoint,
                f"{prefix}{field}: makes {name} of shape {shape}, expected {info.shape} as in {info.file.name}",
            )


def _check_dtypes(checkpoint: "Checkpoint") -> None:
    for name, info in checkpoint.tensors.items():
        if name.startswith(("vision_model.", "text_model.")) and info.dtype not in _DTYPES:
            raise CheckpointError(
                checkpoint.folder, f"{info.file.name}: {name}: got dtype {info.dtype}, expected {_listed()}"
            )


def _listed() -> str:
    return f"{', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}"


# ---- shapes that a configuration makes -----------------------------------------------------------------------------


def _vision(config: PS3VisionConfig) -> Iterator[Expected]:
    a = vision_config.architecture_of(config)
    side = vision_config.img_size_of(config, a) // a.patch
    scales = vision_config.scales_of(config, a.patch)
    vision_config.select_layers_of(config, a.depth)
    vision_config.check_conv(config)
    automatic = vision_config.automatic_quotas(config, scales)
    quotas = config.max_select_num_each_scale
    vision_config.check_quotas(automatic if not quotas else quotas, len(scales) - 1, automatic)
    model, high = "model_name", len(scales) - 1
    width = (a.width, model)
    yield "vision_model.trunk.patch_embed.proj.weight", [width, (3, model), (a.patch, model), (a.patch, model)]
    yield "vision_model.trunk.pos_embed", [(1, model), (side**2, "img_size"), width]
    yield "vision_model.trunk.blocks.0.attn.qkv.weight", [(3 * a.width, model), width]
    yield "vision_model.trunk.blocks.0.mlp.fc1.weight", [(a.mlp_hidden, model), width]
    if config.separate_pos_emb:
        for i, scale in enumerate(scales[1:]):
            axes = [(1, "ps3_scales"), ((scale // a.patch) ** 2, "ps3_scales"), width]
            yield f"vision_model.pos_emb_residual.{i}", axes
    layers = (a.width * len(config.select_based_on_layer), "select_based_on_layer")
    yield "vision_model.selection_feature_proj.fc1.weight", [layers, layers]
    yield "vision_model.selection_feature_proj.fc2.weight", [(a.width * high, "ps3_scales"), layers]
    if config.highres_selection_feature:
        conv = "highres_selection_module_"
        hidden, out = config.highres_selection_module_hidden_dim, config.highres_selection_module_out_dim
        kernel = (config.highres_selection_module_kernel_size, conv + "kernel_size")
        stem = "vision_model.highres_selection_feature_module."
        yield stem + "stem.0.weight", [(hidden, conv + "hidden_dim"), (3, model), kernel, kernel]
        axes = [(out, conv + "out_dim"), (hidden, conv + "hidden_dim"), (1, model), (1, model)]
        yield stem + "out_proj.weight", axes
        if config.highres_selection_module_depth:
            axes = [(4 * hidden, conv + "hidden_dim"), (hidden, conv + "hidden_dim")]
            yield stem + "blocks.0.mlp.fc1.weight", axes
        yield "vision_model.prompt_proj_for_highres.weight", [(out * high, conv + "out_dim"), width]
    if config.radio:
        hidden, start = config.radio_adapter_mlp_hidden_dim, config.radio_adapter_mlp_input_dim
        if isinstance(hidden, int) and isinstance(start, int):
            name = "vision_model.trunk.siglip_proj.fc1.weight"
            yield name, [(hidden, "radio_adapter_mlp_hidden_dim"), (start, "radio_adapter_mlp_input_dim")]


def _vision_blocks(config: PS3VisionConfig) -> Iterator[tuple[str, int, str]]:
    yield "vision_model.trunk.blocks.", vision_config.architecture_of(config).depth, "model_name"
    if config.highres_selection_feature:
        stem = "vision_model.highres_selection_feature_module.blocks."
        yield stem, config.highres_selection_module_depth, "highres_selection_module_depth"


def _text(config: PS3TextConfig) -> Iterator[Expected]:
    for name in ("width", "heads", "layers", "vocab_size", "context_length", "output_dim", "prompt_proj_dim"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r:.80}, expected a positive integer")
    if isinstance(config.mlp_ratio, bool) or not isinstance(config.mlp_ratio, (int, float)):
        raise ValueError(f"mlp_ratio: got {config.mlp_ratio!r:.80}, expected a number")
    width, out, prompt = (config.width, "width"), (config.output_dim, "output_dim"), config.prompt_proj_dim
    yield "text_model.token_embedding.weight", [(config.vocab_size, "vocab_size"), width]
    positions = config.context_length + bool(config.embed_cls)
    yield "text_model.positional_embedding", [(positions, "context_length"), width]
    block = "text_model.transformer.resblocks.0."
    yield block + "attn.in_proj_weight", [(3 * config.width, "width"), width]
    yield block + "mlp.c_fc.weight", [(int(config.width * config.mlp_ratio), "mlp_ratio"), width]
    name, axes = "text_model.text_projection", [width, out]
    yield (name + ".weight", axes[::-1]) if config.proj_bias else (name, axes)
    yield "text_model.prompt_proj.fc1.weight", [(prompt, "prompt_proj_dim"), out]


def _text_blocks(config: PS3TextConfig) -> Iterator[tuple[str, int, str]]:
    yield "text_model.transformer.resblocks.", config.layers, "layers"

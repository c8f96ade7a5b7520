"""Describe a model: sizes, scales, parameters, patches per look. The weights are not loaded.

A model of the Hugging Face hub is downloaded if the local cache does not have it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _console, _errors, _model, _options

HELP = "describe a model"


def add_arguments(parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_options.MODEL)
    _options.add_revision(parser)
    _options.add_json(parser)


def run(arguments) -> int:
    report = describe(_model.find(arguments.model, arguments.revision))
    if arguments.json:
        _console.result_json(report)
    else:
        _print(report)
    return _errors.OK


def describe(folder: Path) -> dict[str, Any]:
    """What `ps3c info --json` prints.

    Raises:
        CheckpointError: the folder cannot be used.
    """
    from ..errors import CheckpointError
    from ..features.checkpoint import Checkpoint
    from ..torch_api import vision_config
    from ..torch_api.configuration_ps3 import PS3Config, PS3VisionConfig

    checkpoint = Checkpoint(folder)
    both = checkpoint.config["model_type"] == "ps3"
    try:
        config = (PS3Config if both else PS3VisionConfig).from_pretrained(folder)
        vision: Any = config.vision_config if both else config
        architecture = vision_config.architecture_of(vision)
        scales = vision_config.scales_of(vision, architecture.patch)
        quotas = list(vision.max_select_num_each_scale or vision_config.automatic_quotas(vision, scales))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(folder, _errors.one_line(error)) from error
    shapes = list(_parameters(checkpoint.files))
    logits = checkpoint.numbers(("logit_scale", "logit_bias"))
    side = [scale // scales[0] * (scales[0] // architecture.patch) for scale in scales]
    return {
        "folder": str(folder),
        "weights": {
            "files": [file.name for file in checkpoint.files],
            "bytes": sum(file.stat().st_size for file in checkpoint.files),
        },
        "dtypes": sorted({dtype for _, dtype, _ in shapes}),
        "parameters": {
            "vision": sum(count for name, _, count in shapes if name.startswith("vision_model.")),
            "text": sum(count for name, _, count in shapes if name.startswith("text_model.")),
        },
        "vision": {
            "trunk": vision.model_name,
            "width": architecture.width,
            "layers": architecture.depth,
            "heads": architecture.heads,
            "patch": architecture.patch,
            "scales": scales,
            "low_res_tokens": side[0] ** 2,
            "patches_of_scales": [one**2 for one in side[1:]],
            "quotas_of_one_look": quotas,
            "looks_for_all": max(-(-(one**2) // quota) for one, quota in zip(side[1:], quotas) if quota),
            "radio": bool(vision.radio),
        },
        "text": _text(config.text_config) if checkpoint.has_text else None,
        "processor": _json(folder / "preprocessor_config.json", ("image_size", "mean", "std", "interpolation")),
        "tokenizer": _json(folder / "tokenizer_config.json", ("tokenizer_name", "context_length", "clean")),
        "logit_scale": logits.get("logit_scale"),
        "logit_bias": logits.get("logit_bias"),
    }


def _text(config) -> dict[str, Any]:
    names = ("width", "layers", "heads", "output_dim", "prompt_proj_dim", "context_length", "vocab_size", "pool_type")
    return {name: getattr(config, name) for name in names}


def _parameters(files: list[Path]) -> Iterator[tuple[str, str, int]]:
    """Name, dtype and number of elements of every parameter."""
    import torch
    from safetensors import safe_open

    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    part = file.get_slice(name)
                    count = 1
                    for length in part.get_shape():
                        count *= length
                    yield name, names.get(part.get_dtype(), part.get_dtype()), count
        else:
            state = torch.load(path, map_location="meta", weights_only=True)
            for name, tensor in state.items():
                yield name, str(tensor.dtype).removeprefix("torch."), tensor.numel()


def _json(path: Path, names: tuple[str, ...]) -> Any:
    """The entries `names` of a JSON file; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: content.get(name) for name in names}
    except (OSError, ValueError, AttributeError):
        return None


def _print(report: dict[str, Any]) -> None:
    vision, text, counts = report["vision"], report["text"], report["parameters"]
    quotas = " + ".join(map(str, vision["quotas_of_one_look"]))
    fields: dict[str, Any] = {
        "folder": report["folder"],
        "weights": f"{report['weights']['bytes'] / 1e6:,.1f} MB in {len(report['weights']['files'])} file(s), "
        f"{', '.join(report['dtypes'])}",
        "vision": f"{vision['trunk']}: {counts['vision'] / 1e6:,.1f} million parameters, {vision['layers']} layers of "
        f"{vision['width']}, {vision['heads']} heads, patches of {vision['patch']}",
        "scales": f"{', '.join(map(str, vision['scales']))} pixels",
        "low resolution": f"{vision['low_res_tokens']} tokens",
        "high resolution": f"{' + '.join(map(str, vision['patches_of_scales']))} patches of a square image",
        "one look": f"{quotas} patches; {vision['looks_for_all']} looks encode every patch",
        "text": None,
        "tokenizer": None,
        "processor": None,
        "logit scale, bias": "none, so zero-shot classification is not possible",
    }
    if text is not None:
        fields["text"] = (
            f"{counts['text'] / 1e6:,.1f} million parameters, {text['layers']} layers of "
            f"{text['width']}, {text['context_length']} tokens, vocabulary of {text['vocab_size']}"
        )
    else:
        fields["text"] = "none, so prompts and search are not possible"
    if report["tokenizer"] is not None:
        fields["tokenizer"] = report["tokenizer"]["tokenizer_name"]
    if report["processor"] is not None:
        fields["processor"] = f"{report['processor']['image_size']} pixels, {report['processor']['interpolation']}"
    if report["logit_scale"] is not None and report["logit_bias"] is not None:
        fields["logit scale, bias"] = f"{report['logit_scale']:.4g}, {report['logit_bias']:.4g}"
    _console.result_fields(fields)

"""load: a checkpoint folder to an Encoder, with one clear sentence where that cannot be."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import torch
from safetensors import safe_open

from . import _core, _engine
from .encoder import Encoder
from .errors import CheckpointError
from .image_processing_ps3 import PS3ImageProcessor
from .modeling_ps3 import PS3Model, PS3VisionModel
from .tokenization_ps3 import PS3Tokenizer

_SINGLE = ("model.safetensors", "pytorch_model.bin")


def load(
    folder: Union[str, "os.PathLike[str]"],
    *,
    device: Union[str, torch.device] = "auto",
    dtype: Union[str, torch.dtype] = "auto",
) -> Encoder:
    """Loads a checkpoint folder: model, image processor and tokenizer in one object.

    Args:
        device: "auto": the GPU where there is one that ps3c can use, else the CPU; or a device of torch.
        dtype: "auto": as the checkpoint is stored; or torch.float32, torch.float16, torch.bfloat16, or their names.

    Raises:
        CheckpointError: the folder cannot be used; one line that names it and the cause.
        ValueError, TypeError: another device or dtype.
    """
    folder = Path(folder)
    chosen, dtype = _device(device), _dtype(dtype)
    config = _read_config(folder)
    weights = _weight_files(folder)
    has_text = config["model_type"] == "ps3"
    model_class = PS3Model if has_text else PS3VisionModel
    try:
        model = model_class.from_pretrained(folder, dtype=dtype)
        processor = PS3ImageProcessor.from_pretrained(folder)
        tokenizer = PS3Tokenizer.from_pretrained(folder) if has_text else None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(folder, str(error).splitlines()[0]) from error
    logits = _read_scalars(folder, weights, ("logit_scale", "logit_bias"))
    model.eval().requires_grad_(False)
    model.vision_model.num_hidden_layers_to_return = 1  # the reference's default, all, is 27 times as much memory
    return Encoder(
        model.to(chosen), processor, tokenizer, folder=folder,
        logit_scale=logits.get("logit_scale"), logit_bias=logits.get("logit_bias"),
    )  # fmt: skip


def _device(device: Union[str, torch.device]) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and _core.cuda_error() is None else "cpu")
    return torch.device(device)


def _dtype(dtype: Union[str, torch.dtype]) -> Union[str, torch.dtype]:
    if dtype == "auto" or dtype in _engine.DTYPES:
        return dtype
    for known, name in _engine.DTYPES.items():
        if dtype == name:
            return known
    raise ValueError(f"dtype: got {dtype!r}, expected 'auto', 'float32', 'float16' or 'bfloat16'")


def _read_config(folder: Path) -> Dict[str, Any]:
    if not folder.exists():
        raise CheckpointError(folder, "there is no such folder")
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(folder, "has no config.json, so it is no checkpoint folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(folder, f"config.json is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") not in ("ps3", "ps3_vision_model"):
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise CheckpointError(folder, f"config.json is of a model of type {kind!r}, expected 'ps3'")
    return config


def _weight_files(folder: Path) -> List[Path]:
    """The files of a checkpoint's weights. CheckpointError: there are none, or a shard is missing."""
    for name in _SINGLE:
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            for shard in shards:
                if not (folder / shard).exists():
                    raise CheckpointError(folder, f"lacks {shard}, a part of the weights")
            return [folder / shard for shard in shards]
    raise CheckpointError(folder, f"has no weights, such as {_SINGLE[0]}")


def _read_scalars(folder: Path, files: List[Path], names) -> Dict[str, float]:
    """Single numbers among the weights that the models do not hold."""
    found: Dict[str, float] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found.update({name: float(file.get_tensor(name)) for name in set(names) & set(file.keys())})
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found.update({name: float(state[name]) for name in names if name in state})
    return found

"""load: makes an Encoder of a checkpoint folder, or raises an error of one line."""

import os
from pathlib import Path
from typing import Union

import torch

from ..engine.core import cuda_error
from ..engine.tensors import DTYPES
from ..errors import CheckpointError, short_reason
from ..torch_api.image_processing_ps3 import PS3ImageProcessor
from ..torch_api.modeling_ps3 import PS3Model, PS3VisionModel
from ..torch_api.tokenization_ps3 import PS3Tokenizer
from .checkpoint import Checkpoint
from .encoder import Encoder


def load(
    folder: Union[str, "os.PathLike[str]"], *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> Encoder:
    """Loads a checkpoint folder: model, image processor and tokenizer in one object.

    Both towers if the checkpoint has them, else the vision tower alone. If the tokenizer cannot be loaded (it may be in
    a repository that cannot be reached), everything but texts works, and a call with a text raises the reason.

    Args:
        device: "auto": a GPU if ps3c can use one, else the CPU; or "cpu", "cuda", "cuda:1", ...
        dtype: "auto": as the checkpoint is stored; or torch.float32, torch.float16, torch.bfloat16, or their names.

    Raises:
        CheckpointError: the folder cannot be used; one line, which names it and the cause.
        ValueError, TypeError: another device or dtype.
    """
    place, wanted = _device(device), _dtype(dtype)
    checkpoint = Checkpoint(folder)
    model = _model(checkpoint, wanted)
    processor = _processor(checkpoint.folder)
    tokenizer, text_error = _tokenizer(checkpoint)
    logits = checkpoint.numbers(("logit_scale", "logit_bias"))
    return Encoder(
        model.to(place),
        processor,
        tokenizer,
        folder=checkpoint.folder,
        text_error=text_error,
        logit_scale=logits.get("logit_scale"),
        logit_bias=logits.get("logit_bias"),
    )


def _device(device: str | torch.device) -> torch.device:
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and cuda_error() is None else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise ValueError(f"device: got {str(device)!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if place.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= found:
            raise ValueError(f"device: got {str(device)!r}, but torch {torch.__version__} finds {found} GPUs")
        error = cuda_error(place.index or 0)
        if error is not None:
            raise ValueError(f"device: got {str(device)!r}, which cannot be used: {short_reason(error)}")
    return place


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    names = {name: known for known, name in DTYPES.items()}
    if dtype in DTYPES or (isinstance(dtype, str) and dtype == "auto"):
        return dtype
    if isinstance(dtype, str) and dtype.removeprefix("torch.") in names:
        return names[dtype.removeprefix("torch.")]
    raise ValueError(f"dtype: got {dtype!r}, expected 'auto', {', '.join(map(repr, names))}")


def _model(checkpoint: Checkpoint, dtype: str | torch.dtype) -> PS3Model | PS3VisionModel:
    model_class = PS3Model if checkpoint.has_text else PS3VisionModel
    folder = checkpoint.folder
    try:
        model, info = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except MemoryError:
        raise
    except Exception as error:  # of transformers, safetensors, pickle, and of ps3c's configurations
        raise CheckpointError(folder, short_reason(error, folder)) from error
    count = len(model.state_dict())
    missing = sorted(info["missing_keys"])
    if 2 * len(missing) > count:
        raise CheckpointError(
            folder,
            f"its weights lack {len(missing)} of the model's {count} parameters, {missing[0]} "
            "among them: is this another model's file?",
        )
    if model.dtype not in DTYPES:
        model.float()
    model.eval().requires_grad_(False)
    # ps3-torch's default, all layers, takes that many times the memory.
    model.vision_model.num_hidden_layers_to_return = 1
    return model


def _processor(folder: Path) -> PS3ImageProcessor:
    try:
        return PS3ImageProcessor.from_pretrained(folder)
    except Exception as error:
        if not (folder / "preprocessor_config.json").exists():
            raise CheckpointError(
                folder, "has no preprocessor_config.json, which says how images are prepared"
            ) from error
        raise CheckpointError(folder, f"preprocessor_config.json: {short_reason(error, folder)}") from error


def _tokenizer(checkpoint: Checkpoint) -> tuple[PS3Tokenizer | None, str | None]:
    """The tokenizer, or why there is none."""
    if not checkpoint.has_text:
        return None, "has no text tower"
    try:
        return PS3Tokenizer.from_pretrained(checkpoint.folder), None
    except Exception as error:
        return None, f"its tokenizer cannot be loaded: {short_reason(error, checkpoint.folder)}"

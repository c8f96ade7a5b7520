"""load: creates an Encoder from a checkpoint folder, or raises an error whose message is one line."""

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Union

import torch

from ..engine.core import cuda_error
from ..engine.tensors import DTYPES
from ..errors import CheckpointError, raise_memory_error, short_reason
from ..torch_api.image_processing_ps3 import PS3ImageProcessor
from ..torch_api.modeling_ps3 import PS3Model, PS3VisionModel
from ..torch_api.tokenization_ps3 import PS3Tokenizer
from .checkpoint import Checkpoint
from .checkpoint_parts import check_processor, check_tokenizer
from .encoder import Encoder
from .hub import find_model


def load(
    folder: Union[str, "os.PathLike[str]"],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    cache_dir: Union[str, "os.PathLike[str]", None] = None,
    local_files_only: bool = False,
) -> Encoder:
    """Loads a checkpoint: model, image processor and tokenizer in one object.

    A model of the Hugging Face hub is downloaded into the local cache. Once it is there, it is loaded without a
    request. The cache, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are those of the package huggingface_hub.

    The text tower is loaded if the checkpoint has one, the tokenizer when it is needed for the first time. If it cannot
    be loaded, for example because its repository cannot be reached, a call with a text raises an error with the reason.

    Args:
        folder: a checkpoint folder, or the name of a model on the hub, such as "nvidia/PS3-4K-SigLIP2". A folder of
            that name comes first.
        device: "auto", "cpu", "cuda", "cuda:1", ... "auto" is a GPU if ps3c can use one, otherwise the CPU.
        dtype: "auto" (the dtype of the checkpoint), torch.float32, torch.float16, torch.bfloat16, or their names.
        revision: branch, tag or commit of a model on the hub. Default: main.
        cache_dir: folder to use instead of the default cache, for the model and its tokenizer.
        local_files_only: True: never download, neither the model nor its tokenizer.

    Raises:
        CheckpointError: the folder cannot be used, or the model cannot be downloaded. The message is one line with the
            folder or the name, and the cause.
        ValueError, TypeError: device or dtype is wrong. Or revision, cache_dir or local_files_only was given with a
            folder.
    """
    target, wanted = _device(device), _dtype(dtype)
    checkpoint = Checkpoint(
        find_model(folder, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    )
    processor = _processor(checkpoint.folder)
    if checkpoint.has_text:
        check_tokenizer(checkpoint)
    model = _model(checkpoint, wanted)
    logits = checkpoint.numbers(("logit_scale", "logit_bias"))
    encoder = Encoder(
        model.to(target),
        processor,
        None,
        folder=checkpoint.folder,
        text_error=None if checkpoint.has_text else "has no text tower",
        logit_scale=logits.get("logit_scale"),
        logit_bias=logits.get("logit_bias"),
    )
    if checkpoint.has_text:
        # Not now: a tokenizer of the Hugging Face hub may need the network, and images do not need it.
        place = None if cache_dir is None else os.path.abspath(cache_dir)
        where = {"cache_dir": place, "local_files_only": local_files_only}
        encoder._loads_tokenizer = partial(_tokenizer, checkpoint.folder, where)
    return encoder


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
            raise ValueError(
                f"device: got {str(device)!r}, expected one of the {found} GPUs that torch {torch.__version__} finds"
            )
        error = cuda_error(place.index or 0)
        if error is not None:
            raise ValueError(f"device: got {str(device)!r}, expected a usable GPU: {short_reason(error)}")
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
    except Exception as error:  # transformers, safetensors, pickle and ps3c's configurations raise many types
        raise_memory_error(error)
        raise CheckpointError(folder, short_reason(error, folder)) from error
    count = len(model.state_dict())
    missing = sorted(info["missing_keys"])
    if 2 * len(missing) > count:
        raise CheckpointError(
            folder,
            f"its weight files lack {len(missing)} of the model's {count} parameters, for example {missing[0]}; they "
            "may belong to another model",
        )
    if model.dtype not in DTYPES:
        model.float()
    model.eval().requires_grad_(False)
    # ps3-torch's default, all layers, needs memory for the outputs of every layer.
    model.vision_model.num_hidden_layers_to_return = 1
    _warn_of_bad_values(checkpoint, model)
    return model


def _warn_of_bad_values(checkpoint: Checkpoint, model: torch.nn.Module) -> None:
    """Warns of weights that are NaN or infinite. One is named: a damaged file may have thousands."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            info = checkpoint.tensors.get(name)
            where = f"{info.file.name}: " if info else ""
            warnings.warn(
                f"{checkpoint.folder}: {where}{name}: got values that are NaN or infinite, expected finite weights; "
                "results may be NaN",
                stacklevel=4,  # the caller of ps3c.load
            )
            return


def _processor(folder: Path) -> PS3ImageProcessor:
    if not os.path.lexists(folder / "preprocessor_config.json"):
        raise CheckpointError(folder, "has no preprocessor_config.json, which describes the preprocessing of images")
    check_processor(folder)
    try:
        return PS3ImageProcessor.from_pretrained(folder)
    except Exception as error:
        raise_memory_error(error)
        raise CheckpointError(folder, f"preprocessor_config.json: {short_reason(error, folder)}") from error


def _tokenizer(folder: Path, where: dict[str, Any]) -> tuple[PS3Tokenizer | None, str | None]:
    """(tokenizer, None), or (None, the reason). where: cache_dir and local_files_only of its repository."""
    try:
        return PS3Tokenizer.from_pretrained(folder, **where), None
    except Exception as error:
        raise_memory_error(error)  # the next call tries again
        return None, f"its tokenizer cannot be loaded: {short_reason(error, folder)}"

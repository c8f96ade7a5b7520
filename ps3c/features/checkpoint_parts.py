"""Checks preprocessor_config.json and tokenizer_config.json before an object is made of them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from ..torch_api.limits import CONTEXT_LENGTH, IMAGE_SIDE, short
from .checkpoint_files import check_files, read_json

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_PROCESSOR, _TOKENIZER = "preprocessor_config.json", "tokenizer_config.json"


def check_processor(folder: Path) -> None:
    """Raises CheckpointError if the image size, the means or the deviations cannot be used."""
    values = read_json(folder, folder / _PROCESSOR)

    def refuse(name: str, value: Any, expected: str) -> None:
        shown = short(value) if isinstance(value, int) else f"{value!r:.120}"
        raise CheckpointError(folder, f"{_PROCESSOR}: {name}: got {shown}, expected {expected}")

    size = values.get("image_size")
    sides = size if isinstance(size, list) else [size]
    if not 1 <= len(sides) <= 2 or not all(_is_size(side, IMAGE_SIDE) for side in sides):
        refuse("image_size", size, f"an integer from 1 to {IMAGE_SIDE}, or [height, width]")
    for name in ("mean", "std"):
        value = values.get(name)
        if value is None:
            continue
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) not in ((3,) if isinstance(value, list) else (1,)) or not all(map(_is_finite, numbers)):
            refuse(name, value, "a finite number, or three")
        if name == "std" and not all(np.float32(number) > 0 for number in numbers):
            refuse(name, value, "a positive number, or three")


def check_tokenizer(checkpoint: "Checkpoint") -> None:
    """Raises CheckpointError if tokenizer_config.json, where there is one, has values that cannot be used."""
    folder = checkpoint.folder
    if not os.path.lexists(folder / _TOKENIZER):
        return  # the Encoder says so when it is given a text
    values = read_json(folder, folder / _TOKENIZER)

    def refuse(name: str, value: Any, expected: str) -> None:
        shown = short(value) if isinstance(value, int) else f"{value!r:.120}"
        raise CheckpointError(folder, f"{_TOKENIZER}: {name}: got {shown}, expected {expected}")

    positions = checkpoint.tensors.get("text_model.positional_embedding")
    most = min(positions.shape[0], CONTEXT_LENGTH) if positions is not None and positions.shape else CONTEXT_LENGTH
    length = values.get("context_length")
    if length is not None and not _is_size(length, most):
        refuse("context_length", length, f"an integer from 1 to {most}, the text tower's")
    name = values.get("tokenizer_name")
    if name is not None and not isinstance(name, str):
        refuse("tokenizer_name", name, "the name of a tokenizer or its folder")
    for place in [Path(name), folder / name] if name and "\0" not in name else []:
        if place.is_dir():
            check_files(place)


def _is_size(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_finite(value: Any) -> bool:
    """True for a number that float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= float(np.finfo(np.float32).max)  # False for NaN

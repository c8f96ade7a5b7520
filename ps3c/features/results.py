"""The results of an Encoder's calls: features and their positions in the image, with methods to save and show them."""

import io
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image

from .. import plot
from ..errors import ImageError, MissingExtraError, short_reason
from . import files

PathLike = Union[str, "os.PathLike[str]"]

_TENSORS = ("pooled", "tokens", "positions", "look", "selection_maps", "selection_probs")


@dataclass(eq=False, repr=False)
class ImageFeatures:
    """Features of N images. C is the width, T the number of tokens, S the number of high-res scales of h x w patches.

    names: paths; "image 0", "image 1", ... for images without a path. sizes: (width, height) of the upright images in
        pixels.
    pooled: (N, C), computed from the whole image at low resolution; comparable with pooled vectors of texts and images.
    tokens: (N, T, C), low-res tokens first, then the selected patches ordered by scale, row, column. None without looks
        and tokens.
    positions: (N, T, 3) int32, (scale, row, column) of each token; scale 0 is the low resolution.
    look: (N, T) int16, the number of the look that encoded each token; 0 is the low resolution.
    selection_maps: S tensors (N, h, w), 1 where a patch was selected. selection_probs: S tensors (N, h, w), the
        selection probability of each patch. None without maps=True.
    texts: the text of each image, or None. scales: image sizes in pixels, ascending. patch_size: in pixels.
    errors: the errors of skipped images. thumbnails: small copies of the images, if there are tokens or maps.
    grids: (rows, columns) of the patches of each scale, if there are tokens or maps.
    """

    names: list[str]
    sizes: list[tuple[int, int]]
    pooled: torch.Tensor
    tokens: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    look: torch.Tensor | None = None
    selection_maps: list[torch.Tensor] | None = None
    selection_probs: list[torch.Tensor] | None = None
    texts: list[str | None] = field(default_factory=list)
    scales: list[int] = field(default_factory=list)
    patch_size: int = 14
    errors: list[ImageError] = field(default_factory=list)
    thumbnails: list[Image.Image] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        parts = [_count(len(self), "image"), f"pooled {_describe(self.pooled)}"]
        if self.tokens is not None:
            parts.append(f"tokens {_describe(self.tokens)}")
        if self.selection_probs is not None:
            parts.append(f"maps of {_count(len(self.selection_probs), 'scale')}")
        if self.errors:
            parts.append(_count(len(self.errors), "error"))
        return f"<ImageFeatures: {', '.join(parts)}>"

    def __getitem__(self, index: Any) -> "ImageFeatures":
        """The features of one image, as a batch of 1, or of several images. `errors` is empty.

        index: an integer, a slice, a list, array or tensor of integers, or a mask of N booleans.
        """
        part = _part(index, len(self))
        lists = {name: _items(getattr(self, name), part) for name in ("names", "sizes", "texts", "thumbnails")}
        return replace(self._each_tensor(lambda tensor: _rows(tensor, part)), errors=[], **lists)

    def to(self, device: str | torch.device) -> "ImageFeatures":
        """A copy whose tensors are on a device."""
        return self._each_tensor(lambda tensor: tensor.to(device))

    def _each_tensor(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "ImageFeatures":
        changes: dict[str, Any] = {}
        for name in _TENSORS:
            value = getattr(self, name)
            if value is not None:
                changes[name] = [function(one) for one in value] if isinstance(value, list) else function(value)
        return replace(self, **changes)

    @staticmethod
    def concatenate(parts: Sequence["ImageFeatures"]) -> "ImageFeatures":
        """Concatenates features of the same kind, such as the batches of Encoder.embed_batches. Errors are kept.

        Raises:
            ValueError: there are no parts, or a field differs between parts; the message names the field.
        """
        full = [part for part in parts if len(part)] or list(parts[:1])
        if not full:
            raise ValueError("parts: got none, expected one or more")
        first = full[0]
        for name in ("scales", "patch_size", "grids"):
            for part in full[1:]:
                if getattr(part, name) != getattr(first, name):
                    raise ValueError(
                        f"parts: got {name} {getattr(part, name)}, expected {getattr(first, name)} as in the first "
                        "part; all parts must come from one model"
                    )
        if len(full) == 1:
            tensors = {name: getattr(first, name) for name in _TENSORS}
        else:
            tensors = {name: _concatenated(name, [getattr(part, name) for part in full]) for name in _TENSORS}
        lists = {
            name: [item for part in parts for item in getattr(part, name)]
            for name in ("names", "sizes", "texts", "errors", "thumbnails")
        }
        return replace(first, **tensors, **lists)

    def feature_maps(self) -> list[torch.Tensor]:
        """Feature maps: S + 1 tensors (N, C, h, w), low resolution first. Patches that were not selected are zero."""
        if self.tokens is None or self.positions is None:
            raise ValueError("feature_maps: got features without tokens, expected features made with looks or tokens")
        images, maps = torch.arange(len(self), device=self.tokens.device)[:, None], []
        scales, rows, columns = self.positions.long().unbind(-1)
        for scale, (height, width) in enumerate(self.grids):
            flat = self.tokens.new_zeros(len(self), height * width + 1, self.tokens.shape[2])
            # Tokens of other scales are written to one extra element at the end.
            flat[images, torch.where(scales == scale, rows * width + columns, height * width)] = self.tokens
            maps.append(flat[:, :-1].transpose(1, 2).unflatten(2, (height, width)))
        return maps

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes a file in the format of its suffix. ps3c.load_features reads it.

        .parquet has names, sizes, texts, and pooled vectors as float32 (needs the extra "parquet"). .safetensors and
        .npz have all fields without loss. See the documentation, "File formats".

        Raises:
            FileExistsError: the file exists and overwrite is False. ValueError: the suffix is unknown. OSError: the
                file cannot be written. After an error no partial file remains, and an existing file is unchanged.
        """
        files.write(Path(path), *self._record(), overwrite)

    def _record(self) -> tuple[files.Tensors, files.Metadata]:
        tensors: files.Tensors = {"pooled": self.pooled}
        for name in ("tokens", "positions", "look"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        for name in ("selection_maps", "selection_probs"):
            for scale, values in enumerate(getattr(self, name) or (), start=1):
                tensors[f"{name}.{scale}"] = values
        for index, image in enumerate(self.thumbnails):
            tensors[f"thumbnails.{index}"] = _png(image)
        plain = ("names", "sizes", "texts", "scales", "patch_size", "grids")
        errors = [[error.name, error.reason] for error in self.errors]
        return tensors, {"kind": "images", "errors": errors, **{name: getattr(self, name) for name in plain}}

    @staticmethod
    def _of_record(tensors: files.Tensors, metadata: files.Metadata) -> "ImageFeatures":
        def numbered(name: str, first: int) -> list[torch.Tensor]:
            count = sum(other.startswith(f"{name}.") for other in tensors)
            return [tensors[f"{name}.{number}"] for number in range(first, first + count)]

        return ImageFeatures(
            names=metadata["names"],
            sizes=[tuple(size) for size in metadata["sizes"]],
            pooled=tensors["pooled"],
            tokens=tensors.get("tokens"),
            positions=tensors.get("positions"),
            look=tensors.get("look"),
            selection_maps=numbered("selection_maps", 1) or None,
            selection_probs=numbered("selection_probs", 1) or None,
            texts=metadata["texts"],
            scales=metadata["scales"],
            patch_size=metadata["patch_size"],
            errors=[ImageError(*error) for error in metadata["errors"]],
            thumbnails=[_of_png(data) for data in numbered("thumbnails", 0)],
            grids=[tuple(grid) for grid in metadata["grids"]],
        )

    def _repr_png_(self) -> bytes | None:
        return _picture(self) if self.thumbnails else None


@dataclass(eq=False, repr=False)
class TextFeatures:
    """Vectors of N texts.

    pooled: (N, C), comparable with pooled vectors of images. prompt: (N, C), the model's argument `prompt`, which
    selects patches. A Parquet file does not store prompts: after reading one, prompt is (N, 0).
    """

    texts: list[str]
    pooled: torch.Tensor
    prompt: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"<TextFeatures: {_count(len(self), 'text')}, pooled {_describe(self.pooled)}>"

    def __getitem__(self, index: Any) -> "TextFeatures":
        """The vectors of one text, as a batch of 1, or of several texts; index as in ImageFeatures."""
        part = _part(index, len(self))
        return TextFeatures(_items(self.texts, part), _rows(self.pooled, part), _rows(self.prompt, part))

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Like ImageFeatures.save. A .parquet file has texts and pooled vectors."""
        files.write(Path(path), *self._record(), overwrite)

    def _record(self) -> tuple[files.Tensors, files.Metadata]:
        return {"pooled": self.pooled, "prompt": self.prompt}, {"kind": "texts", "texts": self.texts}

    @staticmethod
    def _of_record(tensors: files.Tensors, metadata: files.Metadata) -> "TextFeatures":
        return TextFeatures(metadata["texts"], tensors["pooled"], tensors["prompt"])


@dataclass(eq=False, repr=False)
class Look:
    """The result of one look, on the model's device. T tokens, C channels, S high-res scales of h x w patches.

    number: the number of the look; 0 is the whole image at low resolution.
    features: (T, C). positions: (T, 3) int32, (scale, row, column).
    probs: S maps (h, w), the selection probability of each patch; the same for all looks.
    image: a thumbnail. text: the text that selects patches, or None.
    taken: number of patches of each scale in this look, low resolution first. scales: in pixels, ascending.
    """

    number: int
    features: torch.Tensor
    positions: torch.Tensor
    probs: list[torch.Tensor]
    image: Image.Image
    text: str | None
    taken: list[int]
    scales: list[int]
    patch_size: int = 14

    def __repr__(self) -> str:
        shares = ", ".join(f"{count} at {scale}" for scale, count in zip(self.scales, self.taken) if count)
        return f"<Look {self.number}: patches {shares}, features {_describe(self.features)}>"

    def _repr_png_(self) -> bytes | None:
        return _picture(self)


def load_features(path: PathLike) -> ImageFeatures | TextFeatures:
    """Reads a file that ImageFeatures.save or TextFeatures.save wrote. The tensors are on the CPU.

    Raises:
        FileNotFoundError: the file does not exist. ValueError: the suffix is unknown, the file is damaged, or save did
            not write it. MissingExtraError: the file is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    tensors, metadata = files.read(path)
    with files.reading(path):  # entries may be missing or have a wrong type
        return (TextFeatures if metadata["kind"] == "texts" else ImageFeatures)._of_record(tensors, metadata)


def _png(image: Image.Image) -> torch.Tensor:
    """An image's PNG file as (bytes,) uint8."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _of_png(data: torch.Tensor) -> Image.Image:
    with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
        return image.convert("RGB")


def _picture(result: ImageFeatures | Look) -> bytes | None:
    """The PNG that a notebook shows. None if matplotlib is not installed or there is nothing to draw."""
    try:
        figure = plot.picture_of(result)
    except MissingExtraError:
        return None
    return None if figure is None else figure._repr_png_()


def _concatenated(name: str, values: list[Any]) -> Any:
    if any((value is None) != (values[0] is None) for value in values):
        raise ValueError(f"parts: got some with {name} and some without, expected all or none with {name}")
    if values[0] is None:
        return None
    if isinstance(values[0], list):
        return [torch.cat(scale) for scale in zip(*values)]
    if len({(value.shape[1:], value.dtype) for value in values}) > 1:
        kinds = ", ".join(sorted({_describe(value) for value in values}))
        raise ValueError(f"parts: got {name} of {kinds}, expected one dtype and equal dimensions after the first")
    return torch.cat(values)


_INDEX = "an integer, a slice, a list, array or tensor of integers, or a mask of booleans"


def _part(index: Any, length: int) -> slice | list[int]:
    """What an index selects: a slice, or the numbers of the items, from 0 on.

    Raises:
        TypeError: index has another type. IndexError: it is out of range, or a mask of another length.
    """
    if isinstance(index, slice):
        return index
    if isinstance(index, (torch.Tensor, np.ndarray, np.generic)):
        is_number, index = index.ndim == 0, index.tolist()
        index = index if is_number or isinstance(index, list) else [index]
    if isinstance(index, (list, tuple, range)):
        items = [one.item() if isinstance(one, (torch.Tensor, np.generic)) and one.ndim == 0 else one for one in index]
        if items and all(isinstance(one, bool) for one in items):
            if len(items) != length:
                raise IndexError(f"index: got a mask of {len(items)} booleans, expected {length}")
            return [number for number, taken in enumerate(items) if taken]
        return [_number(one, length) for one in items]
    number = _number(index, length)
    return slice(number, number + 1)


def _number(index: Any, length: int) -> int:
    try:
        if isinstance(index, bool):
            raise TypeError
        number = operator.index(index)
    except TypeError:
        raise TypeError(f"index: got {short_reason(repr(index))}, expected {_INDEX}") from None
    if not -length <= number < length:
        raise IndexError(f"index: got {number}, expected {-length} to {length - 1}")
    return number % length


def _items(values: list[Any], part: slice | list[int]) -> list[Any]:
    """The selected items; none of a list that was left empty."""
    return values[part] if isinstance(part, slice) else [values[number] for number in part] if values else []


def _rows(tensor: torch.Tensor, part: slice | list[int]) -> torch.Tensor:
    return tensor[part] if isinstance(part, slice) else tensor[torch.tensor(part, dtype=torch.long).to(tensor.device)]


def _describe(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

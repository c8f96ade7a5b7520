"""What an Encoder's calls return: features and their positions in the image, with methods to save and show them."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

import torch
from PIL import Image

from .. import plot
from ..errors import ImageError, MissingExtraError
from . import files

PathLike = Union[str, "os.PathLike[str]"]

_TENSORS = ("pooled", "tokens", "positions", "look", "selection_maps", "selection_probs")


@dataclass(eq=False, repr=False)
class ImageFeatures:
    """Features of N images. C width, T tokens, S high-res scales of h x w patches.

    names: paths, or "image 0", ... of images without one. sizes: (width, height) in pixels, upright.
    pooled: (N, C), of the whole image at low resolution, to compare with a text's or another image's.
    tokens: (N, T, C), low-res tokens first, then the chosen patches by scale, row, column; None unless asked for.
    positions: (N, T, 3) int32, (scale, row, column) of each token; scale 0 is the low resolution.
    look: (N, T) int16, the look that took each token; 0 for the low resolution.
    selection_maps, selection_probs: S tensors (N, h, w): 1 where a patch was taken, and the probability of each patch;
        None unless asked for.
    texts: what each image was searched for, or None. scales: image sizes in pixels, ascending. patch_size: in pixels.
    errors: of images that were left out. thumbnails: small copies of the images, if there are tokens or maps to draw.
    grids: (rows, columns) of each scale's patches, where there are tokens or maps.
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

    def __getitem__(self, index: int | slice) -> "ImageFeatures":
        """One image, still as a batch, or some; without errors."""
        part = _as_slice(index, len(self))
        lists = {name: getattr(self, name)[part] for name in ("names", "sizes", "texts", "thumbnails")}
        return replace(self._each_tensor(lambda tensor: tensor[part]), errors=[], **lists)

    def to(self, device: str | torch.device) -> "ImageFeatures":
        """A copy with the tensors on a device."""
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
        """Joins features of the same kind, such as the batches of Encoder.embed_batches; errors are kept.

        Raises:
            ValueError: no parts, or parts that do not go together; the message names the field.
        """
        full = [part for part in parts if len(part)] or list(parts[:1])
        if not full:
            raise ValueError("parts: got none, expected one or more")
        first = full[0]
        for name in ("scales", "patch_size", "grids"):
            for part in full[1:]:
                if getattr(part, name) != getattr(first, name):
                    raise ValueError(
                        f"parts: got {name} {getattr(part, name)}, expected {getattr(first, name)} as in the "
                        "first: features of one model and one kind"
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
        """Tokens at their places: S + 1 maps (N, C, h, w), low resolution first; zeros where no patch was taken."""
        if self.tokens is None or self.positions is None:
            raise ValueError("feature_maps: these features have no tokens; ask for looks or tokens")
        images, maps = torch.arange(len(self), device=self.tokens.device)[:, None], []
        scales, rows, columns = self.positions.long().unbind(-1)
        for scale, (height, width) in enumerate(self.grids):
            flat = self.tokens.new_zeros(len(self), height * width + 1, self.tokens.shape[2])
            # Tokens of other scales go to one place past the end.
            flat[images, torch.where(scales == scale, rows * width + columns, height * width)] = self.tokens
            maps.append(flat[:, :-1].transpose(1, 2).unflatten(2, (height, width)))
        return maps

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes a file in the format of its ending; ps3c.load_features reads it.

        .parquet: names, sizes, texts, and pooled vectors as float32 (extra "parquet"). .safetensors, .npz: everything,
        bit for bit. See docs: file formats.

        Raises:
            FileExistsError: it exists, without overwrite. ValueError: another ending. OSError: it cannot be written;
                no partial file remains, and an earlier file stays as it was.
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
    """Vectors of N texts: pooled (N, C), to compare with images'; prompt (N, C), what a model looks for with it.

    A Parquet file does not hold the prompts: read from one, prompt is (N, 0).
    """

    texts: list[str]
    pooled: torch.Tensor
    prompt: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"<TextFeatures: {_count(len(self), 'text')}, pooled {_describe(self.pooled)}>"

    def __getitem__(self, index: int | slice) -> "TextFeatures":
        """One text, still as a batch, or some."""
        part = _as_slice(index, len(self))
        return TextFeatures(self.texts[part], self.pooled[part], self.prompt[part])

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """As ImageFeatures.save; .parquet holds texts and pooled vectors."""
        files.write(Path(path), *self._record(), overwrite)

    def _record(self) -> tuple[files.Tensors, files.Metadata]:
        return {"pooled": self.pooled, "prompt": self.prompt}, {"kind": "texts", "texts": self.texts}

    @staticmethod
    def _of_record(tensors: files.Tensors, metadata: files.Metadata) -> "TextFeatures":
        return TextFeatures(metadata["texts"], tensors["pooled"], tensors["prompt"])


@dataclass(eq=False, repr=False)
class Look:
    """The result of one look, on the model's device. T tokens, C width, S high-res scales of h x w patches.

    number: 0 is the whole image at low resolution. features: (T, C). positions: (T, 3) int32, (scale, row, column).
    probs: S maps (h, w), the probability of each patch; the same for all looks.
    image: a thumbnail. text: what was looked for, or None.
    taken: patches of each scale that this look took, the low resolution first. scales: in pixels, ascending.
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
    """What save wrote: ImageFeatures or TextFeatures, on the CPU.

    Raises:
        FileNotFoundError: no such file. ValueError: another ending, a damaged file, or one that save did not write.
        MissingExtraError: a Parquet file, without pyarrow.
    """
    path = Path(path)
    tensors, metadata = files.read(path)
    with files.reading(path):  # entries may be missing, or of another kind
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
    """What a notebook shows; None where matplotlib is missing or there is nothing to see."""
    try:
        figure = plot.picture_of(result)
    except MissingExtraError:
        return None
    return None if figure is None else figure._repr_png_()


def _concatenated(name: str, values: list[Any]) -> Any:
    if any((value is None) != (values[0] is None) for value in values):
        raise ValueError(f"parts: got some with {name} and some without, expected one kind")
    if values[0] is None:
        return None
    if isinstance(values[0], list):
        return [torch.cat(scale) for scale in zip(*values)]
    if len({(value.shape[1:], value.dtype) for value in values}) > 1:
        kinds = ", ".join(sorted({_describe(value) for value in values}))
        raise ValueError(f"parts: got {name} of {kinds}, expected one shape and dtype but for the first dimension")
    return torch.cat(values)


def _as_slice(index: int | slice, length: int) -> slice:
    if isinstance(index, slice):
        return index
    if not -length <= index < length:
        raise IndexError(f"index: got {index}, expected {-length} to {length - 1}")
    index %= length
    return slice(index, index + 1)


def _describe(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

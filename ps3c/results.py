"""What an Encoder's calls return: features with where they stand in the image. They save themselves and show themselves."""

import os
from dataclasses import dataclass, field, replace
from typing import List, Optional, Tuple, Union

import torch
from PIL import Image

from .errors import ImageError


@dataclass
class ImageFeatures:
    """Features of N images. C width, T tokens, S high-res scales of h x w patches.

    names: paths, or "image 0", ... for images without one. sizes: (width, height) in pixels, upright.
    pooled: (N, C), the vector of the whole image at low resolution.
    tokens: (N, T, C), low-res tokens first, then the chosen patches by scale, row, column; None unless asked for.
    positions: (N, T, 3) int32, (scale, row, column) of each token; scale 0 is the low resolution.
    look: (N, T) int16, the look that took each token; 0 for the low resolution.
    selection_maps, selection_probs: S tensors (N, h, w): 1 where a patch was taken, and how much each was wanted.
    texts: what each image was searched for, or None. scales: image sizes in pixels, ascending. patch_size: in pixels.
    errors: of images left out. thumbnails: the images in small, where there are tokens or maps to look at.
    """

    names: List[str]
    sizes: List[Tuple[int, int]]
    pooled: torch.Tensor
    tokens: Optional[torch.Tensor] = None
    positions: Optional[torch.Tensor] = None
    look: Optional[torch.Tensor] = None
    selection_maps: Optional[List[torch.Tensor]] = None
    selection_probs: Optional[List[torch.Tensor]] = None
    texts: List[Optional[str]] = field(default_factory=list)
    scales: List[int] = field(default_factory=list)
    patch_size: int = 14
    errors: List[ImageError] = field(default_factory=list)
    thumbnails: List[Image.Image] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Union[int, slice]) -> "ImageFeatures":
        """One image (as a batch of 1) or some."""
        part = _as_slice(index, len(self))

        def cut(values):
            return None if values is None else values[part]

        def cut_all(values):
            return None if values is None else [value[part] for value in values]

        return replace(
            self, names=self.names[part], sizes=self.sizes[part], pooled=self.pooled[part], tokens=cut(self.tokens),
            positions=cut(self.positions), look=cut(self.look), selection_maps=cut_all(self.selection_maps),
            selection_probs=cut_all(self.selection_probs), texts=self.texts[part], errors=[],
            thumbnails=self.thumbnails[part],
        )  # fmt: skip

    def feature_maps(self) -> List[torch.Tensor]:
        """Tokens where they stand: S + 1 maps (N, C, h, w), the low resolution first; zeros where no patch was taken."""
        if self.tokens is None or self.positions is None:
            raise ValueError("feature_maps: these features have no tokens; ask for looks or tokens")
        maps, images = [], torch.arange(len(self), device=self.tokens.device)[:, None]
        for scale, (rows, columns) in enumerate(self._grids()):
            flat = self.tokens.new_zeros(len(self), rows * columns + 1, self.tokens.shape[2])
            _, row, column = self.positions.long().unbind(-1)
            # Tokens of other scales go to a place past the end.
            place = torch.where(self.positions[..., 0] == scale, row * columns + column, rows * columns)
            flat[images, place] = self.tokens
            maps.append(flat[:, :-1].transpose(1, 2).unflatten(2, (rows, columns)))
        return maps

    def _grids(self) -> List[Tuple[int, int]]:
        if self.selection_probs is not None:
            low = self.scales[0] // self.patch_size
            return [(low, low), *(tuple(probs.shape[1:]) for probs in self.selection_probs)]
        return [(scale // self.patch_size,) * 2 for scale in self.scales]

    def save(self, path: Union[str, "os.PathLike[str]"], *, overwrite: bool = False) -> None:
        """Writes a file; its ending says which kind.

        .parquet: names, sizes, texts and pooled vectors as float32. .safetensors, .npz: everything, bit for bit.

        Raises:
            FileExistsError: it exists, without overwrite. ValueError: another ending. OSError: it cannot be written;
                nothing is left behind.
        """
        from . import saving

        saving.save(self, path, overwrite)

    def _repr_png_(self) -> Optional[bytes]:
        return _png(self, len(self))


@dataclass
class TextFeatures:
    """Vectors of N texts: pooled (N, C), to compare with images'; prompt (N, C), what an encoder looks for with it."""

    texts: List[str]
    pooled: torch.Tensor
    prompt: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Union[int, slice]) -> "TextFeatures":
        part = _as_slice(index, len(self))
        return TextFeatures(self.texts[part], self.pooled[part], self.prompt[part])

    def save(self, path: Union[str, "os.PathLike[str]"], *, overwrite: bool = False) -> None:
        """As ImageFeatures.save; .parquet holds texts and pooled vectors."""
        from . import saving

        saving.save(self, path, overwrite)


@dataclass
class Look:
    """What one look saw. number 0 is the whole image at low resolution.

    features: (T, C); positions: (T, 3) int32, (scale, row, column). probs: S maps (h, w), the same for all looks.
    taken: patches of each scale that this look took, the low resolution first. image: the image in small.
    text: what was looked for, or None. scales: in pixels.
    """

    number: int
    features: torch.Tensor
    positions: torch.Tensor
    probs: List[torch.Tensor]
    image: Image.Image
    text: Optional[str]
    taken: List[int]
    scales: List[int]
    patch_size: int = 14

    def _repr_png_(self) -> Optional[bytes]:
        return _png(self, 1)


def _png(result, images: int) -> Optional[bytes]:
    """The picture of a result in a notebook; None where matplotlib is missing or there is nothing to see."""
    if not images or not (getattr(result, "image", None) or getattr(result, "thumbnails", None)):
        return None
    try:
        from . import plot

        return plot.looks(None, result)._repr_png_()
    except ImportError:
        return None


def _as_slice(index: Union[int, slice], length: int) -> slice:
    if isinstance(index, slice):
        return index
    if not -length <= index < length:
        raise IndexError(f"index: got {index}, expected {-length} to {length - 1}")
    index %= length
    return slice(index, index + 1)

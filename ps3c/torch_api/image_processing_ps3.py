"""From an image to pixel values: resize, RGB, [0, 1], normalise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from ..engine import core

OPENAI_DATASET_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_DATASET_STD = (0.26862954, 0.26130258, 0.27577711)

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_INTERPOLATIONS = ("bicubic", "bilinear", "random")  # random: ps3-torch's name for bicubic outside training
_STRIP_PIXELS = 1 << 18


class PS3ImageProcessor(BaseImageProcessor):
    """Makes a model's pixel_values from a PIL image.

    Args:
        image_size: side of the result, or (height, width).
        mean, std: of each channel, or one for all; default: CLIP's.
        resize_mode: "squash", the only one: the aspect ratio is not kept.
        interpolation: "bicubic" or "bilinear".

    Attributes: image_size, mean, std, interpolation decide what a call does and may be assigned. size, crop_size,
    image_mean and image_std are for other packages to read; nothing here depends on them.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        image_size: int | tuple[int, int] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        resize_mode: str | None = None,
        interpolation: str | None = None,
        **kwargs,
    ):
        super().__init__()
        if image_size is None:
            raise ValueError("image_size: got None, expected the side of the model's input, or (height, width)")
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_image_size(self.image_size)
        self.mean = _three(mean or OPENAI_DATASET_MEAN)
        self.std = _three(std or OPENAI_DATASET_STD)
        self.resize_mode = resize_mode or "squash"
        if self.resize_mode != "squash":
            raise ValueError(f"resize_mode: got {resize_mode!r}, expected 'squash'")
        self.interpolation = interpolation or "bicubic"
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(f"interpolation: got {interpolation!r}, expected 'bicubic' or 'bilinear'")

        # VILA reads and assigns these.
        self.size = {"shortest_edge": self.image_size[0]}
        self.crop_size = {"height": self.image_size[0], "width": self.image_size[0]}
        self.image_mean = self.mean
        self.image_std = self.std

    def preprocess(self, image: Any, return_tensors: Any = None, **kwargs) -> dict[str, list[torch.Tensor]]:
        """One image of any mode and size to {"pixel_values": [tensor (3, H, W), float32]}.

        Args:
            image: a PIL image, or a tuple that starts with one; what follows in the tuple is handed through.
            return_tensors: accepted; the result is always a list of one torch tensor.

        Raises:
            TypeError: not a PIL image. ValueError: an image without pixels, or attributes that cannot be used.
        """
        if isinstance(image, tuple) and image:
            return {"pixel_values": [(self._pixel_values(image[0]), *image[1:])]}
        return {"pixel_values": [self._pixel_values(image)]}

    def _pixel_values(self, image: Image.Image) -> torch.Tensor:
        if not isinstance(image, Image.Image):
            kind = type(image)
            raise TypeError(f"image: got a {kind.__module__}.{kind.__qualname__}, expected one PIL.Image.Image")
        if image.width == 0 or image.height == 0:
            raise ValueError(f"image: got {image.width} x {image.height} pixels, expected 1 x 1 or more")
        height, width = _target(self.image_size, image)
        mean, std = _three(self.mean), _three(self.std)
        if 0 in std:
            raise ValueError(f"std: got {tuple(std)}, expected numbers other than 0")
        resize = (image.height, image.width) != (height, width)
        if resize and image.mode in ("RGB", "L"):
            return torch.from_numpy(_resized(image, height, width, _filter(self.interpolation), mean, std))
        if resize:
            # On the image's own mode: a palette, say, is resized by nearest neighbour, and alpha premultiplied.
            image = image.resize((width, height), _RESAMPLING[_filter(self.interpolation)])
        return torch.from_numpy(core.image_normalize(np.asarray(image.convert("RGB")), mean, std))


def _filter(interpolation: str) -> str:
    return "bilinear" if interpolation == "bilinear" else "bicubic"


def _resized(image: Image.Image, height: int, width: int, filter: str, mean, std) -> np.ndarray:
    """What image.resize, then image_normalize give, for a mode whose channels are bytes and resized one by one."""
    threads = torch.get_num_threads()
    columns = np.empty((image.height, width, 4), np.uint8)
    # A strip's copies stay in the cache: Pillow hands out pixels as a copy of 3 bytes each.
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels = np.asarray(strip.convert("RGB") if strip.mode != "RGB" else strip)
        core.image_resize_columns(pixels, filter, columns[top : top + rows], threads=threads)
    return core.image_resize_rows(columns, filter, height, mean, std, threads=threads)


def _three(value) -> Sequence[float]:
    if not isinstance(value, (list, tuple)):
        return (value,) * 3
    if len(value) != 3:
        raise ValueError(f"mean, std: got {len(value)} numbers, expected one, or three")
    return value


def _check_image_size(size) -> None:
    sides = size if isinstance(size, (list, tuple)) else [size]
    if len(sides) not in (1, 2) or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
        raise ValueError(f"image_size: got {size!r}, expected a positive integer, or (height, width)")


def _target(size, image: Image.Image) -> tuple[int, int]:
    """Height and width to resize to. One number, assigned later, is the shorter side, as in torchvision's Resize."""
    _check_image_size(size)
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    if len(sides) == 2:
        return sides[0], sides[1]
    shorter, longer = sorted((image.width, image.height))
    other = int(sides[0] * longer / shorter)
    return (other, sides[0]) if image.width <= image.height else (sides[0], other)

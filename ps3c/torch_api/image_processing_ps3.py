"""From an image to pixel values: resize, RGB, [0, 1], normalise."""

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from .. import _arguments
from .._background import sample_bits, to_rgb
from ..engine import core
from ..errors import ImageError, UnreadableImageError
from ..images import flattened, load_pixels, to_8_bits

OPENAI_DATASET_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_DATASET_STD = (0.26862954, 0.26130258, 0.27577711)

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_INTERPOLATIONS = ("bicubic", "bilinear", "random")  # random: ps3-torch's name for bicubic outside training
_STRIP_PIXELS = 1 << 18
_MOST_PIXELS = 1 << 28  # of a result, 3.2 GB
_LARGEST = 3.4028234663852886e38  # of float32

_SETTINGS = ("image_size", "mean", "std", "resize_mode", "interpolation", "background")


class PixelValues(dict):
    """What preprocess returns: a dict. `.to(...)`, which transformers' pipelines call, makes a batch of its images."""

    def to(self, *arguments: Any, **options: Any) -> "PixelValues":
        """A copy in which pixel_values is one tensor (B, 3, H, W), after tensor.to(*arguments, **options)."""
        images = self["pixel_values"]
        batch = images if isinstance(images, torch.Tensor) else torch.stack(list(images))
        return PixelValues(self, pixel_values=batch.to(*arguments, **options))


class PS3ImageProcessor(BaseImageProcessor):
    """Makes a model's pixel_values from a PIL image.

    Args:
        image_size: side of the result, or (height, width).
        mean, std: of each channel, or one for all; default: CLIP's.
        resize_mode: "squash", the only one: the aspect ratio is not kept.
        interpolation: "bicubic" or "bilinear".
        background: None: as ps3-torch, which resizes an image in its own mode and drops alpha. A colour, such as
            "white", "#rrggbb" or (r, g, b): a transparent image is put on this background, and every image is converted
            to RGB before it is resized, as ps3c.load(folder).embed_images does.

    Attributes: image_size, mean, std, interpolation, background decide what a call does and may be assigned. size,
    crop_size, image_mean and image_std are for other packages to read; nothing here depends on them.
    """

    model_input_names = ["pixel_values"]
    background: _arguments.Colour | None = None  # here too: pickles of earlier versions have none

    def __init__(
        self,
        image_size: int | tuple[int, int] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        resize_mode: str | None = None,
        interpolation: str | None = None,
        background: _arguments.Colour | None = None,
        **kwargs,
    ):
        super().__init__()
        if image_size is None:
            raise ValueError("image_size: got None, expected the side of the model's input, or (height, width)")
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_image_size(self.image_size)
        self.mean = _three("mean", mean or OPENAI_DATASET_MEAN)
        self.std = _three("std", std or OPENAI_DATASET_STD)
        self.resize_mode = resize_mode or "squash"
        if self.resize_mode != "squash":
            raise ValueError(f"resize_mode: got {_arguments.shown(resize_mode)}, expected 'squash'")
        self.interpolation = interpolation or "bicubic"
        _filter(self.interpolation)
        self.background = background
        if background is not None:
            colour = _arguments.background(background)
            self.background = background if isinstance(background, str) else colour

        # VILA reads and assigns these.
        self.size = {"shortest_edge": self.image_size[0]}
        self.crop_size = {"height": self.image_size[0], "width": self.image_size[0]}
        self.image_mean = self.mean
        self.image_std = self.std

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs):
        """Settings given as keyword arguments replace those of the file before the processor is made."""
        given = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        return super().from_dict({**image_processor_dict, **given}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings for preprocessor_config.json. Without a background it is what ps3-torch writes."""
        settings = super().to_dict()
        if settings.get("background") is None:
            settings.pop("background", None)
        return settings

    def preprocess(self, image: Any, return_tensors: Any = None, **kwargs) -> PixelValues:
        """One image of any mode and size to {"pixel_values": [tensor (3, H, W), float32]}.

        16-bit grey (Pillow's "I;16") is scaled to 8 bits. Values of Pillow's modes "I" and "F" outside 0 to 255 are
        clamped with a warning. The EXIF orientation and colour profiles (ICC) are ignored.

        Args:
            image: a PIL image, or a tuple that starts with one. torchvision's BoundingBoxes, Mask and KeyPoints in the
                rest of the tuple are resized with the image; anything else is handed through.
            return_tensors: accepted; the result is always a list of one torch tensor.

        Raises:
            TypeError: not a PIL image. ImageError: the image's pixels cannot be decoded or converted to RGB.
            ValueError: an image without pixels, or attributes that cannot be used.
        """
        if isinstance(image, tuple) and image:
            pixels = self._pixel_values(image[0])
            size = list(self.image_size) if isinstance(self.image_size, (list, tuple)) else [self.image_size]
            others = [_scaled(other, size) for other in image[1:]]
            return PixelValues(pixel_values=[(pixels, *others)])
        return PixelValues(pixel_values=[self._pixel_values(image)])

    def _pixel_values(self, image: Image.Image) -> torch.Tensor:
        if not isinstance(image, Image.Image):
            kind = type(image)
            raise TypeError(f"image: got a {kind.__module__}.{kind.__qualname__}, expected one PIL.Image.Image")
        if image.width == 0 or image.height == 0:
            raise ValueError(f"image: got {image.width} x {image.height} pixels, expected 1 x 1 or more")
        height, width = _target(self.image_size, image)
        filter = _filter(self.interpolation)
        mean, std = _three("mean", self.mean), _three("std", self.std)
        colour = None if self.background is None else _arguments.background(self.background)
        name = str(getattr(image, "filename", "") or "image")
        bits = sample_bits(image)
        load_pixels(image, name)
        if colour is not None and image.mode not in ("I", "F"):
            image = _flattened(image, colour, name, bits)
        elif image.mode.startswith("I;16"):
            image = to_8_bits(image, name)
        resize = (image.height, image.width) != (height, width)
        if resize and image.mode in ("RGB", "L"):
            return torch.from_numpy(_resized(image, height, width, filter, mean, std))
        if image.mode in ("I", "F"):
            _warn_of_clamped(image)
        try:
            if resize:
                # On the image's own mode: a palette, say, is resized by nearest neighbour, and alpha premultiplied.
                image = image.resize((width, height), _RESAMPLING[filter])
            pixels = np.asarray(to_rgb(image))
        except MemoryError:
            raise
        except Exception as error:
            raise _unconvertible(image, name, error) from error
        return torch.from_numpy(core.image_normalize(pixels, mean, std))


def _flattened(image: Image.Image, colour: tuple[int, int, int], name: str, bits: int | None) -> Image.Image:
    try:
        return flattened(image, colour, name, bits)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise _unconvertible(image, name, error) from error


def _unconvertible(image: Image.Image, name: str, error: Exception) -> UnreadableImageError:
    """For Pillow's errors, which have many types, about modes that it cannot convert."""
    return UnreadableImageError(name, f"cannot be converted from mode {image.mode}: {error}")


def _warn_of_clamped(image: Image.Image) -> None:
    """A warning if an integer or float image, which is clamped to 0..255 as in ps3-torch, has other values."""
    low, high = image.getextrema()
    if low < 0 or high > 255 or (image.mode == "F" and 0 < high <= 1):
        warnings.warn(
            f"image: got mode {image.mode!r} with values from {low} to {high}, expected 0 to 255, to which they are "
            "clamped; scale them to 8 bits first",
            stacklevel=4,
        )


def _scaled(value: Any, size: list[int]) -> Any:
    """torchvision's tensors (bounding boxes, masks, key points) resized as the image is, also those in containers."""
    if isinstance(value, torch.Tensor):
        if not any(kind.__name__ == "TVTensor" for kind in type(value).__mro__):
            return value
        # Such a tensor exists only where torchvision is installed; ps3c does not depend on it.
        return importlib.import_module("torchvision.transforms.v2.functional").resize(value, size)
    if isinstance(value, dict):
        return {key: _scaled(other, size) for key, other in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_scaled(other, size) for other in value)
    return value


def _filter(interpolation: Any) -> str:
    """The engine's name. ValueError: no interpolation."""
    if not isinstance(interpolation, str) or interpolation not in _INTERPOLATIONS:
        raise ValueError(f"interpolation: got {_arguments.shown(interpolation)}, expected 'bicubic' or 'bilinear'")
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


def _three(name: str, value: Any) -> Sequence[float]:
    """`value`, one number or three, as three finite numbers; those of std are positive."""
    three = value if isinstance(value, (list, tuple)) else (value,) * 3
    if len(three) != 3:
        raise ValueError(f"mean, std: got {len(three)} numbers, expected one, or three")
    for number in three:
        try:
            # The engine computes in float32.
            usable = math.isfinite(number) and abs(number) <= _LARGEST and (name == "mean" or number > 0)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name}: got {_arguments.shown(value)}, expected one number or three") from None
        except OverflowError:  # an integer beyond the range of float64
            usable = False
        if not usable:
            kind = "finite numbers" if name == "mean" else "finite numbers above 0"
            raise ValueError(f"{name}: got {_arguments.shown(three)}, expected {kind}")
    return three


def _check_image_size(size) -> None:
    sides = size if isinstance(size, (list, tuple)) else [size]
    if len(sides) not in (1, 2) or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
        raise ValueError(f"image_size: got {_arguments.shown(size)}, expected a positive integer, or (height, width)")
    _check_area(size, sides[0], sides[-1])


def _check_area(size: Any, height: int, width: int) -> None:
    if height * width > _MOST_PIXELS:
        raise ValueError(
            f"image_size: got {_arguments.shown(size)}, expected at most {_MOST_PIXELS} pixels, height x width"
        )


def _target(size, image: Image.Image) -> tuple[int, int]:
    """Height and width to resize to. One number, assigned later, is the shorter side, as in torchvision's Resize."""
    _check_image_size(size)
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    if len(sides) == 2:
        return sides[0], sides[1]
    shorter, longer = sorted((image.width, image.height))
    other = int(sides[0] * longer / shorter)
    _check_area(size, sides[0], other)
    return (other, sides[0]) if image.width <= image.height else (sides[0], other)

"""From whatever holds an image to an upright 8-bit RGB image."""

import os
import threading
import warnings
from pathlib import Path
from typing import Any, Optional, Tuple, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

ImageSource = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]

THUMBNAIL = 768  # longest side in pixels

_limit = threading.Lock()  # over Pillow's limit of pixels, which is one for the process


def open_image(source: ImageSource, *, max_pixels: Optional[int] = None) -> Tuple[Image.Image, str]:
    """Opens an image: (PIL image of mode RGB, name).

    EXIF rotation is honoured; of an animation comes the first frame; 16 bits are scaled to 8; CMYK, palettes and other
    modes become RGB; an alpha channel is dropped.

    Args:
        source: a path, a PIL image, or an array (H, W) or (H, W, 3 or 4) of uint8, uint16, or floats from 0 to 1.
        max_pixels: most pixels of an image; None: Pillow's limit, PIL.Image.MAX_IMAGE_PIXELS.

    Returns:
        The image, and its path as it was given; "" for what came without one.

    Raises:
        ImageError: it cannot be read, or has too many pixels. TypeError: source is something else.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source), ""
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "")
        return _converted(source, name or "image", _most(max_pixels)), name
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return _read(name, _most(max_pixels)), name
    raise TypeError(f"image: got {type(source).__name__}, expected a path, a PIL image or a NumPy array")


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy of image whose longest side is at most THUMBNAIL pixels."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    return small


def _most(max_pixels: Optional[int]) -> Optional[int]:
    return Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels


def _read(name: str, most: Optional[int]) -> Image.Image:
    if not os.path.exists(name):
        raise ImageError(name, "there is no such file")
    if os.path.isdir(name):
        raise ImageError(name, "is a folder, expected an image file")
    with _limit, warnings.catch_warnings():
        # Pillow warns at its limit and refuses at twice that; here the limit is one, and the caller's.
        pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(name)
        except UnidentifiedImageError as error:
            raise ImageError(name, "is not an image, or of a format that Pillow does not know") from error
        except Exception as error:
            raise ImageError(name, f"cannot be opened: {error}") from error
        finally:
            Image.MAX_IMAGE_PIXELS = pillows
    with image:
        return _converted(image, name, most)


def _converted(image: Image.Image, name: str, most: Optional[int]) -> Image.Image:
    pixels = image.width * image.height
    if pixels == 0:
        raise ImageError(name, f"has {image.width} x {image.height} pixels, expected 1 x 1 or more")
    if most is not None and pixels > most:
        raise ImageError(name, f"has {image.width} x {image.height} = {pixels} pixels, more than the limit of {most}; "
                               "max_pixels (--max-pixels) raises it")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _from_array(_scaled(np.asarray(image), name), name)
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise all kinds
        raise ImageError(name, f"cannot be read: {error}") from error


def _scaled(pixels: np.ndarray, name: str) -> np.ndarray:
    """16-bit grey or floating-point pixels of a file, for _from_array."""
    if pixels.dtype.kind == "f":
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ImageError(name, f"has grey values from {low} to {high}, expected 16 bits, 0 to 65535")
    return pixels.astype(np.uint16)


def _from_array(pixels: np.ndarray, name: str = "array") -> Image.Image:
    shape = pixels.shape
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and shape[2] not in (3, 4)) or pixels.size == 0:
        raise ImageError(name, f"has shape {shape}, expected (height, width) or (height, width, 3 or 4)")
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ImageError(name, f"has values from {pixels.min()} to {pixels.max()}, expected floats from 0 to 1")
        pixels = np.rint(pixels * 255.0).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ImageError(name, f"has values of {pixels.dtype}, expected uint8, uint16 or floats from 0 to 1")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))

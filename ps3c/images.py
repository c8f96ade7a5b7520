"""Opens images from files, PIL images and arrays as upright 8-bit RGB images."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError

ImageSource = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]

THUMBNAIL = 768  # longest side in pixels

_pillow = threading.RLock()  # protects the global variable Image.MAX_IMAGE_PIXELS


def open_image(source: ImageSource, *, max_pixels: int | None = None, name: str = "image") -> tuple[Image.Image, str]:
    """Opens an image and returns it with its name.

    The EXIF orientation is applied. Of a file with several frames or pages, the first one is read. 16-bit values are
    scaled to 8 bits. Palette, grey, CMYK and other modes are converted to RGB. An alpha channel is dropped, as
    .convert("RGB") does.

    Args:
        source: a path, a PIL image, or an array (H, W) or (H, W, 3 or 4) of uint8, uint16, or floats from 0 to 1.
        max_pixels: the largest accepted number of pixels. None: PIL.Image.MAX_IMAGE_PIXELS, Pillow's protection
            against files that decompress to very large images.
        name: the name of a source that has none.

    Returns:
        A PIL image of mode RGB, which shares no memory with the source, and its name: the path as given, or `name`.

    Raises:
        ImageError: the image cannot be read, or has too many pixels. TypeError: source has another type.
    """
    most = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if isinstance(source, np.ndarray):
        _check_pixel_count(source.shape[1] if source.ndim > 1 else 0, source.shape[0] if source.ndim else 0, name, most)
        return _from_array(source, name), name
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or name)
        return _as_rgb(source, name, most), name
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        return _read(name, most), name
    raise TypeError(f"image: got {type(source).__name__}, expected a path, a PIL image or a NumPy array")


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy of the image, scaled down so that its longest side has at most THUMBNAIL pixels."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    return small


def _read(name: str, most: int | None) -> Image.Image:
    if not os.path.exists(name):
        raise ImageError(name, "the file does not exist")
    if os.path.isdir(name):
        raise ImageError(name, "got a folder, expected an image file")
    try:
        with _no_pillow_limit():  # reads only the header; _as_rgb checks the size before decoding
            image = Image.open(name)
    except UnidentifiedImageError as error:
        raise ImageError(name, "is not an image, or has a format that Pillow does not support") from error
    except Exception as error:  # Pillow's plugins raise exceptions of many types
        raise ImageError(name, _cannot("opened", error)) from error
    with image:
        return _as_rgb(image, name, most)


def _as_rgb(image: Image.Image, name: str, most: int | None) -> Image.Image:
    _check_pixel_count(image.width, image.height, name, most)
    pillow_limit = Image.MAX_IMAGE_PIXELS
    try:
        if pillow_limit is not None and image.width * image.height > pillow_limit:
            with _no_pillow_limit():  # some plugins check the limit again while decoding
                image.load()
        else:
            image.load()
        upright = _upright(image)
        if upright.mode.startswith(("I", "F")):
            return _from_array(_wide_grey(np.asarray(upright), name), name)
        return upright.convert("RGB")  # always a copy
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(name, _cannot("read", error)) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # the EXIF data is damaged, the pixels are not
        return image


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    with _pillow:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_pixel_count(width: int, height: int, name: str, most: int | None) -> None:
    if most is not None and width * height > most:
        raise ImageError(
            name,
            f"has {width} x {height} = {width * height} pixels, more than the limit of {most}; "
            "max_pixels (--max-pixels) sets the limit",
        )


def _cannot(what: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be {what}: {reason}"


def _wide_grey(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels of Pillow's integer and float modes, in a dtype that _from_array accepts."""
    if pixels.dtype.kind == "f":
        return pixels
    low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
    if low < 0 or high > 65535:
        raise ImageError(name, f"has values from {low} to {high}, expected 16 bits, 0 to 65535")
    return pixels.astype(np.uint16)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    shape = pixels.shape
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and shape[2] not in (3, 4)) or pixels.size == 0:
        raise ImageError(name, f"has shape {shape}, expected (height, width) or (height, width, 3 or 4)")
    pixels = pixels[..., :3] if pixels.ndim == 3 else pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif pixels.dtype.kind == "f":
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 1):  # also refuses NaN
            raise ImageError(name, f"has values from {low} to {high}, expected floats from 0 to 1")
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ImageError(name, f"has values of {pixels.dtype}, expected uint8, uint16, or floats from 0 to 1")
    # A copy: the caller may change the array later.
    return Image.fromarray(np.array(pixels, order="C")).convert("RGB")

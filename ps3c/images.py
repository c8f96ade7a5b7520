"""Opens images from files, bytes, PIL images and arrays as upright 8-bit RGB images."""

import base64
import binascii
import io
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Union
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import _arguments
from ._arguments import Colour
from ._background import alpha_of, on_background, sample_bits, straight, to_rgb
from .errors import ImageError, UnreadableImageError, short_reason

ImageSource = Union[str, "os.PathLike[str]", Image.Image, np.ndarray, bytes, IO[bytes], Mapping[str, Any]]

THUMBNAIL = 768  # longest side in pixels

# Suffixes of files that Pillow opens and that hold photographs or scans.
SUFFIXES = tuple(
    ".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .mpo .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)

# Suffixes of image files that Pillow alone does not open, or of which it opens at most a preview.
RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
FOREIGN_SUFFIXES = (".heic", ".heics", ".heif", ".hif", ".jxl", *RAW_SUFFIXES)

_LONGEST_PATH = 4096  # characters; the limit of Linux
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+=*\s*")
_ROW_KEYS = ("bytes", "path", "image")
_BYTES = (bytes, bytearray, memoryview)

_URL_SAFE = str.maketrans("-_", "+/")
HALF_LEVEL = 0.5 / 255

_pillow = threading.RLock()  # protects the global variable Image.MAX_IMAGE_PIXELS
_aside: list[int | None] = []  # its values during _no_pillow_limit


def _after_fork() -> None:
    """Another thread of the parent may have held the lock; the child does not have that thread."""
    global _pillow
    _pillow = threading.RLock()
    if _aside:
        Image.MAX_IMAGE_PIXELS = _aside[0]
        _aside.clear()


os.register_at_fork(after_in_child=_after_fork)


def is_image_source(value: Any) -> bool:
    """True if open_image takes `value` as one image, whether or not the image can be read."""
    if isinstance(value, Mapping):
        return any(key in value for key in _ROW_KEYS)
    return isinstance(value, (str, os.PathLike, Image.Image, np.ndarray, *_BYTES)) or _is_file(value)


def open_image(
    source: ImageSource, *, max_pixels: int | None = None, background: Colour = "white", name: str = "image"
) -> tuple[Image.Image, str]:
    """Opens an image and returns it with its name.

    The EXIF orientation is applied. Of a file with several frames or pages, the first one is read. 16-bit values are
    scaled to 8 bits. Palette, grey, CMYK and other modes are converted to RGB. A transparent image is put on the
    background, so the colours of transparent pixels do not matter. A colour profile (ICC) is ignored.

    Args:
        source: a path; a PIL image; an array (H, W) or (H, W, 3 or 4) of uint8, uint16, or floats from 0 to 1; the
            bytes of an image file, as bytes, as a binary file object, as a data: URL or in base64; or a row of a
            Hugging Face dataset, {"bytes": ..., "path": ...} or {"image": ...}.
        max_pixels: the largest accepted number of pixels. None: PIL.Image.MAX_IMAGE_PIXELS, Pillow's protection
            against files that decompress to very large images.
        background: the colour behind transparent pixels: a name or code that PIL.ImageColor knows, such as "white" or
            "#rrggbb", or (r, g, b).
        name: the name of a source that has none.

    Returns:
        A PIL image of mode RGB, which shares no memory with the source, and its name: the path as given, or `name`.

    Raises:
        ImageError: the image cannot be read, or has too many pixels. TypeError: source or background has another type.
        ValueError: background is no colour.
    """
    image, name = open_upright(source, max_pixels=max_pixels, background=background, name=name)
    return (image if image.mode == "RGB" else to_rgb(image)), name


def open_upright(
    source: ImageSource, *, max_pixels: int | None = None, background: Colour = "white", name: str = "image"
) -> tuple[Image.Image, str]:
    """Like open_image, but a grey image without transparency may have mode "L"."""
    most = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    colour = _arguments.background(background)
    if isinstance(source, Mapping):
        source, name = _row(source, name)
    if isinstance(source, np.ndarray):
        _check_pixel_count(source.shape[1] if source.ndim > 1 else 0, source.shape[0] if source.ndim else 0, name, most)
        return flattened(_from_array(source, name), colour, name), name
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or name)
        return _loaded(source, name, most, colour), name
    if isinstance(source, str):
        source, name = _path_or_bytes(source, name)
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        return _read(name, name, most, colour), name
    if not isinstance(source, _BYTES):
        source, name = _content(source, name)
    return _read(io.BytesIO(source), name, most, colour), name


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy of the image, scaled down so that its longest side has at most THUMBNAIL pixels."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    return small


def to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """A 16-bit grey image, scaled to 8 bits; other images as they are. ImageError: values of more than 16 bits."""
    if not image.mode.startswith(("I", "F")):
        return image
    return _from_array(_wide_grey(np.asarray(image), name), name)


def flattened(image: Image.Image, background: tuple[int, int, int], name: str, bits: int | None = None) -> Image.Image:
    """A loaded image of any mode, on a background: RGB, or "L" if it is grey and opaque, which needs less memory.

    It may be the image itself. bits: what sample_bits gave before the image was loaded.

    Raises:
        ImageError: as to_8_bits. Errors of Pillow, of many types: a mode that it cannot convert.
    """
    image = straight(image)
    alpha = alpha_of(image, bits)
    image = to_8_bits(image, name)
    if alpha is not None:
        return on_background(to_rgb(image), alpha, background)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    return to_rgb(image)


def load_pixels(image: Image.Image, name: str) -> None:
    """Decodes the pixels of a PIL image, which may be opened only. UnreadableImageError if they cannot be decoded."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise exceptions of many types
        raise UnreadableImageError(name, _cannot("read", error)) from error


def _is_file(source: Any) -> bool:
    return callable(getattr(source, "read", None)) and not isinstance(source, (type, Image.Image))


def _row(row: Mapping[str, Any], name: str) -> tuple[Any, str]:
    """The source and the name in a row of a Hugging Face dataset.

    The row is {"bytes": content or None, "path": path or None}, or has such a row or an image as "image".
    """
    if row.get("image") is not None:
        inner = row["image"]
        return _row(inner, name) if isinstance(inner, Mapping) else (inner, name)
    content, path = row.get("bytes"), row.get("path")
    if content is None and path is None:
        keys = short_reason(", ".join(map(repr, row))) if row else "no keys"
        raise TypeError(f"image: got a dict with {keys}, expected 'bytes', 'path' or 'image'")
    if content is None:
        return path, name
    if not isinstance(content, _BYTES):
        raise TypeError(f"image['bytes']: got {type(content).__name__}, expected bytes")
    return content, os.fsdecode(path) if isinstance(path, (str, os.PathLike)) and path else name


def _path_or_bytes(text: str, name: str) -> tuple[Any, str]:
    """A string is a data: URL, a path, or base64 of an image file. The content of the former is never a name."""
    if text[:5].lower() == "data:":
        return _of_data_url(text, name), name
    if re.match(r"https?://", text[:8], re.IGNORECASE):
        raise ImageError(_short(text), "got a web address, expected a file; download it first")
    if os.path.exists(text):
        return text, name
    if _BASE64.fullmatch(text[:64]) and _BASE64.fullmatch(text):
        content = _of_base64(text)
        if content is not None and (len(text) > _LONGEST_PATH or _is_known(content)):
            return content, name
    if len(text) > _LONGEST_PATH:
        raise ImageError(name, f"got {_short(text)!r}, {len(text)} characters, expected a path, a data: URL or base64")
    return text, name


def _of_data_url(url: str, name: str) -> bytes:
    head, comma, content = url[5:].partition(",")
    kind, *parameters = head.split(";")
    if comma and (kind == "" or _MEDIA_TYPE.fullmatch(kind)):
        if "base64" in (one.strip().lower() for one in parameters):
            decoded = _of_base64(unquote_to_bytes(content).decode("ascii", "replace"))
        else:
            decoded = unquote_to_bytes(content)
        if decoded is not None:
            return decoded
    raise ImageError(
        name, f"got a data: URL that cannot be decoded, {_short(url)!r}, expected data:image/...;base64,..."
    )


def _of_base64(text: str) -> bytes | None:
    """The bytes of base64 text, with or without padding and line ends; None if it is no base64."""
    compact = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_known(content: bytes) -> bool:
    """True if the bytes start as a file of a format that Pillow knows."""
    try:
        with _no_pillow_limit(), Image.open(io.BytesIO(content)):
            return True
    except MemoryError:
        raise
    except Exception:
        return False


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:60] + "..."


def _content(source: Any, name: str) -> tuple[Any, str]:
    """The bytes that a binary file object has, from its start if it can be rewound, and its name."""
    if not _is_file(source):
        raise TypeError(
            f"image: got {type(source).__name__}, expected a path, a PIL image or a NumPy array, the bytes of an image "
            "file, a binary file object, or a dict with 'bytes' or 'path'"
        )
    own = getattr(source, "name", None)
    name = own if isinstance(own, str) and own else name
    try:
        if getattr(source, "seekable", lambda: False)():
            source.seek(0)
        content = source.read()
    except MemoryError:
        raise
    except Exception as error:  # any type: the object is the caller's
        raise ImageError(name, _cannot("read", error)) from error
    if not isinstance(content, _BYTES):
        raise TypeError(f"image: got a file object that reads {type(content).__name__}, expected one opened as binary")
    return content, name


def _read(source: Any, name: str, most: int | None, background: tuple[int, int, int]) -> Image.Image:
    """The upright, flattened image of a path, or of a file object in memory."""
    if isinstance(source, str):
        if not os.path.exists(source):
            raise ImageError(name, "the file does not exist")
        if os.path.isdir(source):
            raise ImageError(name, "got a folder, expected an image file")
        if not os.path.isfile(source):  # reading from a named pipe may never end
            raise ImageError(name, "is a pipe or a device, expected a regular file")
    try:
        with _no_pillow_limit():  # reads only the header; _loaded checks the size before decoding
            image = Image.open(source)
    except UnidentifiedImageError as error:
        raise ImageError(name, _unknown(name)) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise exceptions of many types
        raise ImageError(name, _cannot("opened", error)) from error
    with image:
        if image.format == "TIFF" and name.lower().endswith(RAW_SUFFIXES):
            raise ImageError(name, _unknown(name))
        return _loaded(image, name, most, background)


def _unknown(name: str) -> str:
    """Why Pillow cannot open a file, from its suffix."""
    reason = "is not an image, or has a format that Pillow does not support"
    suffix = os.path.splitext(name)[1].lower()
    if suffix in RAW_SUFFIXES:
        return f"is a camera's raw file ({suffix}), of which Pillow reads at most a preview; convert it to TIFF or JPEG"
    if suffix in FOREIGN_SUFFIXES:
        package = "pillow-jxl-plugin" if suffix == ".jxl" else "pillow-heif"
        return f"{reason}; {suffix} needs a plugin of Pillow ({package}), or convert the file to PNG or JPEG"
    return reason


def _loaded(image: Image.Image, name: str, most: int | None, background: tuple[int, int, int]) -> Image.Image:
    """A copy of the image, upright and flattened."""
    bits = sample_bits(image)
    _check_pixel_count(image.width, image.height, name, most)
    pillow_limit = Image.MAX_IMAGE_PIXELS
    try:
        if pillow_limit is not None and image.width * image.height > pillow_limit:
            with _no_pillow_limit():  # some plugins check the limit again while decoding
                image.load()
        else:
            image.load()
        return flattened(_upright(image), background, name, bits)
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
        return image.copy()


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    with _pillow:
        limit = Image.MAX_IMAGE_PIXELS
        _aside.append(limit)
        try:
            Image.MAX_IMAGE_PIXELS = None
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
            del _aside[-1:]


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
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif pixels.dtype.kind == "f":
        low, high = pixels.min(), pixels.max()
        # Rounding errors beyond 0 or 1 are less than half of one of 255 levels. NaN is refused too.
        if not (low >= -HALF_LEVEL and high <= 1 + HALF_LEVEL):
            raise ImageError(name, f"has values from {low} to {high}, expected floats from 0 to 1")
        pixels = np.rint(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ImageError(name, f"has values of {pixels.dtype}, expected uint8, uint16, or floats from 0 to 1")
    # A copy: the caller may change the array later.
    image = Image.fromarray(np.array(pixels, order="C"))
    return image if image.mode == "RGBA" else image.convert("RGB")

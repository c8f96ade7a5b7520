"""Puts transparent images on a background, so that an image becomes what a viewer shows of it."""

from typing import Any

import numpy as np
from PIL import Image

_STRIP_PIXELS = 1 << 18  # composed at once; the intermediate values of a strip stay in the cache
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_BITS = {"L;2": 2, "L;4": 4, "RGB;16B": 16}  # Pillow's names of what a PNG file holds; all others have 8, or no colour


def to_rgb(image: Image.Image) -> Image.Image:
    """image.convert("RGB"), always a copy, without transparency and without Pillow's warnings about it."""
    if image.mode in ("P", "L") and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    image = image.convert("RGB")
    # Pillow hands the transparent colour on. Pixels of a palette may have that colour without being transparent.
    image.info.pop("transparency", None)
    return image


def sample_bits(image: Image.Image) -> int | None:
    """Bits of a value in the file of an image that is opened but not loaded; None: not known any more.

    Pillow scales the pixels of a PNG file to 8 bits, but not its transparent colour.
    """
    tiles = getattr(image, "tile", None)
    return _BITS.get(tiles[0][3], 8) if tiles and isinstance(tiles[0][3], str) else None


def straight(image: Image.Image) -> Image.Image:
    """The image, with colours that are not multiplied by alpha."""
    return image.convert(_PREMULTIPLIED[image.mode]) if image.mode in _PREMULTIPLIED else image


def alpha_of(image: Image.Image, bits: int | None) -> np.ndarray | None:
    """Alpha (H, W) of a loaded image, uint8. None: it is opaque.

    Damaged transparency is no transparency: the pixels of such a file are as good as others.
    bits: what sample_bits gave before the image was loaded.
    """
    alpha = _alpha(image, image.info.get("transparency"), bits)
    return None if alpha is None or alpha.min(initial=255) == 255 else alpha


def on_background(image: Image.Image, alpha: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB image on a background: (c * a + background * (255 - a) + 127) // 255 for each channel."""
    pixels, ground = np.array(image), np.array(colour, np.uint16)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = pixels[top : top + rows]
        weight = alpha[top : top + rows, :, None].astype(np.uint16)  # at most 255 * 255 + 127, less than 2**16
        strip[:] = (strip * weight + ground * (255 - weight) + 127) // 255
    return Image.fromarray(pixels)


def _alpha(image: Image.Image, transparency: Any, bits: int | None) -> np.ndarray | None:
    if image.mode in ("RGBA", "LA", "PA"):
        return np.asarray(image.getchannel("A"))
    if image.mode == "P":
        entries = _palette_alpha(image)
        return entries[np.asarray(image)] if entries.min() < 255 else None
    if image.mode == "RGB" and isinstance(transparency, (tuple, list)):
        if len(transparency) != 3 or not all(map(_is_value, transparency)):
            return None
        if bits is None:
            bits = 16 if max(transparency) > 255 else 8
        wanted = np.array([_scaled(one, bits) for one in transparency], np.uint8)
        return _without((np.asarray(image) == wanted).all(axis=-1))
    if not _is_value(transparency):
        return None
    if image.mode == "1":  # some versions of Pillow give 1 for white, some 255
        return _without(np.asarray(image) == (transparency > 0))
    if image.mode == "L":
        return _without(np.asarray(image) == _scaled(transparency, bits or 8))
    if image.mode == "I" or image.mode.startswith("I;16"):  # all 16 bits are there to compare
        return _without(np.asarray(image) == transparency)
    return None


def _palette_alpha(image: Image.Image) -> np.ndarray:
    """Alpha of each of 256 entries."""
    alpha, transparency = np.full(256, 255, np.uint8), image.info.get("transparency")
    if image.palette is not None and image.palette.mode == "RGBA":
        own = (image.getpalette("RGBA") or [])[3::4]
        alpha[: len(own)] = own
    if isinstance(transparency, bytes):
        alpha[: len(transparency)] = np.frombuffer(transparency[:256], np.uint8)
    elif _is_value(transparency) and transparency < 256:
        alpha[transparency] = 0
    return alpha


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 65536


def _scaled(value: int, bits: int) -> int:
    """A value of a file as Pillow gives it in a pixel of 8 bits. Only its low bits count, says the PNG standard."""
    if bits == 16:
        return value >> 8
    most = (1 << bits) - 1
    return (value & most) * 255 // most


def _without(transparent: np.ndarray) -> np.ndarray:
    return np.where(transparent, np.uint8(0), np.uint8(255))

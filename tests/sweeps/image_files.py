"""Files of images: good ones of odd modes and formats, and malformed ones. Equal seeds give equal files."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, PngImagePlugin, features

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK")


def picture(chance: random.Random, mode: str = "RGB") -> Image.Image:
    """Shapes and noise, of 1 to 90 pixels a side."""
    width, height = (chance.choice((1, 2, 3, 17, 40, 64, 90)) for _ in range(2))
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 2] //= 4
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    return image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# ---- good ones -------------------------------------------------------------------------------------------------------

FORMATS = {
    ".png": ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ".jpg": ("JPEG", ("RGB", "L", "CMYK")),
    ".webp": ("WEBP", ("RGB", "RGBA")),
    ".gif": ("GIF", ("L", "P", "1")),
    ".bmp": ("BMP", ("RGB", "L", "P", "1")),
    ".tif": ("TIFF", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F")),
    ".tga": ("TGA", ("RGB", "RGBA", "L", "LA", "P")),
    ".ppm": ("PPM", ("RGB", "L", "1")),
    ".jp2": ("JPEG2000", ("RGB", "RGBA", "L")),
}


def by_format(chance: random.Random) -> tuple[str, bytes]:
    suffix, (format, modes) = chance.choice(list(FORMATS.items()))
    if suffix == ".jp2" and not features.check("jpg_2000"):
        return by_format(chance)
    return suffix, saved(picture(chance, chance.choice(modes)), format)


def animated(chance: random.Random) -> tuple[str, bytes]:
    first = picture(chance)
    frames = [Image.new("RGB", first.size, chance.choice(("red", "green", "blue"))) for _ in range(3)]
    suffix = chance.choice((".gif", ".png", ".webp", ".tif"))
    return suffix, saved(first, FORMATS[suffix][0], save_all=True, append_images=frames)


def oriented(chance: random.Random) -> tuple[str, bytes]:
    """EXIF orientations, also ones that mean nothing."""
    exif = Image.Exif()
    exif[0x0112] = chance.choice((1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 255, 65535))
    suffix = chance.choice((".jpg", ".png", ".webp"))
    return suffix, saved(picture(chance), FORMATS[suffix][0], exif=exif)


def damaged_exif(chance: random.Random) -> tuple[str, bytes]:
    suffix = chance.choice((".jpg", ".png"))
    exif = b"Exif\0\0" + chance.choice((b"II*\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff", b"")) + chance.randbytes(30)
    return suffix, saved(picture(chance), FORMATS[suffix][0], exif=exif)


def transparent(chance: random.Random) -> tuple[str, bytes]:
    image = picture(chance, "P")
    transparency = chance.choice((0, 255, bytes(range(256)), b"\0" * 9, b""))
    return ".png", saved(image, "PNG", transparency=transparency)


def with_words(chance: random.Random) -> tuple[str, bytes]:
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "x" * 1000, zip=True)
    words.add_itxt("Title", "y" * 1000, "en", "title", zip=True)
    return ".png", saved(picture(chance), "PNG", pnginfo=words, icc_profile=chance.randbytes(100))


def other_suffix(chance: random.Random) -> tuple[str, bytes]:
    return chance.choice((".jpg", ".png", ".gif", ".tiff", ".PNG")), by_format(chance)[1]


def with_rest(chance: random.Random) -> tuple[str, bytes]:
    return ".png", saved(picture(chance), "PNG") + chance.randbytes(chance.randrange(1, 500))


GOOD: tuple[Callable, ...] = (
    by_format,
    by_format,
    by_format,
    animated,
    oriented,
    damaged_exif,
    transparent,
    with_words,
    other_suffix,
    with_rest,
)

# ---- malformed ones --------------------------------------------------------------------------------------------------


def truncated(chance: random.Random) -> tuple[str, bytes]:
    suffix, content = by_format(chance)
    return suffix, content[: chance.randrange(1, len(content))]


def flipped(chance: random.Random) -> tuple[str, bytes]:
    suffix, content = by_format(chance)
    content = bytearray(content)
    for _ in range(chance.choice((1, 3, 20))):
        content[chance.randrange(chance.choice((64, len(content))) if len(content) > 64 else len(content))] ^= (
            chance.randrange(1, 256)
        )
    return suffix, bytes(content)


def zeros(chance: random.Random) -> tuple[str, bytes]:
    suffix, content = by_format(chance)
    first = chance.randrange(len(content))
    return suffix, content[:first] + bytes(len(content) - first)


def without_content(chance: random.Random) -> tuple[str, bytes]:
    content = (b"", b"\0", b"\0" * 4096, b"no image", chance.randbytes(500), b"%PDF-1.7\n", b"<svg/>", b"PK\3\4")
    return chance.choice(list(FORMATS)), chance.choice(content)


def header_only(chance: random.Random) -> tuple[str, bytes]:
    suffix, content = by_format(chance)
    return suffix, content[: chance.choice((2, 4, 8, 12, 16, 26, 33))]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, bits: int = 1, kind: int = 0, rows: bytes = b"") -> bytes:
    """A PNG of the declared size. rows: what IDAT has."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge_png(chance: random.Random) -> tuple[str, bytes]:
    size = chance.choice(
        ((2**31 - 1, 2**31 - 1), (65535, 65535), (2**31, 1), (0, 5), (5, 0), (2**32 - 1, 1), (20000, 9000))
    )
    return ".png", png(*size, bits=chance.choice((1, 8, 16)), kind=chance.choice((0, 2, 6)))


def inflating_png(chance: random.Random) -> tuple[str, bytes]:
    """Few pixels, and 64 MB of rows from 64 KB."""
    return ".png", png(64, 64, bits=8, rows=bytes(64 * 65) + bytes(1 << 26))


def real_bomb(chance: random.Random) -> tuple[str, bytes]:
    """100 million pixels, all there, in 13 KB."""
    return ".png", png(20000, 5000, rows=bytes(2501 * 5000))


def text_bomb(chance: random.Random) -> tuple[str, bytes]:
    """A comment of 32 MB in 32 KB, or hundreds of one of almost 1 MB."""
    long = zlib.compress(b"x" * (1 << 25), 9)
    parts = {
        "zTXt": [chunk(b"zTXt", b"Comment\0\0" + long)],
        "iTXt": [chunk(b"iTXt", b"Comment\0\1\0en\0title\0" + long)],
        "iCCP": [chunk(b"iCCP", b"profile\0\0" + long)],
        "many": [chunk(b"zTXt", b"C%d\0\0" % i + zlib.compress(b"x" * 1_000_000, 9)) for i in range(80)],
    }
    return ".png", png(8, 8, *parts[chance.choice(list(parts))], bits=8, rows=bytes(72))


def huge_other(chance: random.Random) -> tuple[str, bytes]:
    side = chance.choice((30000, 65535))
    return chance.choice(
        (
            (
                ".gif",
                b"GIF89a"
                + struct.pack("<HH", side, side)
                + b"\x80\0\0\0\0\0\xff\xff\xff"
                + b",\0\0\0\0"
                + struct.pack("<HHB", side, side, 0)
                + b"\2\2L\1\0;",
            ),
            (
                ".bmp",
                b"BM"
                + struct.pack("<IHHI", 54, 0, 0, 54)
                + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
            ),
            (".ppm", b"P6 %d %d 255\n\0\0\0" % (side, side)),
            (".pgm", b"P5 %d %d 65535\n\0\0" % (2**31, 2**31)),
            (
                ".tga",
                bytes((0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)) + struct.pack("<HHBB", side, side, 24, 0) + b"\0" * 30,
            ),
            (
                ".jpg",
                b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", side, side) + b"\3\1\x22\0\2\x11\1\3\x11\1\xff\xd9",
            ),
            (
                ".tif",
                b"II*\0\x08\0\0\0"
                + struct.pack("<H", 4)
                + b"".join(
                    struct.pack("<HHII", tag, 4, 1, value)
                    for tag, value in ((256, side), (257, side), (259, 1), (262, 1))
                )
                + bytes(4),
            ),
        )
    )


BOMBS: tuple[Callable, ...] = (huge_png, real_bomb, text_bomb, huge_other)
MALFORMED: tuple[Callable, ...] = (
    truncated,
    truncated,
    truncated,
    flipped,
    flipped,
    zeros,
    without_content,
    header_only,
    inflating_png,
    *BOMBS,
)


def files(makers: tuple[Callable, ...], count: int, seed: str) -> Iterator[tuple[str, bytes]]:
    """(name, content): maker after maker, in turn."""
    for number in range(count):
        maker = makers[number % len(makers)]
        suffix, content = maker(random.Random(f"{seed}/{number}"))
        yield f"{number:03}-{maker.__name__}{suffix}", content

"""Images that come as bytes, file objects, base64, data: URLs and rows of datasets; and two ways to one vector."""

import base64
import io
import tempfile
import urllib.parse

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import photograph
from PIL import Image

import ps3c
from ps3c.images import is_image_source, open_image

LONG = 100_000  # characters of a string that no message may repeat


def png(image=None, format="PNG") -> bytes:
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, format)
    return buffer.getvalue()


def half_read() -> io.BytesIO:
    file = io.BytesIO(png())
    file.read(10)
    return file


def spooled():
    file = tempfile.SpooledTemporaryFile()
    file.write(png())
    return file


TEXT = base64.b64encode(png()).decode()
SOURCES = {
    "bytes": png(),
    "bytearray": bytearray(png()),
    "memoryview": memoryview(png()),
    "file object": io.BytesIO(png()),
    "file object, partly read": half_read(),
    "temporary file": spooled(),
    "row": {"bytes": png(), "path": None},
    "row without a path": {"bytes": png()},
    "row with an image": {"image": photograph(), "label": 3},
    "row with a row": {"image": {"bytes": png(), "path": None}},
    "base64": TEXT,
    "base64 in lines": base64.encodebytes(png()).decode(),
    "base64 without padding": TEXT.rstrip("="),
    "base64 for URLs": base64.urlsafe_b64encode(png()).decode(),
    "data URL": f"data:image/png;base64,{TEXT}",
    "data URL, escaped": "data:image/png;base64," + urllib.parse.quote(TEXT, safe=""),
    "data URL with parameters": f"data:image/png;name=a.png;base64,{TEXT}",
    "data URL in capitals": f"DATA:image/png;BASE64,{TEXT}",
    "data URL in percent": "data:image/png," + urllib.parse.quote_from_bytes(png()),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_sources(source):
    assert is_image_source(source)
    for _ in range(2 if not hasattr(source, "read") else 1):
        image, name = open_image(source, name="image 7")
        assert name == "image 7" and image.mode == "RGB" and np.array_equal(image, photograph())


def test_one_call_takes_them_all(encoder):
    expected = encoder.embed_images(photograph()).pooled
    features = encoder.embed_images(list(SOURCES.values()))
    assert (features.pooled - expected).abs().max() < 1e-5
    assert features.names == [f"image {number}" for number in range(len(SOURCES))]
    for source in (png(), io.BytesIO(png()), {"bytes": png()}, f"data:image/png;base64,{TEXT}"):
        assert len(encoder.embed_images(source)) == 1  # one image, not its bytes or lines
    assert isinstance(encoder.zero_shot(png(), ["a ship"]), dict)
    assert len(list(encoder.looks(io.BytesIO(png()), looks=1))) == 2


def test_names(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with open(path, "rb") as file:
        assert open_image(file)[1] == str(path)
    assert open_image({"bytes": None, "path": str(path)})[1] == str(path)
    assert open_image({"bytes": png(), "path": "row.png"})[1] == "row.png"


def test_a_file_comes_before_base64(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("abcd", "images"):
        photograph(9, 9).save(tmp_path / name, "PNG")
        assert open_image(name)[0].size == (9, 9)
    with pytest.raises(ps3c.ImageError, match="^photos/abcd: the file does not exist$"):
        open_image("photos/abcd")


def test_orientation_of_bytes():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photograph(40, 60).rotate(90, expand=True).save(buffer, "PNG", exif=exif)
    assert np.array_equal(open_image(buffer)[0], photograph(40, 60))


@pytest.mark.parametrize(
    "source, message",
    [
        (b"no image", "is not an image"),
        (b"", "is not an image"),
        (png()[:2000], "cannot be (read|opened): "),
        ({"bytes": b""}, "is not an image"),
        ("data:image/png;base64,%%%", "got a data: URL that cannot be decoded"),
        ("data:image/png;base64", "got a data: URL that cannot be decoded"),
        ("data:", "got a data: URL that cannot be decoded"),
        ("data:text/html,hello", "is not an image"),
        ("data:image/png;base64," + "A" * LONG, "is not an image"),
        ("data:image/png;base64," + "!" * LONG, "got a data: URL that cannot be decoded"),
        ("data:" + "x" * LONG, "got a data: URL that cannot be decoded"),
        ("A" * LONG, "is not an image"),
        ("?" * LONG, "got .*, 100000 characters, expected a path, a data: URL or base64"),
        (f"/{'long' * LONG}.png", "got .* characters, expected a path"),
    ],
)
def test_unusable(encoder, source, message):
    with pytest.raises(ps3c.ImageError, match=f"^image 4: {message}") as caught:
        open_image(source, name="image 4")
    assert len(str(caught.value)) < 300
    features = encoder.embed_images([source, photograph()], on_error="skip")
    assert features.names == ["image 1"] and [error.name for error in features.errors] == ["image 0"]


def test_web_addresses():
    for address in ("https://example.org/a.png", "HTTP://example.org/" + "a" * LONG):
        with pytest.raises(ps3c.ImageError, match="got a web address, expected a file; download it first") as caught:
            open_image(address)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "source, message",
    [
        ({"pixels": b""}, "image: got a dict with 'pixels', expected 'bytes', 'path' or 'image'"),
        ({}, "image: got a dict with no keys, expected"),
        ({"bytes": "text"}, r"image\['bytes'\]: got str, expected bytes"),
        ({"bytes": None, "path": None}, "image: got a dict with 'bytes', 'path', expected"),
        (io.StringIO("text"), "image: got a file object that reads str, expected one opened as binary"),
        (
            torch.zeros(3),
            "image: got Tensor, expected a path, a PIL image or a NumPy array, the bytes of an image file",
        ),
        (io.BytesIO, "image: got type, expected a path"),
    ],
)
def test_other_types(source, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        open_image(source)


def test_closed_files():
    file = io.BytesIO(png())
    file.close()
    with pytest.raises(ps3c.ImageError, match="image: cannot be read: .*closed"):
        open_image(file)


# ---- the encoder and the processor -----------------------------------------------------------------------------------


def with_alpha(alpha) -> Image.Image:
    image = photograph(200, 150)
    image.putalpha(Image.fromarray(np.broadcast_to(alpha, (150, 200)).astype(np.uint8)))
    return image


RGB = photograph(200, 150)
MODES = {
    "RGB": RGB,
    "L": RGB.convert("L"),
    "P": RGB.quantize(32),
    "web palette": RGB.convert("P"),
    "RGBA": with_alpha(np.random.default_rng(1).integers(1, 256, (150, 200))),
    "LA": with_alpha(np.random.default_rng(1).integers(1, 256, (150, 200))).convert("LA"),
    "opaque RGBA": with_alpha(255),
    "opaque LA": with_alpha(255).convert("LA"),
    "CMYK": RGB.convert("CMYK"),
    "1": RGB.convert("1"),
    "I;16": Image.fromarray(np.asarray(RGB)[..., 0].astype(np.uint16) * 257),
}


# ps3-torch resizes these in their own mode, so the vectors differ unless nothing is resized ...
OWN_MODE = ("P", "web palette", "CMYK", "1")
TRANSPARENT = ("RGBA", "LA")  # ... and drops alpha.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [None, 256])
@pytest.mark.parametrize("background", [None, "white"])
def test_two_ways_to_one_vector(encoder, tmp_path, mode, side, background):
    """embed_images of a file, and ps3-torch's way: the processor on the opened file, then the model."""
    image = MODES[mode] if side is None else MODES[mode].resize((side, side), Image.Resampling.NEAREST)
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    image.save(path)
    processor = ps3c.PS3ImageProcessor.from_pretrained(encoder.folder, background=background)
    pixels = processor(Image.open(path))["pixel_values"][0]
    expected = F.normalize(encoder.model.vision_model.forward_low_res(pixels[None])["x"], dim=-1)
    differs = background is None and (mode in TRANSPARENT or (mode in OWN_MODE and side is None))
    assert torch.equal(encoder.embed_images(path).pooled, expected) is not differs


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "array"])
@pytest.mark.parametrize("side", [120, 256])  # 256 is the model's size: nothing is resized
def test_hidden_colours_do_not_matter(encoder, tmp_path, kind, side):
    """Two pictures that look the same, with other colours below transparent pixels."""
    found = []
    for hidden in (10, 250):
        pixels, alpha = np.array(photograph(side, side)), np.zeros((side, side), np.uint8)
        alpha[side // 4 :, side // 4 :] = 255
        if kind == "P":
            indexed = photograph(side, side).quantize(8)
            image = Image.fromarray(np.where(alpha, np.asarray(indexed) % 8, 9).astype(np.uint8), "P")
            image.putpalette([*indexed.getpalette()[:24], *[0] * 3, hidden, hidden, hidden])
            image.save(tmp_path / "a.png", transparency=9)
            source = tmp_path / "a.png"
        else:
            pixels[alpha == 0] = hidden
            source = np.dstack([pixels, alpha])
            if kind != "array":
                source = Image.fromarray(source).convert(kind)
        found.append(encoder.embed_images(source, looks=1))
    one, other = found
    assert torch.equal(one.pooled, other.pooled) and torch.equal(one.tokens, other.tokens)
    assert np.array_equal(one.thumbnails[0], other.thumbnails[0])

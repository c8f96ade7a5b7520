"""open_image: returns every kind of image as upright 8-bit RGB, or raises an ImageError with the reason."""

import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import photograph
from PIL import Image

import ps3c
from ps3c.images import FOREIGN_SUFFIXES, open_image, thumbnail


def saved(folder, image, name, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def pixels_of(source, **options) -> np.ndarray:
    image, _ = open_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def gradient() -> np.ndarray:
    """A (3, 5) array of 16-bit values from 0 to 65535."""
    return np.linspace(0, 65535, 15).round().astype(np.uint16).reshape(3, 5)


EIGHT = ((gradient().astype(np.int64) + 128) // 257).astype(np.uint8)  # nearest of 8 bits


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_paths_and_names(tmp_path):
    picture = photograph()
    path = saved(tmp_path, picture, "pict\u00fcre one.png")
    for source in (path, str(path)):
        image, name = open_image(source)
        assert name == str(path) and np.array_equal(image, picture)
    assert open_image(Image.open(path))[1] == str(path)
    assert open_image(picture, name="image 3")[1] == "image 3"
    assert open_image(np.asarray(picture))[1] == "image"


def test_result_shares_nothing_with_the_source():
    picture, array = photograph(), np.asarray(photograph()).copy()
    images = [open_image(picture)[0], open_image(array)[0]]
    before = [np.array(image) for image in images]
    picture.paste((0, 0, 0), (0, 0, 50, 50))
    array[:] = 0
    assert all(np.array_equal(image, one) for image, one in zip(images, before))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p,
        lambda p: np.dstack([p, np.full_like(p[..., :1], 255)]),
        lambda p: p.astype(np.uint16) * 257,
        lambda p: p / 255,
        lambda p: (p / 255).astype(np.float32),
        lambda p: p[:, ::-1][:, ::-1],
        lambda p: np.asfortranarray(p),
    ],
)
def test_colour_arrays(make):
    pixels = np.asarray(photograph())
    assert np.array_equal(pixels_of(make(pixels)), pixels)


@pytest.mark.parametrize("make", [lambda p: p, lambda p: p.astype(np.uint16) * 257, lambda p: p / 255])
def test_grey_arrays(make):
    pixels = np.asarray(photograph().convert("L"))
    assert np.array_equal(pixels_of(make(pixels)), np.dstack([pixels] * 3))


def test_half_floats():
    assert pixels_of(np.full((2, 2), 0.5, np.float16))[0, 0, 0] == 128


def test_floats_with_rounding_errors():
    """Resampling and float32 arithmetic leave values such as 1.0000001."""
    for dtype in (np.float16, np.float32, np.float64):
        off = np.array([[np.nextafter(dtype(1), dtype(2)), -1e-7, 1.0]], dtype)
        assert pixels_of(off)[..., 0].tolist() == [[255, 0, 255]]
    assert pixels_of(Image.fromarray(np.array([[1.0000001, 0]], np.float32)))[..., 0].tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(5, np.uint8), r"has shape \(5,\), expected \(height, width\) or \(height, width, 3 or 4\)"),
        (np.zeros((2, 2, 2), np.uint8), r"has shape \(2, 2, 2\)"),
        (np.zeros((3, 20, 20), np.uint8), r"has shape \(3, 20, 20\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"has shape \(1, 4, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), r"has shape \(0, 4\)"),
        (np.zeros((4, 4), np.int32), "has values of int32, expected uint8, uint16, or floats from 0 to 1"),
        (np.zeros((4, 4), bool), "has values of bool"),
        (np.full((4, 4), 255.0), "has values from 255.0 to 255.0, expected floats from 0 to 1"),
        (np.full((4, 4), -0.1), "has values from -0.1"),
        (np.full((4, 4), 1.01), "has values from 1.01"),
        (np.array([[0.5, np.nan]]), "has values from nan to nan"),
    ],
)
def test_unusable_arrays(array, message):
    with pytest.raises(ps3c.ImageError, match=f"^image 4: {message}") as caught:
        open_image(array, name="image 4")
    assert caught.value.name == "image 4" and str(caught.value) == f"image 4: {caught.value.reason}"


@pytest.mark.parametrize("source", [3, None, [1, 2], object()])
def test_other_sources(source):
    with pytest.raises(TypeError, match=f"image: got {type(source).__name__}, expected a path, a PIL image or a NumPy"):
        open_image(source)


# ---- kinds of files ------------------------------------------------------------------------------------------------


def test_exif_rotation(tmp_path):
    """A portrait photograph, stored in landscape with EXIF orientation 6."""
    upright = photograph(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, upright.rotate(90, expand=True), "side.png", exif=exif)
    assert Image.open(path).size == (60, 40)
    assert np.array_equal(pixels_of(path), upright)
    assert np.array_equal(pixels_of(Image.open(path)), upright)


@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_damaged_exif(tmp_path):
    """Damaged EXIF data is no reason to refuse an image."""
    for number, exif in enumerate(
        [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
    ):
        path = saved(tmp_path, photograph(), f"{number}.png", exif=exif)
        assert np.array_equal(pixels_of(path), photograph()), exif


@pytest.mark.parametrize(
    "name, options", [("moving.gif", {}), ("moving.png", {}), ("moving.webp", dict(lossless=True)), ("pages.tiff", {})]
)
def test_first_frame(tmp_path, name, options):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert Image.open(path).n_frames == 3
    assert np.array_equal(pixels_of(path), frames[0])


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_16_bit_grey(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(gradient()), name)
    assert np.array_equal(pixels_of(path), np.dstack([EIGHT] * 3))


def test_integer_and_float_modes(tmp_path):
    wide = Image.fromarray(gradient().astype(np.int32))
    assert wide.mode == "I" and np.array_equal(pixels_of(wide)[..., 0], EIGHT)
    floats = saved(tmp_path, Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "f.tiff")
    assert pixels_of(floats)[..., 0].tolist() == [[0, 128, 255]]
    with pytest.raises(ps3c.ImageError, match="has values from 0 to 70000, expected 16 bits, 0 to 65535"):
        open_image(Image.fromarray(np.array([[5, 70000]], np.int32)))
    with pytest.raises(ps3c.ImageError, match="has values from -3 to 5"):
        open_image(Image.fromarray(np.array([[5, -3]], np.int32)))
    with pytest.raises(ps3c.ImageError, match="has values from 5.0 to 300.0, expected floats from 0 to 1"):
        open_image(Image.fromarray(np.array([[5, 300]], np.float32)))


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (255, 0, 255, 0)), "print.jpg")
    assert Image.open(path).mode == "CMYK"
    red, green, blue = pixels_of(path)[4, 4].tolist()
    assert red < 10 and green > 245 and blue < 10


def test_alpha(tmp_path):
    """Put on white; test_image_preparation.py tests the other kinds of transparency, and other colours."""
    picture = photograph()
    half = picture.convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(picture.size))
    colours, alpha = np.asarray(picture, np.int64), np.asarray(half, np.int64)[..., 3:]
    expected = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    assert np.array_equal(pixels_of(saved(tmp_path, half, "half.png")), expected)
    grey = picture.convert("LA")
    assert np.array_equal(pixels_of(grey), np.dstack([np.asarray(picture.convert("L"))] * 3))


def test_palettes(tmp_path):
    indexed = photograph().quantize(16)
    assert np.array_equal(pixels_of(saved(tmp_path, indexed, "few.png")), indexed.convert("RGB"))
    clear, expected = saved(tmp_path, indexed, "clear.png", transparency=3), np.array(indexed.convert("RGB"))
    expected[np.asarray(indexed) == 3] = 255
    assert np.array_equal(pixels_of(clear), expected)
    assert set(np.unique(pixels_of(photograph().convert("1")))) == {0, 255}


@pytest.mark.parametrize("transparency", [bytes([255, 0, 7]), 3])
def test_palettes_under_warnings_as_errors(tmp_path, encoder, transparency):
    indexed = photograph().quantize(16)
    path = saved(tmp_path, indexed, "clear.png", transparency=transparency)
    alpha = np.full(256, 255)
    alpha[[0, 1, 2] if isinstance(transparency, bytes) else 3] = list(transparency) if transparency != 3 else 0
    alpha = alpha[np.asarray(indexed)][..., None]
    expected = (np.asarray(indexed.convert("RGB"), np.int64) * alpha + 255 * (255 - alpha) + 127) // 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels_of(path), expected)
        assert np.array_equal(pixels_of(Image.open(path)), expected)
        encoder.embed_images(path, looks=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_one_pixel(tmp_path, encoder, size):
    path = saved(tmp_path, photograph(*size), "thin.png")
    result = encoder.embed_images(path, looks=1)
    assert result.sizes == [size] and result.tokens.isfinite().all() and result.pooled.isfinite().all()
    assert result.thumbnails[0].size == size


# ---- files that cannot be used ---------------------------------------------------------------------------------------


def test_unreadable_files(tmp_path):
    whole = saved(tmp_path, photograph(300, 200), "whole.jpg").read_bytes()
    png = saved(tmp_path, photograph(300, 200), "whole.png").read_bytes()
    for name, content, reason in [
        ("cut.jpg", whole[: len(whole) // 2], "cannot be read: .*truncated"),
        ("cut.png", png[: len(png) // 2], "cannot be read: .*truncated"),
        ("head.png", png[:20], "cannot be opened: |is not an image"),
        ("broken.png", png[:60] + b"\0" * 100 + png[160:], "cannot be (read|opened): "),
        ("text.jpg", b"not an image at all", "is not an image, or has a format that Pillow does not support"),
        ("empty.jpg", b"", "is not an image"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ps3c.ImageError, match=f"{name}: ({reason})") as caught:
            open_image(tmp_path / name)
        assert "\n" not in str(caught.value) and caught.value.name == str(tmp_path / name)
    with pytest.raises(ps3c.ImageError, match="none.jpg: the file does not exist"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(ps3c.ImageError, match="got a folder, expected an image file"):
        open_image(tmp_path)


@pytest.mark.parametrize("suffix", FOREIGN_SUFFIXES)
def test_formats_of_plugins_are_named(tmp_path, suffix):
    path = tmp_path / f"photo{suffix.upper()}"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ps3c.ImageError, match=f"photo{suffix.upper()}: is .*{suffix}.*(convert|pillow)"):
        open_image(path)


def test_a_raw_files_preview_is_no_image(tmp_path):
    """Pillow takes a DNG for a TIFF file and gives its first picture, a small preview."""
    path = saved(tmp_path, photograph(16, 12), "photo.tif").rename(tmp_path / "photo.dng")
    with pytest.raises(
        ps3c.ImageError, match=r"is a camera's raw file \(.dng\), of which Pillow reads at most a preview"
    ):
        open_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ps3c.ImageError, match="is a pipe or a device, expected a regular file"):
        open_image(tmp_path / "pipe.jpg")


def test_limit_of_pixels(tmp_path, monkeypatch):
    """Pillow warns above its limit and refuses above twice its limit. ps3c refuses above it; max_pixels sets it."""
    path = saved(tmp_path, Image.new("RGB", (100, 90)), "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # 9000 are more than twice that
    message = r"has 100 x 90 = 9000 pixels, more than the limit of 4000; max_pixels \(--max-pixels\) sets the limit"
    for source in (path, Image.new("RGB", (100, 90)), np.zeros((90, 100), np.uint8)):
        with pytest.raises(ps3c.ImageError, match=message):
            open_image(source)
        assert open_image(source, max_pixels=9000)[0].size == (100, 90)
        with pytest.raises(ps3c.ImageError, match="more than the limit of 8999"):
            open_image(source, max_pixels=8999)
    assert Image.MAX_IMAGE_PIXELS == 4000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # the caller has switched the guard off
    assert open_image(path)[0].size == (100, 90)


def test_limit_in_a_decoder(tmp_path, monkeypatch):
    """Some of Pillow's decoders check the limit again while decoding."""
    frames = [Image.new("P", (100, 90), index) for index in range(2)]
    path = saved(tmp_path, frames[0], "large.gif", save_all=True, append_images=frames[1:])
    icon = saved(tmp_path, Image.new("RGB", (96, 96)), "large.ico", sizes=[(96, 96)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for file in (path, icon):
        open_image(file, max_pixels=10_000)
        with pytest.raises(ps3c.ImageError, match="more than the limit of 1000"):
            open_image(file)


def test_100_megapixels(tmp_path):
    path = saved(tmp_path, Image.new("1", (12_000, 8_400)), "large.png")
    with pytest.raises(ps3c.ImageError, match="has 12000 x 8400 = 100800000 pixels, more than the limit of 89478485"):
        open_image(path)


def test_threads(tmp_path, recwarn):
    """Pillow's limit is global. Threads that change it do not interfere with each other."""
    path, before, seen = saved(tmp_path, photograph(), "a.png"), Image.MAX_IMAGE_PIXELS, []
    threads = [threading.Thread(target=lambda: seen.append(pixels_of(path).sum())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and len(set(seen)) == 1 and Image.MAX_IMAGE_PIXELS == before and not recwarn.list


def test_thumbnail():
    assert thumbnail(photograph(1600, 400)).size == (768, 192)
    small = photograph()
    assert thumbnail(small).size == small.size and thumbnail(small) is not small

"""resize_columns and resize_rows by their integers, and ps3c._core's image_resize_columns and image_resize_rows, which
work out the taps: the bytes of Pillow's resize at every level, then image_normalize's floats."""

import numpy as np
import pytest
from PIL import Image

from ps3c import _core

from . import operations
from .support import LEVELS, assert_same, generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Up, down, far down (many taps), one pixel to many and back, narrower than a vector, one side unchanged.
SIZES = [
    ((40, 50), (63, 77)),
    ((97, 201), (33, 48)),
    ((500, 700), (9, 17)),
    ((1, 1), (20, 30)),
    ((31, 29), (1, 1)),
    ((20, 40), (28, 5)),
    ((64, 64), (64, 100)),
    ((64, 64), (100, 64)),
    ((3, 1000), (1000, 3)),
    ((7, 15), (16, 16)),
]


def noise(height, width, channels=3):
    """Bytes, many of them 0 or 255, where bicubic interpolation overshoots and is clipped."""
    random = generator(height, width)
    pixels = random.integers(0, 256, (height, width, channels))
    return np.where(random.random((height, width, 1)) < 0.5, pixels // 128 * 255, pixels).astype(np.uint8)


def resize(pixels, size, name, **options):
    columns = np.empty((pixels.shape[0], size[1], 4), np.uint8)
    _core.image_resize_columns(pixels, name, columns, **options)
    return _core.image_resize_rows(columns, name, size[0], MEAN, STD, **options)


def expected(pixels, size, name):
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).resize(size[::-1], FILTERS[name])
    return _core.image_normalize(np.asarray(image), MEAN, STD)


@pytest.mark.parametrize("level", _core.cpu_levels())
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("source, size", SIZES)
def test_against_pillow(source, size, name, level):
    pixels = noise(*source)
    assert_same(resize(pixels, size, name, level=level, threads=2), expected(pixels, size, name))


@pytest.mark.parametrize("seed", range(20))
def test_random_sizes(seed):
    random = np.random.default_rng(seed)
    source, size = (tuple(int(n) for n in random.integers(1, 130, 2)) for _ in range(2))
    for name in FILTERS:
        assert_same(resize(noise(*source), size, name), expected(noise(*source), size, name))


@pytest.mark.parametrize("level", _core.cpu_levels())
def test_four_channels_and_rows_apart(level):
    whole = noise(30, 41, 4)
    for pixels in (whole, whole[3:20, 4:33], whole[::2], whole[::-1, :17]):
        assert_same(resize(pixels, (25, 37), "bicubic", level=level), expected(pixels, (25, 37), "bicubic"))


def test_strips_are_as_good_as_the_whole():
    pixels = noise(40, 50)
    whole, strips = np.empty((40, 63, 4), np.uint8), np.empty((40, 63, 4), np.uint8)
    _core.image_resize_columns(pixels, "bicubic", whole)
    for top in range(0, 40, 7):
        _core.image_resize_columns(pixels[top : top + 7], "bicubic", strips[top : top + 7])
    assert np.array_equal(whole[..., :3], strips[..., :3])


def test_no_byte_beyond_the_last_row():
    """A row of 3-byte pixels at the very end of its memory: a sanitized build sees a read beyond it."""
    for width in (1, 2, 3, 5, 8, 33):
        pixels = np.frombuffer(bytes(range(3 * width)), np.uint8).reshape(1, width, 3)
        assert_same(resize(pixels, (1, 2 * width + 1), "bicubic"), expected(pixels, (1, 2 * width + 1), "bicubic"))


# ---- one backend operation --------------------------------------------------------------------------------


def random_taps(rng, inputs, outputs):
    """(firsts, counts, weights) whose weights add up to 1, some of them negative."""
    counts = rng.integers(1, min(inputs, 9) + 1, outputs)
    firsts = np.array([rng.integers(0, inputs - count + 1) for count in counts])
    weights = np.zeros((outputs, counts.max()), np.int32)
    for i, count in enumerate(counts):
        part = rng.uniform(-0.1, 1, count) if count > 1 else np.ones(1)
        weights[i, :count] = (
            np.round(part / part.sum() * 2**22) if abs(part.sum()) > 0.3 else [2**22] + [0] * (count - 1)
        )
    return firsts, counts, weights


def tapped(pixels, firsts, counts, weights):
    """Sums along the first axis, rounded to nearest and clipped to bytes."""
    sums = [
        (weights[i, : counts[i]].astype(np.int64)[:, None, None] * pixels[first : first + counts[i]]).sum(0)
        for i, first in enumerate(firsts)
    ]
    return ((np.array(sums) + 2**21) >> 22).clip(0, 255).astype(np.uint8)


TAP_SIZES = [(1, 1, 1), (3, 5, 7), (9, 33, 16), (2, 64, 129), (17, 100, 3)]  # rows, width, outputs


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows, width, outputs", TAP_SIZES)
def test_columns_by_their_taps(rows, width, outputs, level):
    taps = random_taps(generator(rows, width), width, outputs)
    for channels in (3, 4):
        pixels = noise(rows, width, channels)
        got = operations.resize_columns(pixels, *taps, level=level, threads=2)
        want = tapped(pixels[..., :3].transpose(1, 0, 2), *taps).transpose(1, 0, 2)
        assert_same(got[..., :3].copy(), np.ascontiguousarray(want))
        apart = np.repeat(pixels, 2, axis=0)[::2]
        assert_same(operations.resize_columns(apart, *taps, level=level)[..., :3], got[..., :3], "rows apart")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width, rows, outputs", TAP_SIZES)
def test_rows_by_their_taps(width, rows, outputs, level):
    taps, pixels = random_taps(generator(width, rows), rows, outputs), noise(rows, width, 4)
    mean, std = (np.array(values, np.float32) for values in (MEAN, STD))
    got = operations.resize_rows(pixels, *taps, mean, std, level=level, threads=2)
    assert_same(got, _core.image_normalize(tapped(pixels[..., :3], *taps), MEAN, STD))


def test_bad_taps():
    pixels, taps = noise(4, 5, 4), random_taps(generator("bad"), 4, 3)
    mean = np.zeros(3, np.float32)
    for words, arguments in [
        ("pixels", (pixels[..., :2], *taps)),
        ("firsts", (pixels, taps[0][:2], *taps[1:])),
        ("counts", (pixels, taps[0] + 5, *taps[1:])),
        ("counts", (pixels, taps[0], taps[1] * 0, taps[2])),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            operations.resize_columns(*arguments)
    with pytest.raises(ValueError, match="mean"):
        operations.resize_rows(pixels, *taps, mean[:2], mean)


# ---- what is refused --------------------------------------------------------------------------------


def test_bad_arguments():
    pixels, columns, planes = noise(4, 5), np.empty((4, 7, 4), np.uint8), np.zeros((4, 5, 4), np.uint8)
    for error, words, arguments in [
        (TypeError, "pixels", (pixels.astype(np.float32), "bicubic", columns)),
        (ValueError, "pixels", (pixels[0], "bicubic", columns)),
        (ValueError, "filter: got 'nearest', expected 'bilinear' or 'bicubic'", (pixels, "nearest", columns)),
        (ValueError, "out", (pixels, "bicubic", columns[:3])),
        (ValueError, "out", (pixels, "bicubic", columns[..., :3])),
        (TypeError, "out", (pixels, "bicubic", columns.astype(np.int32))),
        (ValueError, "expected sides of 1 to 2", (pixels[:, :0], "bicubic", columns)),
    ]:
        with pytest.raises(error, match=words):
            _core.image_resize_columns(*arguments)
    for error, words, arguments in [
        (ValueError, "pixels", (pixels, "bicubic", 9, MEAN, STD)),
        (ValueError, "filter", (planes, "box", 9, MEAN, STD)),
        (ValueError, "height: got 0, expected 1 to 2.30", (planes, "bicubic", 0, MEAN, STD)),
        (ValueError, "mean", (planes, "bicubic", 9, MEAN[:2], STD)),
        (ValueError, "std", (planes, "bicubic", 9, MEAN, (1, 0, 1))),
        (ValueError, "expected sides of 1 to 2", (planes[:0], "bicubic", 9, MEAN, STD)),
    ]:
        with pytest.raises(error, match=words):
            _core.image_resize_rows(*arguments)
    with pytest.raises(ValueError, match="level"):
        _core.image_resize_columns(pixels, "bicubic", columns, level="mmx")

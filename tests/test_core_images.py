"""ps3c._core.image_normalize: the values, and what is refused."""

import math

import numpy as np
import pytest

from ps3c import _core as installed


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 4), (1, 1, 3), (3, 1, 4)])
def test_image_normalize(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.2, 0.25]
    expected = (pixels[..., :3].astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    out = installed.image_normalize(pixels, mean, std)
    assert out.dtype == np.float32 and np.array_equal(out, expected.transpose(2, 0, 1))
    wide = np.zeros((shape[0], shape[1] + 3, shape[2]), np.uint8)
    wide[:, 1:-2] = pixels
    given = np.empty_like(out)
    assert installed.image_normalize(wide[:, 1:-2], mean, std, given) is given and np.array_equal(given, out)
    assert np.array_equal(installed.image_normalize(pixels[::-1], mean, std), out[:, ::-1])


def unaligned(*shape):
    return np.zeros(4 * math.prod(shape) + 1, np.uint8)[1:].view(np.float32).reshape(shape)


def read_only(*shape):
    array = np.zeros(shape, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "arguments, exception, message",
    [
        (
            (np.zeros((4, 4, 3), np.float32), [0] * 3, [1] * 3),
            TypeError,
            "pixels: got dtype float32, expected uint8 array",
        ),
        ((np.zeros((4, 4), np.uint8), [0] * 3, [1] * 3), ValueError, "pixels: got shape"),
        ((np.zeros((4, 4, 2), np.uint8), [0] * 3, [1] * 3), ValueError, "pixels: got shape"),
        ((np.zeros((4, 8, 3), np.uint8)[:, ::2], [0] * 3, [1] * 3), TypeError, "pixels: got strides .*, expected rows"),
        (([[1]], [0] * 3, [1] * 3), TypeError, "pixels: got list, expected a numpy.ndarray"),
        ((np.zeros([1] * 9, np.uint8), [0] * 3, [1] * 3), ValueError, "pixels: got 9 dimensions, expected at most 8"),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 2, [1] * 3), ValueError, r"mean: got \[0, 0\], expected 3 numbers"),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 3, 1), ValueError, "std: got 1, expected 3 numbers"),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 3, [1] * 3, np.zeros((3, 4, 5), np.float32)), ValueError, "out: got"),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 3, [1] * 3, np.zeros((3, 4, 4))), TypeError, "out: got"),
        (
            (np.zeros((4, 4, 3), np.uint8), [0] * 3, [1] * 3, np.zeros((3, 4, 4), ">f4")),
            TypeError,
            "foreign byte order",
        ),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 3, [1] * 3, unaligned(3, 4, 4)), TypeError, "that is not aligned"),
        ((np.zeros((4, 4, 3), np.uint8), [0] * 3, [1] * 3, read_only(3, 4, 4)), TypeError, "that is read-only"),
    ],
)
def test_image_normalize_faults(arguments, exception, message):
    with pytest.raises(exception, match=message):
        installed.image_normalize(*arguments)

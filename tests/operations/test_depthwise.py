"""depthwise: 7x7 depthwise convolution over tokens as a map."""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, naive, ops, random


def exact(x, weight, bias, rows, cols):
    """float64 result, and the sum of |products|."""
    maps = np.pad(x.reshape(-1, rows, cols, x.shape[2]), ((0, 0), (3, 3), (3, 3), (0, 0)))
    y, magnitude = (
        np.zeros((len(x), rows, cols, x.shape[2])) + bias,
        np.zeros((len(x), rows, cols, x.shape[2])) + np.abs(bias),
    )
    for dy in range(7):
        for dx in range(7):
            product = maps[:, dy : dy + rows, dx : dx + cols] * weight[:, 0, dy, dx]
            y += product
            magnitude += np.abs(product)
    return y.reshape(x.shape), magnitude.reshape(x.shape)


def test_oracle_is_torchs():
    """The formula above is conv2d."""
    x, weight, bias = (random(shape, "float32")[1] for shape in [(2, 30, 3), (3, 1, 7, 7), (3,)])
    image = torch.from_numpy(x).reshape(2, 5, 6, 3).permute(0, 3, 1, 2)
    want = torch.nn.functional.conv2d(image, torch.from_numpy(weight), torch.from_numpy(bias), padding=3, groups=3)
    np.testing.assert_allclose(
        exact(x, weight, bias, 5, 6)[0], want.permute(0, 2, 3, 1).reshape(x.shape).numpy(), atol=1e-12
    )


MAPS = [
    (1, 1),
    (1, 9),
    (9, 1),
    (2, 3),
    (3, 3),
    (4, 4),
    (6, 8),
    (7, 7),
    (5, 10),
    (8, 12),
    (1, 48),
    (48, 1),
    (3, 16),
    (1, 49),
    (7, 14),
    (9, 11),
    (13, 13),
    (10, 54),
    (1, 513),  # wider than the fast convolution's buffers
]


@pytest.mark.parametrize("rows, cols", MAPS)
def test_maps(rows, cols, dtype, level):
    channels = 1 + (rows * 5 + cols) % 9
    x, x64 = random((2, rows * cols, channels), dtype, "x")
    weight, weight64 = random((channels, 1, 7, 7), dtype, "weight")
    bias, bias64 = random((channels,), dtype, "bias")
    want, magnitude = exact(x64, weight64, bias64, rows, cols)
    got = ops.depthwise(x, weight, bias, rows, cols, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "depthwise", dtype)
    if level != "naive":
        against = naive("depthwise", x, weight, bias, rows, cols, dtype=dtype)
        assert_close(got, decode(against, dtype), magnitude, "depthwise", dtype, 2, "against naive")


def test_many_channels(dtype, level):
    x, x64 = random((1, 50, 65), dtype, "x")
    weight, weight64 = random((65, 1, 7, 7), dtype, "weight")
    bias, bias64 = random((65,), dtype, "bias")
    want, magnitude = exact(x64, weight64, bias64, 5, 10)
    got = ops.depthwise(x, weight, bias, 5, 10, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "depthwise", dtype)


def test_each_tap_is_its_neighbour(level):
    """A single weight of 1 shifts the map. Positions outside the map are 0."""
    rows, cols = 9, 11
    x = np.arange(1, 1 + rows * cols, dtype=np.float32).reshape(1, rows * cols, 1)
    for dy in range(7):
        for dx in range(7):
            weight = np.zeros((1, 1, 7, 7), np.float32)
            weight[0, 0, dy, dx] = 1
            got = ops.depthwise(x, weight, np.zeros(1, np.float32), rows, cols, level=level).reshape(rows, cols)
            want = np.pad(x.reshape(rows, cols), 3)[dy : dy + rows, dx : dx + cols]
            assert np.array_equal(got, want), (dy, dx)


def test_nan_reaches_its_window_only(dtype, level):
    _, x64 = random((2, 12 * 13, 3), dtype, "x")
    x64[1].reshape(12, 13, 3)[5, 6, 1] = np.nan
    weight, bias = random((3, 1, 7, 7), dtype, "weight")[0], encode(np.zeros(3), dtype)
    got = decode(ops.depthwise(encode(x64, dtype), weight, bias, 12, 13, dtype=dtype, level=level), dtype)
    want = np.zeros((2, 12, 13, 3), bool)
    want[1, 2:9, 3:10, 1] = True
    assert np.array_equal(np.isnan(got), want.reshape(got.shape))


def test_same_bits(dtype, level):
    x, _ = random((3, 63, 10), dtype, "x")
    weight, _ = random((10, 1, 7, 7), dtype, "weight")
    bias, _ = random((10,), dtype, "bias")

    def run(x, threads=1):
        return ops.depthwise(x, weight, bias, 7, 9, dtype=dtype, level=level, threads=threads)

    whole = run(x)
    assert_same(run(x, 2), whole, "2 threads")
    for s in range(3):
        assert_same(run(x[s : s + 1]), whole[s : s + 1], f"segment {s}")


def test_bad_arguments():
    x, weight, bias = np.zeros((1, 6, 2), np.float32), np.zeros((2, 1, 7, 7), np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="rows"):
        ops.depthwise(x, weight, bias, 2, 4)
    with pytest.raises(ValueError, match="weight"):
        ops.depthwise(x, weight[:1], bias, 2, 3)
    with pytest.raises(ValueError, match="bias"):
        ops.depthwise(x, weight, bias[:1], 2, 3)

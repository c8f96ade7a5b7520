"""patch_gather: selected patches of the resampled image, against torch's interpolate of the whole of it.

torch computes source indices and weights in float32, so the oracle is its float32 result, not a float64 one.
"""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, generator, naive, ops, random, to_torch


def grid(height, width, patch):
    """The scale (height, width, rows, cols) of whole patches."""
    return height, width, height // patch, width // patch


def exact(pixels, patch, scales):
    """All patches of all scales, (B, positions, 3 * patch * patch) float32, and the greatest pixel everywhere."""
    rows, magnitudes = [], []
    for height, width, down, across in scales:
        image = torch.nn.functional.interpolate(pixels, size=(height, width), mode="bicubic")
        for source, into in ((image, rows), (pixels.abs().amax() * torch.ones_like(image), magnitudes)):
            cut = source[:, :, : down * patch, : across * patch].unfold(2, patch, patch).unfold(3, patch, patch)
            into.append(cut.permute(0, 2, 3, 1, 4, 5).reshape(len(pixels), down * across, -1))
    return torch.cat(rows, 1).numpy().astype(np.float64), torch.cat(magnitudes, 1).numpy().astype(np.float64)


def pick(rows, positions):
    images = np.arange(len(positions)) % len(rows)
    return rows[images[:, None], positions]


CASES = {
    "same size": ((2, 28, 42), 14, [grid(28, 42, 14)]),
    "whole numbers": ((1, 32, 32), 8, [grid(16, 16, 8), grid(32, 32, 8), grid(64, 64, 8)]),
    "ps3 from a small image": ((1, 40, 60), 14, [grid(70, 70, 14), grid(84, 126, 14), grid(168, 252, 14)]),
    "shrinking much": ((1, 301, 97), 7, [grid(14, 14, 7), grid(21, 35, 7)]),
    "growing much": ((2, 5, 3), 4, [grid(64, 40, 4)]),
    "one pixel": ((1, 1, 1), 8, [grid(16, 24, 8)]),
    "one row": ((1, 1, 33), 5, [grid(10, 55, 5)]),
    "one column": ((1, 33, 1), 5, [grid(55, 10, 5)]),
    "remainder": ((1, 50, 41), 14, [grid(45, 59, 14)]),
    "stem": ((1, 37, 41), 28, [grid(84, 84, 28)]),
    "patch of 1": ((1, 9, 11), 1, [grid(7, 13, 1)]),
    "patch of 16": ((1, 48, 48), 16, [grid(48, 48, 16), grid(96, 96, 16)]),
    "odd channels": ((1, 20, 20), 3, [grid(9, 9, 3)]),
    "far indices": ((1, 16, 4000), 14, [grid(14, 2996, 14), grid(14, 5600, 14)]),
}


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name, dtype, level):
    (batch, height, width), patch, scales = CASES[name]
    pixels, _ = random((batch, 3, height, width), dtype, name)
    source = to_torch(pixels, dtype).float()
    want, magnitude = exact(source, patch, scales)
    if want.shape[1] <= 120:
        got = ops.patch_gather(pixels, patch, scales, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "patch_gather", dtype, what="all")
    positions = generator(name).integers(0, want.shape[1], (2 * batch, 53)).astype(np.int32)
    got = ops.patch_gather(pixels, patch, scales, positions=positions, dtype=dtype, level=level)
    assert_close(got, pick(want, positions), pick(magnitude, positions), "patch_gather", dtype, what="selected")
    if level != "naive":
        against = naive("patch_gather", pixels, patch, scales, positions=positions, dtype=dtype)
        assert_close(got, decode(against, dtype), pick(magnitude, positions), "patch_gather", dtype, 2, "against naive")


def test_order_of_channels_and_pixels(dtype, level):
    """At the image's own size a patch is a copy: (channel, y, x)."""
    pixels, _ = random((2, 3, 12, 20), dtype, "order")
    got = ops.patch_gather(pixels, 4, [grid(12, 20, 4)], dtype=dtype, level=level)
    want = pixels.reshape(2, 3, 3, 4, 5, 4).transpose(0, 2, 4, 1, 3, 5).reshape(2, 15, 48)
    assert_same(got, want)


def test_constant_image(dtype, level):
    """The weights sum to 1; sums of |weights|, what rounding works on, to at most 1.375 a direction."""
    pixels = encode(np.full((1, 3, 61, 47), 0.7), dtype)
    value = decode(pixels[:1, 0, 0, 0], dtype)
    got = ops.patch_gather(pixels, 7, [grid(98, 77, 7), grid(21, 21, 7)], dtype=dtype, level=level)
    assert_close(got, value, value * 1.375**2, "patch_gather", dtype)


@pytest.mark.parametrize("layout", ["channels last", "cropped", "mirrored", "broadcast", "every second", "rows apart"])
def test_strides(layout, dtype, level):
    base, _ = random((2, 3, 46, 62), dtype, layout)
    view = {
        "channels last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "cropped": lambda a: a[:, :, 5:40, 7:50],
        "mirrored": lambda a: a[:, ::-1, ::-1, ::-1],
        "broadcast": lambda a: np.broadcast_to(a[:1, :1], a.shape),
        "every second": lambda a: a[:, :, ::2, ::2],
        "rows apart": lambda a: a[:, :, :, :30],
    }[layout](base)
    scales = [grid(28, 28, 7), grid(56, 70, 7)]
    got = ops.patch_gather(view, 7, scales, dtype=dtype, level=level)
    assert_same(got, ops.patch_gather(np.ascontiguousarray(view), 7, scales, dtype=dtype, level=level))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_their_neighbours_only(special, dtype, level):
    _, pixels64 = random((1, 3, 24, 24), dtype, "special")
    pixels64[0, 1, 13, 17] = special
    pixels = encode(pixels64, dtype)
    scales = [grid(36, 36, 6)]
    want, _ = exact(to_torch(pixels, dtype).float(), 6, scales)
    got = decode(ops.patch_gather(pixels, 6, scales, dtype=dtype, level=level), dtype)
    assert np.array_equal(np.isfinite(got), np.isfinite(want))
    assert np.array_equal(np.isnan(got), np.isnan(want))


def test_same_bits(dtype, level):
    """The bits of a patch do not depend on the other patches, the batch or the number of threads."""
    pixels, _ = random((3, 3, 50, 45), dtype, "bits")
    scales = [grid(35, 28, 7), grid(70, 63, 7)]
    whole = ops.patch_gather(pixels, 7, scales, dtype=dtype, level=level, threads=1)
    assert_same(ops.patch_gather(pixels, 7, scales, dtype=dtype, level=level, threads=2), whole, "2 threads")
    for b in range(3):
        single = ops.patch_gather(pixels[b : b + 1], 7, scales, dtype=dtype, level=level, threads=1)
        assert_same(single, whole[b : b + 1], f"image {b}")
    positions = generator("bits").integers(0, whole.shape[1], (3, 49)).astype(np.int32)
    got = ops.patch_gather(pixels, 7, scales, positions=positions, dtype=dtype, level=level)
    assert_same(got, pick(whole, positions), "selected")
    ascending = np.sort(positions, axis=1)
    got = ops.patch_gather(pixels, 7, scales, positions=ascending, dtype=dtype, level=level, threads=2)
    assert_same(got, pick(whole, ascending), "selected in order")


def test_more_segments_than_images(dtype, level):
    pixels, _ = random((2, 3, 21, 21), dtype, "segments")
    whole = ops.patch_gather(pixels, 7, [grid(21, 28, 7)], dtype=dtype, level=level)
    got = ops.patch_gather(pixels, 7, [grid(21, 28, 7)], segments=4, dtype=dtype, level=level)
    assert_same(got, np.concatenate([whole, whole]))


def test_bad_arguments():
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    for words, arguments, keywords in [
        ("pixels", (pixels[0], 4, [(8, 8, 2, 2)]), {}),
        ("pixels", (pixels[:, :2], 4, [(8, 8, 2, 2)]), {}),
        ("pixels", (pixels[:, :, :0], 4, [(8, 8, 2, 2)]), {}),
        ("patch", (pixels, 0, [(8, 8, 2, 2)]), {}),
        ("scales", (pixels, 4, []), {}),
        ("scales", (pixels, 4, [(8, 8, 3, 2)]), {}),
        ("positions", (pixels, 4, [(8, 8, 2, 2)]), {"positions": np.array([[4]], np.int32)}),
        ("positions", (pixels, 4, [(8, 8, 2, 2)]), {"positions": np.array([[-1]], np.int32)}),
        ("segments", (np.repeat(pixels, 2, 0), 4, [(8, 8, 2, 2)]), {"segments": 3}),
    ]:
        with pytest.raises(ValueError, match=words):
            ops.patch_gather(*arguments, **keywords)

"""from_rows, to_rows, copy_channels, activation_bytes: rows into activations and out of them.

These move bits: everything is compared exactly.
"""

import numpy as np
import pytest

from .support import assert_same, encode, generator, ops, random

SHAPES = [
    (1, 1, 1),
    (2, 3, 2),
    (1, 7, 3),
    (3, 47, 5),
    (1, 48, 8),
    (2, 49, 9),
    (1, 95, 16),
    (3, 96, 1),
    (2, 97, 17),
    (1, 13, 47),
    (1, 50, 48),
    (2, 8, 49),
    (1, 100, 64),
    (1, 5, 1153),
]


def bits(shape, dtype, *key):
    """Any bit pattern but NaN, which a layout must carry; subnormals, -0 and infinity among them."""
    array, _ = random(shape, dtype, *key, scale=100)
    flat = array.reshape(-1)
    special = encode(np.array([0.0, -0.0, np.inf, -np.inf, 6e-8, -1e-40], np.float32), dtype)
    flat[: len(special)] = special[: flat.size]
    return array


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip(shape, dtype, level):
    rows = bits(shape, dtype)
    assert_same(ops.from_rows(rows, dtype=dtype, level=level), rows)
    assert_same(ops.to_rows(rows, np.empty_like(rows), dtype=dtype, level=level), rows)


@pytest.mark.parametrize(
    "segments, batch, tokens, channels", [(1, 1, 5, 3), (6, 2, 49, 7), (4, 4, 97, 16), (3, 1, 48, 33)]
)
def test_rows_to_their_places(segments, batch, tokens, channels, dtype, level):
    """Looks into the final order: out[segment % batch][first_row + row_of]. Nothing else is written."""
    rows = bits((segments, tokens, channels), dtype)
    looks = segments // batch
    first = 4
    total = first + looks * tokens + 3
    order = np.stack([generator(b).permutation(looks * tokens).astype(np.int32) for b in range(batch)])
    row_of = np.empty((segments, tokens), np.int32)
    want = encode(np.full((batch, total, channels), 7.0), dtype)
    into = want.copy()
    for s in range(segments):
        row_of[s] = order[s % batch, (s // batch) * tokens : (s // batch + 1) * tokens]
        want[s % batch, first + row_of[s]] = rows[s]
    assert_same(ops.to_rows(rows, into, row_of=row_of, first_row=first, dtype=dtype, level=level), want)


def test_strided_destination(dtype, level):
    rows = bits((2, 50, 6), dtype)
    base = encode(np.full((2, 3, 60, 11), 7.0), dtype)
    want = base.copy()
    want[:, 1, 5:55, 2:8] = rows
    ops.to_rows(rows, base[:, 1, :, 2:8], first_row=5, dtype=dtype, level=level)
    assert_same(base, want)


@pytest.mark.parametrize(
    "width, channels, at", [(8, 4, 0), (8, 4, 4), (9, 4, 2), (9, 5, 4), (7, 7, 0), (64, 16, 30), (6, 3, 2), (6, 1, 4)]
)
def test_copy_channels(width, channels, at, dtype, level):
    for segments, tokens in [(1, 1), (2, 49), (1, 96)]:
        x = bits((segments, tokens, channels), dtype, "x")
        y = bits((segments, tokens, width), dtype, "y")
        got = ops.copy_channels(x, y, at, dtype=dtype, level=level)
        assert_same(got[:, :, at : at + channels].copy(), x)
        # An odd number of channels fills whole words: its neighbour in the last one is not promised.
        rest = np.delete(np.arange(width), np.arange(at, at + channels + channels % 2).clip(max=width - 1))
        rest = rest[(rest < at) | (rest >= at + channels + channels % 2)]
        assert_same(got[:, :, rest].copy(), y[:, :, rest].copy())


def test_activation_bytes(level):
    for segments, tokens, channels in SHAPES:
        if level == "cuda":  # rows, each on 16 bytes, all of them on 256
            for dtype, size in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
                rows = segments * tokens * -(-channels // 8) * 8 * size
                assert (
                    ops.activation_bytes(segments, tokens, channels, dtype=dtype, level=level) == -(-rows // 256) * 256
                )
            continue
        panels = -(-tokens // 48)
        assert ops.activation_bytes(segments, tokens, channels, level=level) == segments * panels * channels * 192
        for dtype in ("float16", "bfloat16"):
            got = ops.activation_bytes(segments, tokens, channels, dtype=dtype, level=level)
            assert got == segments * panels * ((channels + 1) // 2) * 192


def test_activation_bytes_that_do_not_fit(level):
    for size in [(2**40, 2**40, 2**40), (1, 2**62, 4), (1, 1, 2**62), (2**62, 1, 1), (2**31, 2**31, 48)]:
        assert ops.activation_bytes(*size, level=level) is None


def test_same_bits_on_two_threads(dtype, level):
    rows = bits((3, 97, 50), dtype)
    assert_same(ops.from_rows(rows, dtype=dtype, level=level, threads=2), rows)
    assert_same(ops.to_rows(rows, np.empty_like(rows), dtype=dtype, level=level, threads=2), rows)


def test_bad_arguments():
    x = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="row_of"):
        ops.to_rows(x, x.copy(), first_row=1)
    with pytest.raises(ValueError, match="row_of"):
        ops.to_rows(x, x.copy(), row_of=np.full((2, 3), -1, np.int32))
    with pytest.raises(ValueError, match="into"):
        ops.to_rows(x, np.zeros((2, 3, 5), np.float32))
    with pytest.raises(ValueError, match="at"):
        ops.copy_channels(x, np.zeros((2, 3, 6), np.float32), 1)
    with pytest.raises(ValueError, match="at"):
        ops.copy_channels(x, np.zeros((2, 3, 6), np.float32), 4)
    read_only = x.copy()
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="into"):
        ops.to_rows(x, read_only)

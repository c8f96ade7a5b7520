"""position_add: position tables, cropped or resampled as by torch's interpolate(mode="bicubic", antialias=True)."""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, generator, naive, ops, random, to_torch
from .tolerances import ARITHMETIC, ROUNDING


def table_rows(table, scales, crop, dtype):
    """(positions, channels) float64: each scale's table as the reference has it, before rounding to dtype."""
    side = int(len(table) ** 0.5)
    image = to_torch(table, dtype).float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    rows = []
    for _, _, down, across in scales:
        resized = image
        if not crop and not down == across == side:
            size = max(down, across)
            resized = torch.nn.functional.interpolate(image, size=(size, size), mode="bicubic", antialias=True)
        rows.append(resized[0, :, :down, :across].permute(1, 2, 0).reshape(down * across, -1))
    return torch.cat(rows).double().numpy()


def check(x, table, scales, dtype, level, crop=False, residual=None, positions=None, exactly=False):
    got = ops.position_add(
        x, table, scales, crop=crop, residual=residual, positions=positions, dtype=dtype, level=level
    )
    rows = table_rows(table, scales, crop, dtype)
    greatest = np.abs(decode(table, dtype)).max()
    extra = np.zeros_like(rows)
    if residual is not None:
        parts = [
            np.zeros((s[2] * s[3], rows.shape[1])) if r is None else table_rows(r, [s], True, dtype)
            for r, s in zip(residual, scales)
        ]
        extra = np.concatenate(parts)
    if positions is None:
        positions = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    x64 = decode(x, dtype)
    if exactly:
        rows = decode(encode(rows, dtype), dtype)
        total = x64 + rows[positions] + extra[positions]
        assert_close(got, total, np.abs(x64) + np.abs(rows[positions]) + np.abs(extra[positions]), "blend", dtype)
        return got
    # The row is rounded to dtype before it is added, and an arithmetic error may round it the other way.
    flips = (
        (np.abs(rows[positions]) + greatest * ARITHMETIC["position_add"]) * ROUNDING[dtype] / ARITHMETIC["position_add"]
    )
    magnitude = greatest + (np.abs(x64) + np.abs(extra[positions])) / 4 + (flips if dtype != "float32" else 0)
    assert_close(got, x64 + rows[positions] + extra[positions], magnitude, "position_add", dtype)
    return got


def square(side, channels, dtype, *key):
    return random((side * side, channels), dtype, "table", *key)[0]


@pytest.mark.parametrize(
    "side, grids",
    [
        (4, [(8, 8)]),
        (7, [(3, 3), (14, 14), (28, 28)]),
        (5, [(4, 5), (5, 3), (9, 2)]),
        (16, [(5, 7), (3, 3)]),
        (1, [(1, 1), (4, 3)]),
        (27, [(27, 27), (54, 40), (1, 27)]),
        (2, [(1, 1), (3, 3)]),
        (3, [(40, 1)]),
        (31, [(2, 2)]),
        (40, [(1, 1)]),
    ],
    ids=str,
)
def test_resampled(side, grids, dtype, level):
    scales = [(rows, cols, rows, cols) for rows, cols in grids]
    table = square(side, 10, dtype, side)
    tokens = sum(rows * cols for rows, cols in grids)
    x, _ = random((2, tokens, 10), dtype, "x")
    whole = check(x, table, scales, dtype, level)
    positions = generator(side).integers(0, tokens, (3, 50)).astype(np.int32)
    x, _ = random((3, 50, 10), dtype, "x")
    check(x, table, scales, dtype, level, positions=positions)
    if level != "naive":
        against = naive("position_add", random((2, tokens, 10), dtype, "x")[0], table, scales, dtype=dtype)
        greatest = np.abs(decode(table, dtype)).max()
        share = 1 + ROUNDING[dtype] / ARITHMETIC["position_add"] * (dtype != "float32")
        assert_close(whole, decode(against, dtype), greatest * share, "position_add", dtype, 2, "against naive")


def test_used_as_it_is(dtype, level):
    """No resampling, so no rounding but that of the sum, when the grid is the table's own."""
    x, _ = random((2, 49, 9), dtype, "x")
    check(x, square(7, 9, dtype), [(7, 7, 7, 7)], dtype, level, exactly=True)


@pytest.mark.parametrize("rows, cols", [(7, 5), (5, 7)])
def test_longer_side_is_the_tables(rows, cols, dtype, level):
    """Resampled to its own side: bicubic weights at whole positions are 0 and 1."""
    x, _ = random((1, rows * cols, 6), dtype, "x")
    check(x, square(7, 6, dtype), [(rows, cols, rows, cols)], dtype, level, exactly=True)


def test_cropped(dtype, level):
    x, _ = random((2, 6 * 5 + 9 * 2, 8), dtype, "x")
    check(x, square(9, 8, dtype), [(6, 5, 6, 5), (9, 2, 9, 2)], dtype, level, crop=True, exactly=True)


@pytest.mark.parametrize("crop", [False, True])
def test_residual_tables(crop, dtype, level):
    scales = [(4, 3, 4, 3), (6, 8, 6, 8), (5, 5, 5, 5)]
    residual = [square(4, 7, dtype, "a"), None, square(11, 7, dtype, "b")]
    table = square(8, 7, dtype)
    tokens = 12 + 48 + 25
    x, _ = random((2, tokens, 7), dtype, "x")
    check(x, table, scales, dtype, level, crop=crop, residual=residual)
    positions = generator("residual").integers(0, tokens, (4, 49)).astype(np.int32)
    x, _ = random((4, 49, 7), dtype, "x")
    check(x, table, scales, dtype, level, crop=crop, residual=residual, positions=positions)


def test_same_bits(dtype, level):
    table, scales = square(9, 12, dtype), [(5, 7, 5, 7), (20, 20, 20, 20)]
    positions = generator("bits").integers(0, 435, (3, 60)).astype(np.int32)
    x, _ = random((3, 60, 12), dtype, "x")

    def run(x, positions, threads=1):
        return ops.position_add(x, table, scales, positions=positions, dtype=dtype, level=level, threads=threads)

    whole = run(x, positions)
    assert_same(run(x, positions, 2), whole, "2 threads")
    for s in range(3):
        assert_same(run(x[s : s + 1], positions[s : s + 1]), whole[s : s + 1], f"segment {s}")
    # A token's row does not depend on the other tokens.
    everything = np.arange(435, dtype=np.int32)[None]
    zeros = ops.position_add(encode(np.zeros((1, 435, 12)), dtype), table, scales, dtype=dtype, level=level)
    some = ops.position_add(
        encode(np.zeros((3, 60, 12)), dtype), table, scales, positions=positions, dtype=dtype, level=level
    )
    assert_same(some, zeros[0][positions])
    assert_same(run(encode(np.zeros((1, 435, 12)), dtype), everything), zeros)


def test_bad_arguments():
    x, table = np.zeros((1, 4, 3), np.float32), np.zeros((9, 3), np.float32)
    for words, arguments, keywords in [
        ("table", (x, table[:8], [(2, 2, 2, 2)]), {}),
        ("table", (x, np.zeros((9, 4), np.float32), [(2, 2, 2, 2)]), {}),
        ("table", (x, table, [(1, 4, 1, 4)]), {"crop": True}),
        ("positions", (x, table, [(1, 3, 1, 3)]), {}),
        ("residual", (x, table, [(2, 2, 2, 2)]), {"residual": []}),
        ("residual", (x, table, [(2, 2, 2, 2)]), {"residual": [table[:1]]}),
    ]:
        with pytest.raises(ValueError, match=words):
            ops.position_add(*arguments, **keywords)

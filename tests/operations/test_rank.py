"""rank: places in a stable descending order, NaN after everything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from .support import DTYPES, LEVELS, assert_same, decode, encode, generator, ops


def exact(values):
    """values: float64 (B, patches)."""
    rank = np.empty(values.shape, np.int32)
    for b, row in enumerate(values):
        order = sorted(range(len(row)), key=lambda i: (np.isnan(row[i]), -row[i] if not np.isnan(row[i]) else 0))
        rank[b, order] = np.arange(len(row))
    return rank


def check(probs, dtype, level):
    want = exact(decode(probs, dtype).reshape(len(probs), -1))
    assert_same(ops.rank(probs, dtype=dtype, level=level), want)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 1, 2), (2, 3, 3), (1, 7, 9), (3, 16, 16), (1, 5, 51), (1, 1, 257), (2, 54, 33), (1, 108, 61)],
    ids=str,
)
def test_random(shape, dtype, level):
    check(encode(generator(shape).uniform(size=shape), dtype), dtype, level)


def test_ties(dtype, level):
    """Nearest upsampling: every value occurs 4, 16 or 100 times."""
    for factor in (2, 4, 10):
        small = generator(factor).integers(0, 9, (2, 7, 5)) / 8
        check(encode(small.repeat(factor, 1).repeat(factor, 2), dtype), dtype, level)
    check(encode(np.full((2, 30, 20), 0.25), dtype), dtype, level)


def test_special_values(dtype, level):
    values = np.array(
        [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1, -1, 6e-8, -6e-8, 1e-40, -1e-40, 0.0, np.nan, 6e4, -6e4]
    )
    for seed in range(10):
        shuffled = generator(seed).choice(values, (2, 6, 7))
        probs = encode(shuffled, dtype)
        # Every NaN pattern is a NaN: quiet, negative, with any payload.
        if dtype == "float32":
            probs.view(np.uint32)[0, 0, :2] = 0xFFFFFFFF, 0x7F800001
        else:
            probs.view(np.uint16)[0, 0, :2] = 0xFFFF, {"float16": 0x7C01, "bfloat16": 0x7F81}[dtype]
        check(probs, dtype, level)


def test_all_nan_is_index_order(dtype, level):
    probs = encode(np.full((1, 9, 9), np.nan), dtype)
    assert_same(ops.rank(probs, dtype=dtype, level=level), np.arange(81, dtype=np.int32)[None])


def test_same_for_any_batch_and_threads(dtype, level):
    probs = encode(generator("batch").integers(0, 50, (4, 40, 41)) / 50, dtype)
    whole = ops.rank(probs, dtype=dtype, level=level, threads=1)
    assert_same(ops.rank(probs, dtype=dtype, level=level, threads=2), whole)
    for b in range(4):
        assert_same(ops.rank(probs[b : b + 1], dtype=dtype, level=level), whole[b : b + 1])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DTYPES),
    hnp.arrays(np.uint32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 2**32 - 1)),
    st.integers(0, 31),
)
def test_any_bits(dtype, bits, drop):
    """Any bit patterns, with coarser and coarser ties."""
    bits = bits & np.uint32((0xFFFFFFFF << drop) & 0xFFFFFFFF)
    probs = bits.view(np.float32) if dtype == "float32" else (bits >> 16).astype(np.uint16)
    if dtype == "float16":
        probs = probs.view(np.float16)
    for level in LEVELS:
        check(probs, dtype, level)


def test_bad_arguments():
    with pytest.raises(ValueError, match="probs"):
        ops.rank(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="probs"):
        ops.rank(np.zeros((0, 2, 3), np.float32))
    with pytest.raises(TypeError, match="probs"):
        ops.rank(np.zeros((1, 2, 3), np.float32)[:, :, ::2])

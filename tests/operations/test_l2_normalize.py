"""l2_normalize: x / |x| for every token."""

import numpy as np
import pytest

from .support import assert_close, assert_same, encode, ops, random


def test_l2_normalize(dtype, level):
    for segments, tokens, channels in [(1, 1, 1), (1, 5, 3), (2, 49, 24), (3, 9, 577)]:
        x, x64 = random((segments, tokens, channels), dtype, "x")
        x64[0, 0] = 0
        x = encode(x64, dtype)
        length = np.linalg.norm(x64, axis=-1, keepdims=True)
        want = x64 / np.maximum(length, 1e-12)
        got = ops.l2_normalize(x, dtype=dtype, level=level)
        assert_close(got, want, np.abs(want), "l2_normalize", dtype)
        assert_same(ops.l2_normalize(x, in_place=True, dtype=dtype, level=level), got, "in place")


def test_l2_normalize_of_tiny_vectors(level):
    """Below 1e-12 the length counts as 1e-12."""
    x = np.array([[[3e-14, 4e-14], [3e-11, 4e-11]]], np.float32)
    got = ops.l2_normalize(x, level=level)
    np.testing.assert_allclose(got, [[[0.03, 0.04], [0.6, 0.8]]], rtol=1e-6)


def test_bad_arguments():
    x = np.zeros((1, 2, 4), np.float32)
    with pytest.raises(TypeError, match="x"):
        ops.l2_normalize(x, dtype="float16")

"""blend: flag * low + (flag == 0) * y, token by token."""

import numpy as np
import pytest

from .support import assert_close, assert_same, generator, ops, random


def test_blend(dtype, level):
    for tokens, channels, first in [(1, 4, 0), (5, 7, 2), (49, 3, 1)]:
        low, low64 = random((1, tokens, channels), dtype, "low")
        y, y64 = random((1, tokens, channels), dtype, "y")
        flag = generator(tokens).choice(np.array([0, 1, 0.5, -2], np.float32), (first + tokens, 1))
        f = flag[first:].astype(np.float64)[None]
        got = ops.blend(flag, low, y, first=first, dtype=dtype, level=level)
        assert_close(got, f * low64 + (f == 0) * y64, np.abs(f * low64) + np.abs(y64), "blend", dtype)
        wide = np.repeat(flag, 3, axis=1)
        assert_same(ops.blend(wide[:, 1:2], low, y, first=first, dtype=dtype, level=level), got, "strided")
        whole = np.flatnonzero((flag[first:, 0] == 0) | (flag[first:, 0] == 1))
        picked = np.where(flag[first:] == 1, low[0], y[0])
        assert_same(got[0, whole], picked[whole])


def test_bad_arguments():
    x = np.zeros((1, 3, 4), np.float32)
    with pytest.raises(ValueError, match="flag"):
        ops.blend(np.zeros((2, 1), np.float32), x, x)

"""pool_tokens: one token of each segment."""

import numpy as np
import pytest

from .support import assert_same, generator, ops, random


@pytest.mark.parametrize("segments, tokens, channels", [(1, 1, 1), (3, 7, 5), (2, 49, 16), (50, 3, 9)])
def test_pool_tokens(segments, tokens, channels, dtype, level):
    x, _ = random((segments, tokens, channels), dtype, "x")
    assert_same(ops.pool_tokens(x, "first", dtype=dtype, level=level), x[None, :, 0].copy())
    assert_same(ops.pool_tokens(x, "last", dtype=dtype, level=level), x[None, :, -1].copy())
    ids = generator(tokens).integers(0, 5, (segments, tokens))
    want = x[np.arange(segments), ids.argmax(axis=1)][None]
    assert_same(ops.pool_tokens(x, "argmax", ids=ids, dtype=dtype, level=level), want)
    more = np.concatenate([ids[:1], ids])
    assert_same(ops.pool_tokens(x, "argmax", ids=more, first=1, dtype=dtype, level=level), want, "first")
    assert_same(ops.pool_tokens(x, "argmax", ids=np.asfortranarray(ids), dtype=dtype, level=level), want, "strides")
    large = ids.copy()
    large[:, -1] = 2**62
    assert_same(ops.pool_tokens(x, "argmax", ids=large, dtype=dtype, level=level), x[None, :, -1].copy(), "64 bits")


def test_bad_arguments():
    x = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="pool"):
        ops.pool_tokens(x, "mean")
    with pytest.raises(ValueError, match="ids"):
        ops.pool_tokens(x, "argmax")

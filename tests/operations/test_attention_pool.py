"""attention_pool: one query over the tokens of each segment."""

import numpy as np
import pytest

from .support import assert_close, assert_same, decode, encode, generator, naive, ops, random


def exact(query, keys_values, heads, mask=None):
    segments, tokens, channels = keys_values.shape[0], keys_values.shape[1], query.shape[2]
    d = channels // heads
    q = query.reshape(heads, d)
    k = keys_values[:, :, :channels].reshape(segments, tokens, heads, d)
    v = keys_values[:, :, channels:].reshape(segments, tokens, heads, d)
    scores = np.einsum("hd,sthd->sht", q, k) / np.sqrt(d)
    size = np.einsum("hd,sthd->sht", np.abs(q), np.abs(k)).max(axis=2, keepdims=True) / np.sqrt(d)
    if mask is not None:
        scores = np.where(mask[:, None] != 0, scores, -np.inf)
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    y = np.einsum("sht,sthd->shd", p, v)
    magnitude = np.einsum("sht,sthd->shd", p, np.abs(v)) * (1 + size)
    return y.reshape(1, segments, channels), magnitude.reshape(1, segments, channels)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 47, 48, 49, 96, 97, 200])
@pytest.mark.parametrize("heads, d", [(1, 8), (3, 16), (2, 72)])
def test_tokens(tokens, heads, d, dtype, level):
    query, query64 = random((1, 1, heads * d), dtype, "query")
    both, both64 = random((3, tokens, 2 * heads * d), dtype, "both")
    want, magnitude = exact(query64, both64, heads)
    got = ops.attention_pool(query, both, heads=heads, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention_pool", dtype)
    mask = generator(tokens).integers(0, 2, (3, tokens)).astype(np.uint8)
    mask[:, tokens // 2] = 1
    want, magnitude = exact(query64, both64, heads, mask)
    got = ops.attention_pool(query, both, heads=heads, mask=mask, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention_pool", dtype, what="mask")
    if level != "naive":
        against = naive("attention_pool", query, both, heads=heads, mask=mask, dtype=dtype)
        assert_close(got, decode(against, dtype), magnitude, "attention_pool", dtype, 2, "against naive")


def test_more_than_48_segments(dtype, level):
    query, query64 = random((1, 1, 16), dtype, "query")
    both, both64 = random((50, 5, 32), dtype, "both")
    want, magnitude = exact(query64, both64, 2)
    got = ops.attention_pool(query, both, heads=2, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention_pool", dtype)


def test_what_the_mask_hides_may_be_nan_in_its_score(dtype, level):
    """A masked key has weight 0. Its value is multiplied by 0, as in the reference."""
    query, query64 = random((1, 1, 16), dtype, "query")
    _, both64 = random((2, 50, 32), dtype, "both")
    mask = np.ones((2, 50), np.uint8)
    mask[0, 3] = 0
    both64[0, 3, :16] = 1000
    want, magnitude = exact(query64, both64, 2, mask)
    got = ops.attention_pool(query, encode(both64, dtype), heads=2, mask=mask, dtype=dtype, level=level)
    assert_close(got, want, np.abs(both64[..., 16:]).max() * 12 + 0 * magnitude, "attention_pool", dtype)


def test_great_scores(dtype, level):
    query, query64 = random((1, 1, 32), dtype, "query", scale=30)
    both, both64 = random((2, 97, 64), dtype, "both", scale=30)
    want, magnitude = exact(query64, both64, 2)
    got = ops.attention_pool(query, both, heads=2, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention_pool", dtype)


def test_same_bits(dtype, level):
    query, _ = random((1, 1, 32), dtype, "query")
    both, _ = random((5, 97, 64), dtype, "both")

    def run(both, threads=1):
        return ops.attention_pool(query, both, heads=2, dtype=dtype, level=level, threads=threads)

    whole = run(both)
    assert_same(run(both, 2), whole, "2 threads")
    for s in range(5):
        assert_same(run(both[s : s + 1]), whole[:, s : s + 1].copy(), f"segment {s}")


def test_bad_arguments():
    query, both = np.zeros((1, 1, 16), np.float32), np.zeros((2, 3, 32), np.float32)
    with pytest.raises(ValueError, match="heads"):
        ops.attention_pool(query, both)
    with pytest.raises(ValueError, match="query"):
        ops.attention_pool(query[:, :, :8].copy(), both, heads=1)
    with pytest.raises(ValueError, match="mask"):
        ops.attention_pool(query, both, heads=1, mask=np.zeros((2, 2), np.uint8))

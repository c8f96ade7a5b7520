"""attention: softmax(q k^T / sqrt(d)) v over cached and own tokens."""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, naive, ops, random
from .tolerances import ARITHMETIC, ATTENTION_WEIGHTS


def exact(q, k, v, heads, cached=None, causal=False, mask=None, dtype="float32"):
    """float64 (segments, tokens, heads * d), and a magnitude: sum of p |v|, times the size of the scores.

    The rounding of p to the dtype, which does not grow with the scores, comes on top.
    """
    segments, tokens, channels = q.shape
    d = channels // heads
    if cached is not None:
        at = np.arange(segments) % len(cached[0])
        k, v = np.concatenate([cached[0][at], k], 1), np.concatenate([cached[1][at], v], 1)
    before = k.shape[1] - tokens

    def split(a):
        return a.reshape(segments, -1, heads, d).transpose(0, 2, 1, 3)

    q, k, v = split(q), split(k), split(v)
    scores = q @ k.swapaxes(2, 3) / np.sqrt(d)
    size = (np.abs(q) @ np.abs(k).swapaxes(2, 3)).max(axis=3, keepdims=True) / np.sqrt(d)
    seen = np.ones((segments, 1, tokens, before + tokens), bool)
    if causal:
        seen[..., before:] &= np.tri(tokens, dtype=bool)
    if mask is not None:
        seen[:, 0, -1, before:] &= mask != 0
    scores = np.where(seen, scores, -np.inf)
    p = np.exp(scores - scores.max(axis=3, keepdims=True))
    p /= p.sum(axis=3, keepdims=True)
    magnitude = (p @ np.abs(v)) * (1 + size + ATTENTION_WEIGHTS[dtype] / ARITHMETIC["attention"])
    return tuple(a.transpose(0, 2, 1, 3).reshape(segments, tokens, channels) for a in (p @ v, magnitude))


def qkv(segments, tokens, channels, dtype, scale=1.0, key="own"):
    return zip(*(random((segments, tokens, channels), dtype, key, name, scale=scale) for name in "qkv"))


def test_oracle_is_torchs():
    """The formula above is scaled_dot_product_attention."""
    _, (q, k, v) = qkv(2, 13, 48, "float32")
    heads = [torch.from_numpy(a).reshape(2, 13, 3, 16).transpose(1, 2) for a in (q, k, v)]
    for causal in (False, True):
        want = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal)
        want = want.transpose(1, 2).reshape(2, 13, 48).numpy()
        np.testing.assert_allclose(exact(q, k, v, 3, causal=causal)[0], want, atol=1e-12)


TOKENS = [1, 2, 3, 5, 7, 9, 47, 48, 49, 95, 96, 97, 145]
DIMS = [8, 16, 24, 32, 40, 64, 72, 80, 88, 128]


@pytest.mark.parametrize("tokens", TOKENS)
def test_own_tokens(tokens, dtype, level):
    heads, d = 1 + tokens % 3, DIMS[tokens % len(DIMS)]
    (q, k, v), values = qkv(2, tokens, heads * d, dtype)
    want, magnitude = exact(*values, heads, dtype=dtype)
    got = ops.attention(q, k, v, heads=heads, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype, what=f"{heads} heads of {d}")
    fused = ops.attention(q, k, v, heads=heads, fused=True, dtype=dtype, level=level)
    assert_same(fused, got, "fused")
    against = naive("attention", q, k, v, heads=heads, dtype=dtype)
    assert_close(got, decode(against, dtype), magnitude, "attention", dtype, times=2, what="against naive")


@pytest.mark.parametrize("d", DIMS + [136, 256, 264])
def test_head_dims(d, dtype, level):
    (q, k, v), values = qkv(1, 50, 2 * d, dtype)
    (_, ck, cv), cached = qkv(1, 31, 2 * d, dtype, key="cached")
    want, magnitude = exact(*values, 2, cached[1:], dtype=dtype)
    got = ops.attention(q, k, v, heads=2, cached_k=ck, cached_v=cv, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype)


@pytest.mark.parametrize("cached_tokens", [1, 2, 47, 48, 49, 97, 300])
@pytest.mark.parametrize("tokens", [1, 3, 48, 53])
def test_cached_tokens(tokens, cached_tokens, dtype, level):
    """Looks: segment s reads the cache of image s % batch."""
    heads, d, batch, segments = 2, 24, 2, 4
    (q, k, v), values = qkv(segments, tokens, heads * d, dtype)
    (_, ck, cv), cached = qkv(batch, cached_tokens, heads * d, dtype, key="cached")
    want, magnitude = exact(*values, heads, cached[1:], dtype=dtype)
    got = ops.attention(q, k, v, heads=heads, cached_k=ck, cached_v=cv, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype)
    against = naive("attention", q, k, v, heads=heads, cached_k=ck, cached_v=cv, dtype=dtype)
    assert_close(got, decode(against, dtype), magnitude, "attention", dtype, times=2, what="against naive")


@pytest.mark.parametrize("tokens", [1, 2, 7, 48, 49, 64, 97])
def test_causal(tokens, dtype, level):
    (q, k, v), values = qkv(2, tokens, 48, dtype)
    want, magnitude = exact(*values, 2, causal=True, dtype=dtype)
    got = ops.attention(q, k, v, heads=2, causal=True, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype)
    (_, ck, cv), cached = qkv(1, 50, 48, dtype, key="cached")
    want, magnitude = exact(*values, 2, cached[1:], causal=True, dtype=dtype)
    got = ops.attention(q, k, v, heads=2, causal=True, cached_k=ck, cached_v=cv, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype, what="cached")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [2, 5, 48, 49, 65, 97])
def test_last_query_mask(tokens, causal, dtype, level):
    """The class token of a text has its own row of the mask. The other queries are not affected."""
    (q, k, v), values = qkv(3, tokens, 32, dtype)
    mask = np.zeros((3, tokens), np.uint8)
    mask[0] = 1
    mask[1, ::3] = 1
    mask[2, 0] = 1
    want, magnitude = exact(*values, 2, causal=causal, mask=mask, dtype=dtype)
    got = ops.attention(q, k, v, heads=2, causal=causal, last_query_mask=mask, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "attention", dtype)


def test_great_scores(dtype, level):
    """Large scores: one key has weight 1, without overflow. Small scores: the result is the mean of the values."""
    for scale in (12.0, 40.0, 1e-3):
        (q, k, v), values = qkv(1, 60, 64, dtype, scale=scale)
        want, magnitude = exact(*values, 2, dtype=dtype)
        got = ops.attention(q, k, v, heads=2, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "attention", dtype, what=f"scale {scale}")


def test_rising_scores(dtype, level):
    """The greatest score comes last, or first: the running maximum changes in every block, or never."""
    tokens = 700
    ramp = np.linspace(-60, 60, tokens)[None, :, None] * np.ones(8)
    for direction in (1, -1):
        q64 = decode(encode(np.ones((1, tokens, 8)), dtype), dtype)
        k = encode(ramp * direction / np.sqrt(8), dtype)
        v, v64 = random((1, tokens, 8), dtype, "v")
        want, magnitude = exact(q64, decode(k, dtype), v64, 1, dtype=dtype)
        got = ops.attention(encode(q64, dtype), k, v, heads=1, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "attention", dtype, what=f"direction {direction}")


def test_equal_scores_give_the_mean(dtype, level):
    share = 1 + ATTENTION_WEIGHTS[dtype] / ARITHMETIC["attention"]
    for tokens in (1, 48, 50, 97):
        q = encode(np.zeros((1, tokens, 16)), dtype)
        v, v64 = random((1, tokens, 16), dtype, "v")
        got = ops.attention(q, q, v, heads=2, dtype=dtype, level=level)
        want = np.broadcast_to(v64.mean(axis=1, keepdims=True), v64.shape)
        assert_close(got, want, share * np.abs(v64).mean(axis=1, keepdims=True), "attention", dtype)


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_nan_stays_where_it_is_seen(special, dtype, level):
    (q, k, v), (q64, k64, v64) = qkv(2, 55, 32, dtype)
    poisoned = q64.copy()
    poisoned[1, 3, 2] = special  # head 0 of one query
    got = decode(ops.attention(encode(poisoned, dtype), k, v, heads=2, dtype=dtype, level=level), dtype)
    plain = decode(ops.attention(q, k, v, heads=2, dtype=dtype, level=level), dtype)
    assert np.isnan(got[1, 3, :16]).all()
    got[1, 3, :16] = plain[1, 3, :16]
    assert np.array_equal(got, plain)
    poisoned = v64.copy()
    poisoned[0, 54, 17] = np.nan  # one channel of head 1, all queries of the segment
    got = decode(ops.attention(q, k, encode(poisoned, dtype), heads=2, dtype=dtype, level=level), dtype)
    assert np.isnan(got[0, :, 17]).all()
    got[0, :, 17] = plain[0, :, 17]
    assert np.array_equal(got, plain)


def test_same_bits(dtype, level):
    (q, k, v), _ = qkv(4, 61, 48, dtype)
    (_, ck, cv), _ = qkv(2, 100, 48, dtype, key="cached")

    def run(q, k, v, ck, cv, threads=1):
        return ops.attention(q, k, v, heads=2, cached_k=ck, cached_v=cv, dtype=dtype, level=level, threads=threads)

    whole = run(q, k, v, ck, cv)
    assert_same(run(q, k, v, ck, cv), whole, "again")
    for threads in (2, 5):
        assert_same(run(q, k, v, ck, cv, threads), whole, f"{threads} threads")
    for s in range(4):
        own, cache = np.s_[s : s + 1], np.s_[s % 2 : s % 2 + 1]
        assert_same(run(q[own], k[own], v[own], ck[cache], cv[cache]), whole[own], f"segment {s}")


def test_bad_arguments():
    x = np.zeros((2, 3, 16), np.float32)
    for words, arguments, keywords in [
        ("heads", (x, x, x), {}),
        ("heads", (x, x, x), {"heads": 3}),
        ("heads", (x, x, x), {"heads": 4}),
        ("k", (x, x[:, :2].copy(), x[:, :2].copy()), {"heads": 1}),
        ("v", (x, x, x[:, :2].copy()), {"heads": 1}),
        ("q", (x[:, :, :8].copy(), x, x), {"heads": 1}),
        (
            "cached_k",
            (x, x, x),
            {"heads": 1, "cached_k": np.zeros((3, 1, 16), np.float32), "cached_v": np.zeros((3, 1, 16), np.float32)},
        ),
        ("last_query_mask", (x, x, x), {"heads": 1, "last_query_mask": np.zeros((2, 2), np.uint8)}),
    ]:
        with pytest.raises(ValueError, match=words):
            ops.attention(*arguments, **keywords)

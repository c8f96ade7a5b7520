"""layernorm: over the channels of each token, then an activation."""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, naive, ops, random

ACTS = {
    "none": lambda x: x,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.nn.functional.relu,
}


def exact(x, weight, bias, eps, act="none"):
    channels = x.shape[-1]
    y = torch.nn.functional.layer_norm(
        *map(torch.from_numpy, (x,)), (channels,), torch.from_numpy(weight), torch.from_numpy(bias), eps
    )
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    # Each deviation from the mean carries a rounding of the greatest |x|.
    magnitude = np.abs(weight) * (1 + np.abs(x).max(axis=-1, keepdims=True) / deviation) + np.abs(bias)
    if act.startswith("gelu"):
        magnitude = magnitude + np.maximum(1, np.abs(y.numpy()))
    return ACTS[act](y).numpy(), magnitude


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 17, 48, 64, 577, 1152])
def test_channels(channels, dtype, level):
    for segments, tokens in [(1, 1), (2, 49), (1, 96), (3, 5)]:
        x, x64 = random((segments, tokens, channels), dtype, "x", shift=0.3)
        weight, weight64 = random((channels,), dtype, "weight", shift=1)
        bias, bias64 = random((channels,), dtype, "bias")
        want, magnitude = exact(x64, weight64, bias64, np.float32(1e-6))
        got = ops.layernorm(x, weight, bias, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "layernorm", dtype, what=f"{segments} x {tokens}")
        assert_same(ops.layernorm(x, weight, bias, in_place=True, dtype=dtype, level=level), got, "in place")


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 6, 7, 8, 9, 47, 48, 49, 95, 96, 97])
def test_tokens(tokens, dtype, level):
    x, x64 = random((2, tokens, 19), dtype, "x")
    weight, weight64 = random((19,), dtype, "weight", shift=1)
    bias, bias64 = random((19,), dtype, "bias")
    for act in ACTS:
        want, magnitude = exact(x64, weight64, bias64, np.float32(1e-5), act)
        got = ops.layernorm(x, weight, bias, eps=1e-5, act=act, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "layernorm", dtype, what=act)
        against = naive("layernorm", x, weight, bias, eps=1e-5, act=act, dtype=dtype)
        assert_close(got, decode(against, dtype), magnitude, "layernorm", dtype, times=2, what=f"{act} against naive")


def test_mean_far_from_zero(level):
    """The variance is computed in two passes, so it is exact for a mean of 1000 standard deviations."""
    x, x64 = random((1, 50, 64), "float32", "x", shift=1000.0)
    one, zero = np.ones(64, np.float32), np.zeros(64, np.float32)
    want, magnitude = exact(x64, one.astype(np.float64), zero.astype(np.float64), np.float32(1e-6))
    got = ops.layernorm(x, one, zero, level=level)
    assert_close(got, want, magnitude, "layernorm", "float32")


def test_equal_channels_give_the_bias(dtype, level):
    x = encode(np.full((1, 49, 24), 3.0), dtype)
    weight, _ = random((24,), dtype, "weight")
    bias, _ = random((24,), dtype, "bias")
    got = ops.layernorm(x, weight, bias, dtype=dtype, level=level)
    assert_same(got, np.broadcast_to(bias, got.shape).copy())


def test_nan_stays_with_its_token(dtype, level):
    for special in (np.nan, np.inf):
        x, x64 = random((2, 50, 24), dtype, "x")
        x64[1, 49, 3] = special
        weight, bias = encode(np.ones(24), dtype), encode(np.zeros(24), dtype)
        got = decode(ops.layernorm(encode(x64, dtype), weight, bias, dtype=dtype, level=level), dtype)
        assert np.isnan(got[1, 49]).all()
        got[1, 49] = 0
        assert np.isfinite(got).all()


def test_same_bits(dtype, level):
    x, _ = random((3, 61, 33), dtype, "x")
    weight, _ = random((33,), dtype, "weight")
    bias, _ = random((33,), dtype, "bias")

    def run(x, threads=1):
        return ops.layernorm(x, weight, bias, act="gelu", dtype=dtype, level=level, threads=threads)

    whole = run(x)
    assert_same(run(x), whole, "again")
    assert_same(run(x, 2), whole, "2 threads")
    for s in range(3):
        assert_same(run(x[s : s + 1]), whole[s : s + 1], f"segment {s}")


def test_bad_arguments():
    x, vector = np.zeros((1, 2, 4), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="weight"):
        ops.layernorm(x, vector[:3], vector)
    with pytest.raises(ValueError, match="bias"):
        ops.layernorm(x, vector, None)
    with pytest.raises(TypeError, match="weight"):
        ops.layernorm(x, vector.astype(np.float16), vector)
    with pytest.raises(ValueError, match="act"):
        ops.layernorm(x, vector, vector, act="silu")

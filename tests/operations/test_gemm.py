"""gemm: y = act(x W^T + bias) * scale + residual."""

import numpy as np
import pytest
import torch

from .support import assert_close, assert_same, decode, encode, generator, naive, ops, random
from .tolerances import ARITHMETIC, ROUNDING

ACTS = {
    "none": lambda x: x,
    "gelu": lambda x: torch.nn.functional.gelu(torch.from_numpy(x)).numpy(),
    "gelu_tanh": lambda x: torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy(),
    "relu": lambda x: np.maximum(x, 0),
}

TOKENS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 47, 48, 49, 95, 96, 97]
# (segments, tokens, n, k)
SHAPES = [(1 + i % 3, t, (i * 5) % 19 + 1, (i * 7) % 23 + 1) for i, t in enumerate(TOKENS)] + [
    (1, 48, 8, 1),
    (1, 49, 9, 2),
    (2, 17, 16, 3),
    (1, 50, 33, 575),
    (1, 33, 24, 576),
    (1, 49, 25, 577),
    (1, 16, 40, 1153),
    (1, 97, 72, 1152),
    (1, 10, 17, 2310),
    (1, 5, 700, 40),
    (2, 20, 1291, 18),
]


def exact(x, weight, bias=None, act="none", scale=None, residual=None):
    """The float64 result and the sum of the absolute products."""
    y = x @ weight.T + (0 if bias is None else bias)
    magnitude = np.abs(x) @ np.abs(weight).T + (0 if bias is None else np.abs(bias))
    if act.startswith("gelu"):
        magnitude = magnitude + np.maximum(1, np.abs(y))
    y = ACTS[act](y)
    if scale is not None:
        y, magnitude = y * scale, magnitude * np.abs(scale)
    if residual is not None:
        y, magnitude = y + residual, magnitude + np.abs(residual)
    return y, magnitude


def second_rounding(x, weight, bias, act, scale, dtype, level):
    """What CUDA's rounding of a 16-bit product before its activation or scale adds to the magnitude (backend.h)."""
    if level != "cuda" or dtype == "float32" or (act == "none" and scale is None):
        return 0
    steepest = 1.13 if act.startswith("gelu") else 1  # of the activation
    product = np.abs(x @ weight.T + (0 if bias is None else bias))
    return steepest * product * (1 if scale is None else np.abs(scale)) * ROUNDING[dtype] / ARITHMETIC["gemm"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_plain(shape, dtype, level):
    segments, tokens, n, k = shape
    x, x64 = random((segments, tokens, k), dtype, "x")
    weight, weight64 = random((n, k), dtype, "weight")
    want, magnitude = exact(x64, weight64)
    got = ops.gemm(x, weight, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "gemm", dtype)
    if level != "naive":
        against = naive("gemm", x, weight, dtype=dtype)
        assert_close(got, decode(against, dtype), magnitude, "gemm", dtype, times=2, what="against naive")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("parts", ["", "b", "s", "r", "bs", "br", "bsr"])
def test_epilogue(act, parts, dtype, level):
    for segments, tokens, n, k in [(2, 53, 19, 31), (1, 48, 24, 40)]:
        x, x64 = random((segments, tokens, k), dtype, "x")
        weight, weight64 = random((n, k), dtype, "weight", scale=0.5)
        arrays, values = {}, {}
        if "b" in parts:
            arrays["bias"], values["bias"] = random((n,), dtype, "bias")
        if "s" in parts:
            arrays["scale"], values["scale"] = random((n,), dtype, "scale")
        if "r" in parts:
            arrays["residual"], values["residual"] = random((segments, tokens, n), dtype, "residual", scale=3)
        want, magnitude = exact(x64, weight64, act=act, **values)
        magnitude = magnitude + second_rounding(
            x64, weight64, values.get("bias"), act, values.get("scale"), dtype, level
        )
        got = ops.gemm(x, weight, act=act, dtype=dtype, level=level, **arrays)
        assert_close(got, want, magnitude, "gemm", dtype)
        if "r" in parts:
            assert_same(
                ops.gemm(x, weight, act=act, dtype=dtype, level=level, in_place=True, **arrays), got, "in place"
            )


@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu"])
def test_activation_over_its_range(act, level):
    """The activation alone, through a 1 x 1 product: tails, zero, and the largest values."""
    x = np.concatenate([np.linspace(-16, 16, 4801), [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38]])
    x = x.astype(np.float32).reshape(1, -1, 1)
    got = ops.gemm(x, np.ones((1, 1), np.float32), act=act, level=level)
    x64 = x.astype(np.float64)
    want = ACTS[act](x64)
    assert_close(got, want, np.maximum(1, np.abs(x64)) / 2, "gemm", "float32")
    assert np.isfinite(got).all()


@pytest.mark.parametrize("shape", [(1, 3, 5, 1), (2, 49, 24, 40), (1, 10, 33, 577), (1, 48, 8, 7)], ids=str)
def test_transposed(shape, dtype, level):
    segments, tokens, n, k = shape
    x, x64 = random((segments, tokens, k), dtype, "x")
    weight, weight64 = random((k, n), dtype, "weight")
    want, magnitude = exact(x64, weight64.T)
    got = ops.gemm(x, weight, transposed=True, dtype=dtype, level=level)
    assert_close(got, want, magnitude, "gemm", dtype)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("gap", [1, 2, 8])
def test_rows_of_weights_apart(gap, transposed, dtype, level):
    """The memory between the rows has NaN. The operation must not read after the last row."""
    for n, k in [(11, 6), (16, 7), (9, 64)]:
        shape = (k, n) if transposed else (n, k)
        wide = np.full((shape[0], shape[1] + gap), np.nan, np.float32)
        wide[:, : shape[1]] = generator(shape, gap).normal(size=shape)
        weight = encode(wide, dtype)[:, : shape[1]]
        x, x64 = random((1, 50, k), dtype, "x")
        weight64 = decode(np.ascontiguousarray(weight), dtype)
        want, magnitude = exact(x64, weight64.T if transposed else weight64)
        got = ops.gemm(x, weight, transposed=transposed, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "gemm", dtype, what=f"{n} x {k}")


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_weights_at_any_element(offset, dtype, level):
    """Views into a file's bytes need not lie at a multiple of 4, 16 or 64 bytes."""
    for n, k in [(17, 24), (8, 33)]:
        pool, pool64 = random((n * k + 2 * n + 32,), dtype, "pool")
        view, view64 = (a[offset : offset + n * k].reshape(n, k) for a in (pool, pool64))
        bias, bias64 = (a[offset + n * k : offset + n * k + n] for a in (pool, pool64))
        x, x64 = random((1, 49, k), dtype, "x")
        want, magnitude = exact(x64, view64, bias64)
        got = ops.gemm(x, view, bias, dtype=dtype, level=level)
        assert_close(got, want, magnitude, "gemm", dtype)


def test_values(dtype, level):
    """Outputs in the layout of attention values hold the same numbers."""
    for tokens, n, values_from, out_channel in [
        (5, 24, 16, 0),
        (48, 16, 0, 0),
        (97, 48, 32, 0),
        (49, 32, 16, 8),
        (50, 21, 8, 2),
    ]:
        x, _ = random((2, tokens, 20), dtype, "x")
        weight, _ = random((n, 20), dtype, "weight")
        bias, _ = random((n,), dtype, "bias")
        plain = ops.gemm(x, weight, bias, dtype=dtype, level=level)
        got = ops.gemm(
            x,
            weight,
            bias,
            values_from=values_from,
            out_channel=out_channel,
            dtype=dtype,
            level=level,
            into=encode(np.zeros((2, tokens, out_channel + n)), dtype),
        )
        assert_same(np.ascontiguousarray(got[:, :, out_channel:]), plain, f"values from {values_from}")


def test_into_channels(dtype, level):
    """Other channels of the destination are unchanged."""
    for tokens, n, channel, width in [(50, 6, 4, 16), (48, 5, 2, 7), (3, 8, 8, 24), (97, 7, 0, 20)]:
        x, _ = random((2, tokens, 12), dtype, "x")
        weight, _ = random((n, 12), dtype, "weight")
        into, _ = random((2, tokens, width), dtype, "into")
        got = ops.gemm(x, weight, into=into, out_channel=channel, dtype=dtype, level=level)
        plain = ops.gemm(x, weight, dtype=dtype, level=level)
        if n % 2 == 0:
            assert_same(
                np.delete(got, np.s_[channel : channel + n], 2), np.delete(into, np.s_[channel : channel + n], 2)
            )
        else:
            assert_same(got[:, :, :channel], into[:, :, :channel])
        assert_same(np.ascontiguousarray(got[:, :, channel : channel + n]), plain)


def test_large_values_overflow_to_infinity(level):
    x = np.full((1, 2, 16), 200.0, np.float16)
    weight = np.stack([np.full(16, 100.0), np.full(16, -100.0), np.full(16, 1.0)]).astype(np.float16)
    got = ops.gemm(x, weight, dtype="float16", level=level)
    assert_same(got, np.broadcast_to(np.array([np.inf, -np.inf, 3200], np.float16), (1, 2, 3)).copy())


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_with_their_token(special, dtype, level):
    x, x64 = random((2, 51, 24), dtype, "x")
    x64[1, 7, 5] = special
    x = encode(x64, dtype)
    weight, weight64 = random((10, 24), dtype, "weight")
    for act in ACTS:
        got = decode(ops.gemm(x, weight, act=act, dtype=dtype, level=level), dtype)
        with np.errstate(invalid="ignore"):
            want, _ = exact(x64, weight64, act=act)
        touched = np.zeros(want.shape, bool)
        touched[1, 7] = True
        assert np.isfinite(got[~touched]).all()
        # GELU's tail at -Inf is 0 or NaN (-Inf * 0), as an implementation has it.
        sure = np.ones(10, bool) if not act.startswith("gelu") else ~(weight64[:, 5] * special < 0)
        assert np.array_equal(np.isnan(got[1, 7][sure]), np.isnan(want[1, 7][sure]))
        assert np.array_equal(got[1, 7][sure & ~np.isnan(want[1, 7])], want[1, 7][sure & ~np.isnan(want[1, 7])])


def test_same_bits(dtype, level):
    """The bits are equal in a second run, for any number of threads, and for each segment alone."""
    x, _ = random((3, 61, 40), dtype, "x")
    weight, _ = random((50, 40), dtype, "weight")
    bias, _ = random((50,), dtype, "bias")

    def run(x, threads=1):
        return ops.gemm(x, weight, bias, act="gelu", dtype=dtype, level=level, threads=threads)

    whole = run(x)
    assert_same(run(x), whole, "again")
    for threads in (2, 3, 7):
        assert_same(run(x, threads), whole, f"{threads} threads")
    for s in range(3):
        assert_same(run(x[s : s + 1]), whole[s : s + 1], f"segment {s}")


def test_bad_arguments():
    x, weight = np.zeros((1, 2, 4), np.float32), np.zeros((3, 4), np.float32)
    for error, words, arguments in [
        (TypeError, "x", (x.astype(np.float64), weight)),
        (TypeError, "x", (x.tolist(), weight)),
        (ValueError, "x", (x[0], weight)),
        (ValueError, "x", (x[:0], weight)),
        (TypeError, "weight", (x, weight.astype(np.float16))),
        (ValueError, "weight", (x, weight[:, :3])),
        (ValueError, "bias", (x, weight, np.zeros(4, np.float32))),
    ]:
        with pytest.raises(error, match=words):
            ops.gemm(*arguments)
    for words, keywords in [
        ("act", {"act": "swish"}),
        ("dtype", {"dtype": "float64"}),
        ("level", {"level": "avx1024"}),
        ("threads", {"threads": -1}),
        ("out_channel", {"out_channel": 1}),
        ("values_from", {"values_from": 2}),
        ("residual", {"residual": np.zeros((1, 3, 3), np.float32)}),
        ("into", {"into": x[:, :1]}),
        ("in_place", {"in_place": True}),
    ]:
        with pytest.raises(ValueError, match=words):
            ops.gemm(x, weight, **keywords)

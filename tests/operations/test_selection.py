"""From features to probabilities at each scale: op_cosine, op_max_pool, op_probability, op_expand, op_gt_mask."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from .support import TORCH, assert_close, assert_same, decode, encode, from_torch, generator, naive, ops, random

# ---- cosine


@pytest.mark.parametrize(
    "segments, tokens, channels", [(1, 1, 1), (2, 5, 3), (1, 48, 16), (3, 49, 17), (2, 97, 577), (1, 9, 1152)]
)
def test_cosine(segments, tokens, channels, dtype, level):
    features, features64 = random((segments, tokens, channels), dtype, "features", scale=3)
    prompt, prompt64 = random((segments, channels), dtype, "prompt", scale=0.2)
    want = F.cosine_similarity(torch.from_numpy(features64), torch.from_numpy(prompt64)[:, None], dim=2).numpy()
    magnitude = (np.abs(features64) * np.abs(prompt64)[:, None]).sum(2)
    magnitude /= np.linalg.norm(features64, axis=2) * np.linalg.norm(prompt64, axis=1)[:, None]
    got = ops.cosine(features, prompt, dtype=dtype, level=level)
    assert got.dtype == np.float32
    check_float32(got, want, magnitude, "cosine")
    against = naive("cosine", features, prompt, dtype=dtype)
    check_float32(got, against.astype(np.float64), 2 * magnitude, "cosine")
    one = np.broadcast_to(prompt[:1], prompt.shape)
    want = ops.cosine(features, np.ascontiguousarray(one), dtype=dtype, level=level)
    assert_same(ops.cosine(features, one, dtype=dtype, level=level), want, "one prompt for all")
    apart = np.repeat(prompt[:, None], 3, axis=1)[:, 1]
    assert_same(ops.cosine(features, apart, dtype=dtype, level=level), got, "prompts apart")
    assert_same(ops.cosine(features, prompt, dtype=dtype, level=level, threads=2), got, "2 threads")
    for s in range(segments):
        alone = ops.cosine(features[s : s + 1], prompt[s : s + 1], dtype=dtype, level=level)
        assert_same(alone, got[s : s + 1], f"segment {s}")


def check_float32(got, want, magnitude, operation):
    assert_close(got, want, magnitude, operation, "float32")


def test_cosine_of_nothing(dtype, level):
    """A zero vector has cosine 0 with everything; NaN stays NaN."""
    features64 = np.ones((1, 3, 4))
    features64[0, 0] = 0
    features64[0, 1, 2] = np.nan
    features, prompt = encode(features64, dtype), encode(np.ones((1, 4)), dtype)
    got = ops.cosine(features, prompt, dtype=dtype, level=level)
    np.testing.assert_allclose(got, [[0, np.nan, 1]], rtol=1e-6)
    got = ops.cosine(features[:, 2:].copy(), encode(np.zeros((1, 4)), dtype), dtype=dtype, level=level)
    assert np.array_equal(got, [[0]])


def test_cosine_of_equal_rows_is_equal(dtype, level):
    """Ties of probability must be ties here, wherever the token lies in a panel."""
    row, _ = random((1, 1, 100), dtype, "row")
    prompt, _ = random((1, 100), dtype, "prompt")
    got = ops.cosine(np.repeat(row, 97, axis=1), prompt, dtype=dtype, level=level)
    assert np.unique(got).size == 1


# ---- max pool


@pytest.mark.parametrize(
    "size, out",
    [
        ((54, 54), (27, 27)),
        ((54, 54), (27, 16)),
        ((54, 54), (5, 7)),
        ((3, 5), (7, 9)),
        ((1, 1), (4, 4)),
        ((13, 1), (3, 1)),
    ],
)
def test_max_pool(size, out, level):
    x = generator(size, out).normal(size=(2, *size)).astype(np.float32)
    got = ops.max_pool(x, *out, level=level)
    assert_same(got, F.adaptive_max_pool2d(torch.from_numpy(x), out).numpy())
    assert_same(ops.max_pool(x, *out, level=level, threads=2), got)
    x[0, 0, 0], x[1, -1, -1] = np.nan, -np.inf
    got = ops.max_pool(x, *out, level=level)
    want = F.adaptive_max_pool2d(torch.from_numpy(x), out).numpy()
    assert np.array_equal(got, want, equal_nan=True)


# ---- probability


def test_probability(dtype, level):
    x = np.concatenate([np.linspace(-3, 3, 999), [0.0, -2.0, 2.0, 1e-8, 1e30, -1e30, np.inf, -np.inf]]).astype(
        np.float32
    )
    highres = generator("highres").normal(size=x.size).astype(np.float32)
    highres[-4:] = 0
    for argument in (None, highres):
        logit = x.astype(np.float64) if argument is None else (x.astype(np.float64) + argument) / 2
        want = 1 / (1 + np.exp(-np.clip(5 * logit, -10, 10)))
        got = ops.probability(x, argument, dtype=dtype, level=level)
        assert_same(got, decode(encode(got, dtype), dtype).astype(np.float32), "values of the dtype")
        assert_close(encode(got, dtype), want, want, "probability", dtype)
        assert_same(ops.probability(x, argument, dtype=dtype, level=level, threads=2), got)


def test_probability_of_nan_is_nan(dtype, level):
    x = np.array([0, np.nan, 1], np.float32)
    assert np.array_equal(np.isnan(ops.probability(x, dtype=dtype, level=level)), [False, True, False])
    got = ops.probability(np.zeros(3, np.float32), x, dtype=dtype, level=level)
    assert np.array_equal(np.isnan(got), [False, True, False])


def test_equal_logits_have_equal_probabilities(dtype, level):
    got = ops.probability(np.full(197, 0.137, np.float32), dtype=dtype, level=level)
    assert np.unique(got).size == 1


# ---- expand, ground truth

GRIDS = [
    ((27, 27), (54, 54)),
    ((27, 27), (108, 54)),
    ((27, 16), (54, 33)),
    ((5, 7), (5, 7)),
    ((3, 4), (2, 9)),
    ((27, 27), (270, 160)),
    ((1, 1), (1, 1)),
    ((8, 8), (6, 6)),
]

GT_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}


def nearest(x, size):
    return F.interpolate(x.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).to(x.dtype)


def area(x, size):
    return F.interpolate(x.unsqueeze(1).float(), size=size, mode="area").squeeze(1).to(x.dtype)


def expand(probs, out, dtype, gt=None, first=None, smooth=False):
    """probs: float32 (B, h, w); gt: a torch tensor."""
    probs = nearest(torch.from_numpy(probs), out).to(TORCH[dtype])
    if gt is not None:
        gt = nearest(area(gt, first), out)
        probs = torch.where(gt > 0, torch.ones_like(probs), torch.where(gt <= 0, probs, probs * 0))
    if smooth:
        probs = nearest(area(probs, (6, 6)), out)
    return from_torch(probs, dtype)


def probabilities(shape, dtype):
    return decode(encode(generator(shape, "p").uniform(size=shape), dtype), dtype).astype(np.float32)


@pytest.mark.parametrize("size, out", GRIDS, ids=str)
def test_expand(size, out, dtype, level):
    probs = probabilities((3, *size), dtype)
    got = ops.expand(probs, *out, dtype=dtype, level=level)
    assert_same(got, expand(probs, out, dtype))
    assert_same(ops.expand(probs, *out, dtype=dtype, level=level, threads=2), got)
    assert_same(ops.expand(probs[1:2], *out, dtype=dtype, level=level), got[1:2])


@pytest.mark.parametrize("size, out", GRIDS, ids=str)
def test_smoothing(size, out, dtype, level):
    """Ties depend on these bits, so they are torch's own."""
    probs = probabilities((2, *size), dtype)
    got = ops.expand(probs, *out, smooth=True, dtype=dtype, level=level)
    assert_same(got, expand(probs, out, dtype, smooth=True))


def ground_truth(kind, shape):
    """A few soft blobs: zero, small, and large areas, negatives where the dtype has them."""
    values = generator(shape, kind).normal(size=shape) * 3 * (generator(shape, kind, 1).uniform(size=shape) > 0.7)
    values[:, shape[1] // 2 :] = 0
    return torch.from_numpy(values.clip(0) if kind == "uint8" else values).to(GT_DTYPES[kind])


def as_numpy(tensor, kind):
    return from_torch(tensor, kind) if kind == "bfloat16" else tensor.numpy()


@pytest.mark.parametrize("kind", GT_DTYPES)
@pytest.mark.parametrize("shape", [(2, 54, 54), (2, 101, 67), (2, 7, 5), (2, 1, 1)], ids=str)
def test_ground_truth(kind, shape, level):
    dtype = "float32"
    gt = ground_truth(kind, shape)
    probs = probabilities((2, 9, 9), dtype)
    for first, out in [((18, 18), (18, 18)), ((18, 18), (36, 36)), ((18, 11), (54, 33))]:
        got = ops.expand(
            probs, *out, gt=as_numpy(gt, kind), gt_rows=first[0], gt_cols=first[1], dtype=dtype, level=level
        )
        assert_same(got, expand(probs, out, dtype, gt, first), f"{first} {out}")
    got = ops.expand(
        probs, 36, 36, gt=as_numpy(gt, kind), gt_rows=18, gt_cols=18, smooth=True, dtype=dtype, level=level
    )
    assert_same(got, expand(probs, (36, 36), dtype, gt, (18, 18), smooth=True), "smooth")


def test_ground_truth_of_any_strides(dtype, level):
    probs = probabilities((2, 4, 4), dtype)
    gt = ground_truth("float32", (2, 30, 40)).numpy()
    for view in (gt.transpose(0, 2, 1), gt[:, ::-1, 3:-4], np.broadcast_to(gt[:1], gt.shape), gt[:, ::2, ::3]):
        got = ops.expand(probs, 16, 16, gt=view, gt_rows=8, gt_cols=8, dtype=dtype, level=level)
        whole = np.ascontiguousarray(view)
        want = ops.expand(probs, 16, 16, gt=whole, gt_rows=8, gt_cols=8, dtype=dtype, level=level)
        assert_same(got, want)
        assert_same(want, expand(probs, (16, 16), dtype, torch.from_numpy(whole), (8, 8)))


def test_nan_in_probabilities_and_ground_truth(dtype, level):
    """The reference multiplies: NaN probabilities stay NaN but in the ground truth's patches they do too."""
    probs = probabilities((1, 4, 4), dtype)
    probs[0, 1, 2] = np.nan
    got = decode(ops.expand(probs, 8, 8, dtype=dtype, level=level), dtype)
    want = np.zeros((1, 8, 8), bool)
    want[0, 2:4, 4:6] = True
    assert np.array_equal(np.isnan(got), want)
    gt = np.zeros((1, 8, 8), np.float32)
    gt[0, 0, 0] = np.nan
    probs = probabilities((1, 4, 4), dtype)
    got = decode(ops.expand(probs, 8, 8, gt=gt, gt_rows=8, gt_cols=8, dtype=dtype, level=level), dtype)
    assert got[0, 0, 0] == 0 and np.array_equal(got[0, 1:], decode(expand(probs, (8, 8), dtype), dtype)[0, 1:])


@pytest.mark.parametrize("kind", GT_DTYPES)
def test_gt_mask(kind, level):
    scales = [(18, 18, 18, 18), (36, 20, 36, 20), (3, 5, 3, 5)]
    counts = [rows * cols for _, _, rows, cols in scales]
    gt = ground_truth(kind, (3, 45, 50))
    gt[1] = 0
    flat = (
        torch.cat([area(gt, (rows, cols)).reshape(3, -1) for _, _, rows, cols in scales], 1).numpy(force=True)
        if kind != "bfloat16"
        else torch.cat([area(gt, s[2:]).float().reshape(3, -1) for s in scales], 1).numpy()
    )
    positions = generator(kind).integers(0, sum(counts), (3, 60)).astype(np.int32)
    want = (np.take_along_axis(flat, positions.astype(np.int64), 1) != 0).astype(np.uint8)
    want[~want.any(axis=1)] = 1
    got = ops.gt_mask(as_numpy(gt, kind), scales, positions, level=level)
    assert_same(got, want)
    assert want[1].all() and (want[0] == 0).any() and (want[0] == 1).any()
    assert_same(ops.gt_mask(as_numpy(gt[2:], kind), scales, positions[2:], level=level), want[2:])


def test_bad_arguments():
    x = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="prompt"):
        ops.cosine(x, np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="rows"):
        ops.max_pool(x, 0, 1)
    with pytest.raises(TypeError, match="logits"):
        ops.probability(np.zeros(3))
    with pytest.raises(ValueError, match="highres"):
        ops.probability(np.zeros(3, np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="gt"):
        ops.expand(x, 2, 3, gt=np.zeros((2, 2, 3), np.float32))
    with pytest.raises(TypeError, match="gt"):
        ops.expand(x, 2, 3, gt=np.zeros((1, 2, 3), np.complex64))
    with pytest.raises(ValueError, match="positions"):
        ops.gt_mask(x, [(2, 3, 2, 3)], np.array([[6]], np.int32))

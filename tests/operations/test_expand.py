"""expand: low-res probabilities to the grid of one scale, with ground truth and smoothing. Bits are torch's."""

import numpy as np
import pytest
import torch

from .maps import GT_DTYPES, area, as_numpy, ground_truth, nearest
from .support import TORCH, assert_same, decode, encode, from_torch, generator, ops

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


def test_bad_arguments():
    x = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="gt"):
        ops.expand(x, 2, 3, gt=np.zeros((2, 2, 3), np.float32))
    with pytest.raises(TypeError, match="gt"):
        ops.expand(x, 2, 3, gt=np.zeros((1, 2, 3), np.complex64))

"""gt_mask: the tokens whose patch has ground truth."""

import numpy as np
import pytest
import torch

from .maps import GT_DTYPES, area, as_numpy, ground_truth
from .support import assert_same, generator, ops


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
    with pytest.raises(ValueError, match="positions"):
        ops.gt_mask(x, [(2, 3, 2, 3)], np.array([[6]], np.int32))

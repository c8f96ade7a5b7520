"""max_pool: torch's adaptive_max_pool2d."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from .support import assert_same, generator, ops


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


def test_bad_arguments():
    x = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="rows"):
        ops.max_pool(x, 0, 1)

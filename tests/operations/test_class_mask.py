"""class_mask: the keys that a text's class token may see."""

import numpy as np
import pytest

from .support import assert_same, generator, ops


def test_class_mask(level):
    """Index 0, and i where ids[i - 1] is not the padding: as the reference's mask, shifted by one."""
    ids = generator("mask").integers(0, 3, (4, 9))
    for pad in (0, 2, -1):
        want = np.concatenate([np.ones((4, 1)), ids != pad], 1).astype(np.uint8)
        assert_same(ops.class_mask(ids, pad, level=level), want)
        assert_same(ops.class_mask(ids, pad, first=1, segments=2, level=level), want[1:3])
        assert_same(ops.class_mask(ids.T.copy().T, pad, level=level), want)


def test_bad_arguments():
    ids = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="first"):
        ops.class_mask(ids, 0, first=-1)

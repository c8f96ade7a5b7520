"""token_embedding: rows of the vocabulary's table, plus positions."""

import numpy as np
import pytest

from .support import assert_same, encode, generator, ops, random


@pytest.mark.parametrize("batch, length, channels", [(1, 1, 1), (2, 7, 5), (3, 48, 16), (1, 49, 33), (2, 64, 72)])
@pytest.mark.parametrize("class_token", [False, True])
def test_token_embedding(batch, length, channels, class_token, dtype, level):
    table, table64 = random((50, channels), dtype, "table")
    positions, positions64 = random((length + 3, channels), dtype, "positions")
    token, token64 = random((channels,), dtype, "class")
    ids = generator(batch, length).integers(0, 50, (batch, length))
    ids[0, 0], ids[-1, -1] = 0, 49
    rows = table64[ids]
    if class_token:
        rows = np.concatenate([rows, np.broadcast_to(token64, (batch, 1, channels))], 1)
    want = encode((rows + positions64[: rows.shape[1]]).astype(np.float32), dtype)
    keywords = {"class_token": token if class_token else None, "dtype": dtype, "level": level}
    got = ops.token_embedding(ids, table, positions, **keywords)
    assert_same(got, want)
    assert_same(ops.token_embedding(ids, table, positions, threads=2, **keywords), want)
    for first in range(batch):
        some = ops.token_embedding(ids, table, positions, first=first, segments=1, **keywords)
        assert_same(some, want[first : first + 1])
    wide = np.repeat(np.repeat(ids, 2, 0), 3, 1)[::2, 1::3]
    assert_same(ops.token_embedding(wide, table, positions, **keywords), want, "strided")
    flipped = ops.token_embedding(ids[::-1, ::-1], table, positions, **keywords)
    assert_same(flipped, ops.token_embedding(ids[::-1, ::-1].copy(), table, positions, **keywords), "mirrored")


@pytest.mark.parametrize("bad", [-1, 50, 2**40, -(2**63), 2**63 - 1])
def test_ids_outside_the_vocabulary(bad, level):
    table, positions = np.zeros((50, 4), np.float32), np.zeros((8, 4), np.float32)
    ids = np.ones((2, 6), np.int64)
    ids[1, 4] = bad
    if level == "cuda":  # to say so would mean waiting for the device: the row is NaN
        got = ops.token_embedding(ids, table, positions, level=level)
        assert np.isnan(got[1, 4]).all() and np.isnan(got).sum() == 4
        return
    with pytest.raises(ValueError, match=str(bad)):
        ops.token_embedding(ids, table, positions, level=level)
    assert ops.token_embedding(ids, table, positions, segments=1, level=level).shape == (1, 6, 4)


def test_bad_arguments():
    ids, table = np.zeros((2, 3), np.int64), np.zeros((5, 4), np.float32)
    for error, words, call in [
        (TypeError, "ids", lambda: ops.token_embedding(ids.astype(np.int32), table, table)),
        (ValueError, "ids", lambda: ops.token_embedding(ids[0], table, table)),
        (ValueError, "positions", lambda: ops.token_embedding(ids, table, table[:2])),
        (ValueError, "first", lambda: ops.token_embedding(ids, table, table, first=2)),
        (
            ValueError,
            "class_token",
            lambda: ops.token_embedding(ids, table, table, class_token=np.zeros(3, np.float32)),
        ),
    ]:
        with pytest.raises(error, match=words):
            call()

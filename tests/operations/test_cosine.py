"""cosine: of each token's features with its image's prompt."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from .support import assert_close, assert_same, encode, naive, ops, random


def check_float32(got, want, magnitude, operation):
    assert_close(got, want, magnitude, operation, "float32")


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
    """Equal features have equal cosines, at any position of the token in a panel."""
    row, _ = random((1, 1, 100), dtype, "row")
    prompt, _ = random((1, 100), dtype, "prompt")
    got = ops.cosine(np.repeat(row, 97, axis=1), prompt, dtype=dtype, level=level)
    assert np.unique(got).size == 1


def test_bad_arguments():
    x = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="prompt"):
        ops.cosine(x, np.zeros((1, 2), np.float32))

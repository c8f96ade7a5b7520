"""probability: selection probabilities of logits."""

import numpy as np
import pytest

from .support import assert_close, assert_same, decode, encode, generator, ops


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


def test_bad_arguments():
    with pytest.raises(TypeError, match="logits"):
        ops.probability(np.zeros(3))
    with pytest.raises(ValueError, match="highres"):
        ops.probability(np.zeros(3, np.float32), np.zeros(2, np.float32))

"""assign_looks, compared with the reference's method: repeated top-k, without the patches already selected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .support import DTYPES, LEVELS, assert_same, encode, generator, ops


def simulate(probs, grids, quotas):
    """probs: [scale] (B, rows, cols); quotas: (B, scales, looks) patches. Returns positions, row_of, maps.

    Each look takes its quota's greatest probabilities among the patches still free, the lowest index first among
    equals, and lists them scale after scale in row-major order.
    """
    batch, num_scales, looks = quotas.shape
    first = np.concatenate([[0], np.cumsum([rows * cols for rows, cols in grids])])
    positions = [[] for _ in range(looks)]
    maps = [np.zeros(p.shape) for p in probs]
    for b in range(batch):
        free = [np.ones(rows * cols, bool) for rows, cols in grids]
        for look in range(looks):
            taken = []
            for i in range(num_scales):
                values = np.where(free[i], probs[i][b].reshape(-1), -1.0)
                best = np.argsort(-values, kind="stable")[: quotas[b, i, look]]
                free[i][best] = False
                maps[i][b].reshape(-1)[best] = 1
                taken.extend(first[i] + np.sort(best))
            positions[look].append(taken)
    row_of = [[] for _ in range(looks)]
    for b in range(batch):
        selected = sorted(p for look in positions for p in look[b])
        for look in range(looks):
            row_of[look].append([selected.index(p) for p in positions[look][b]])
    shape = (batch, -1)
    return (
        [np.array(p, np.int32).reshape(shape) for p in positions],
        [np.array(r, np.int32).reshape(shape) for r in row_of],
        maps,
    )


def check(probs, grids, quotas, dtype, level, threads=1):
    rank = [ops.rank(p.astype(np.float32), level="naive") for p in probs]
    ends = np.cumsum(quotas, axis=2).astype(np.int32)
    scales = [(rows, cols, rows, cols) for rows, cols in grids]
    got = ops.assign_looks(rank, scales, ends, dtype=dtype, level=level, threads=threads)
    want = simulate(probs, grids, quotas)
    for name, g, w in zip(("positions", "row_of"), got, want):
        assert len(g) == len(w)
        for look in range(len(w)):
            assert_same(g[look], w[look], f"{name} of look {look}")
    for i, (g, w) in enumerate(zip(got[2], want[2])):
        assert_same(g, encode(w, dtype), f"map {i}")


def random_case(rng, batch, grids, looks, levels=5):
    """Quotas of equal sums for every image, and probabilities full of ties."""
    free = np.array([[rows * cols for rows, cols in grids]] * batch)
    quotas = np.zeros((batch, len(grids), looks), int)
    for look in range(looks):
        tokens = rng.integers(0, free.sum(axis=1).min() + 1) if look < looks - 1 else free.sum(axis=1).min()
        tokens = min(tokens, max(1, free.sum() // (2 * batch)))
        for b in range(batch):
            pool = np.repeat(np.arange(len(grids)), free[b])
            take = np.bincount(rng.choice(pool, tokens, replace=False), minlength=len(grids)) if tokens else 0
            quotas[b, :, look] = take
            free[b] -= take
    probs = [rng.integers(0, levels, (batch, rows, cols)) / levels for rows, cols in grids]
    return probs, quotas


@pytest.mark.parametrize(
    "batch, grids, looks",
    [
        (1, [(1, 1)], 1),
        (1, [(4, 4)], 3),
        (2, [(6, 6), (12, 12)], 2),
        (3, [(4, 3), (8, 6), (20, 15)], 4),
        (1, [(27, 27), (54, 54)], 2),
        (2, [(3, 9), (2, 2), (1, 7), (5, 5)], 6),
    ],
    ids=str,
)
def test_random(batch, grids, looks, dtype, level):
    probs, quotas = random_case(generator(batch, looks), batch, grids, looks)
    check(probs, grids, quotas, dtype, level)
    check(probs, grids, quotas, dtype, level, threads=2)


def test_everything_in_one_look(dtype, level):
    grids = [(3, 4), (6, 8)]
    probs, _ = random_case(generator("all"), 2, grids, 1)
    check(probs, grids, np.array([[[12], [48]]] * 2), dtype, level)


def test_looks_without_tokens(dtype, level):
    """Empty looks, and scales that a look leaves out."""
    grids = [(2, 2), (4, 4)]
    probs, _ = random_case(generator("empty"), 1, grids, 1)
    check(probs, grids, np.array([[[0, 4, 0, 0], [3, 0, 0, 5]]]), dtype, level)
    check(probs, grids, np.zeros((1, 2, 2), int), dtype, level)


def test_constant_probabilities_go_in_index_order(dtype, level):
    grids = [(4, 5)]
    check([np.full((2, 4, 5), 0.5)], grids, np.array([[[7, 7, 6]]] * 2), dtype, level)


def test_images_may_differ_in_their_quotas(dtype, level):
    grids = [(4, 4), (5, 5)]
    probs, _ = random_case(generator("differ"), 2, grids, 1)
    check(probs, grids, np.array([[[3, 5], [6, 2]], [[8, 1], [1, 6]]]), dtype, level)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_sizes(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    batch, looks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    grids = data.draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4))
    probs, quotas = random_case(np.random.default_rng(seed), batch, grids, looks, data.draw(st.integers(1, 6)))
    dtype = data.draw(st.sampled_from(DTYPES))
    for level in LEVELS:
        check(probs, grids, quotas, dtype, level)


def test_bad_arguments():
    scales = [(2, 2, 2, 2)]
    rank = [np.arange(4, dtype=np.int32)[None]]
    for words, arguments in [
        ("rank", ([rank[0] * 0], scales, np.array([[[4]]], np.int32))),
        ("rank", ([rank[0] + 1], scales, np.array([[[4]]], np.int32))),
        ("rank", ([], scales, np.array([[[4]]], np.int32))),
        ("ends", (rank, scales, np.array([[[5]]], np.int32))),
        ("ends", (rank, scales, np.array([[[3, 2]]], np.int32))),
        ("ends", ([np.repeat(rank[0], 2, 0)], scales, np.array([[[3]], [[2]]], np.int32))),
        ("scales", (rank, [(2, 2, 0, 2)], np.array([[[4]]], np.int32))),
    ]:
        with pytest.raises(ValueError, match=words):
            ops.assign_looks(*arguments)

"""gt_selection_maps of every dtype: one 0/1 map selects the same patches whatever its dtype."""

import models
import pytest
import torch

DTYPES = [torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def test_area_means_are_not_truncated():
    """Three of four cells of a patch, then one of four: both patches are inside."""
    maps = torch.zeros(1, 16, 16)
    maps[0, 0:2, 0:2] = torch.tensor([[1, 1], [1, 0]])
    maps[0, 8, 13] = 1
    model = models.ours("vision", "tiny")
    with torch.no_grad():
        expected = model(models.image(1, 128, 128), num_look_close=1, gt_selection_maps=maps)
        empty = model(models.image(1, 128, 128), num_look_close=1, gt_selection_maps=torch.zeros_like(maps))
        runs = [
            model(models.image(1, 128, 128), num_look_close=1, gt_selection_maps=maps.to(dtype)) for dtype in DTYPES
        ]
    assert any(not torch.equal(a, b) for a, b in zip(expected.selection_probs, empty.selection_probs, strict=True))
    for dtype, run in zip(DTYPES, runs, strict=True):
        for name in ("selection_probs", "selection_maps", "hidden_states"):
            pairs = zip(getattr(run, name), getattr(expected, name), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), (dtype, name)


def test_a_large_map():
    """Maps of more than 2^25 cells are read by one thread, which looks for signals meanwhile."""
    model = models.ours("vision", "tiny")
    small = torch.ones(1, 1, 1)
    with torch.no_grad():
        outputs = [
            model(models.image(1, 128, 128), num_look_close=1, gt_selection_maps=maps)
            for maps in (small.expand(1, 16, 16), small.expand(1, 8192, 8192))
        ]
    for one, other in zip(*(output.selection_probs for output in outputs), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(outputs[0].last_hidden_state, outputs[1].last_hidden_state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pooling_inside_the_map(dtype):
    """pool_gt_token_only: the tokens whose area mean is above 0, whatever the dtype."""
    maps = torch.zeros(2, 64, 64)
    maps[:, 10:31, 3:24] = 1
    encoder = models.ours("vision", "tiny").vision_model
    with torch.no_grad():
        runs = [
            encoder(models.image(2, 64, 64), None, one, pool_gt_token_only=True).pooled_output
            for one in (maps, maps.to(dtype))
        ]
    assert torch.equal(*runs)

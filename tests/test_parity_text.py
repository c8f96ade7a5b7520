"""PS3TextModel against ps3-torch, by the same measure as the vision model."""

import models
import pytest
import torch

HALVES = [torch.float16, torch.bfloat16]


def ids(batch: int, length: int, vocabulary: int = 97, padding: int = 0) -> torch.Tensor:
    """(batch, length) int64: sentences of several lengths, padded."""
    generator = torch.Generator().manual_seed(100 * batch + length)
    tokens = torch.randint(2, vocabulary, (batch, length), generator=generator)
    for row in range(batch):
        tokens[row, length - row % length :] = padding
    return tokens


def both(name, tokens, dtype=torch.float32, exact=False):
    with torch.no_grad():
        runs = [models.ours("text", name, dtype)(tokens), reference_run(models.theirs("text", name, dtype), tokens)]
        if exact:
            runs.append(reference_run(models.theirs("text", name, torch.float32, rounded=dtype), tokens))
    return runs


def reference_run(model, tokens):
    """The reference's output; without a class token its causal mask has to be cut to a short text by hand."""
    tower, length = model.text_model, tokens.shape[1]
    mask = tower.attn_mask
    try:
        if mask is not None and tower.cls_emb is None:
            tower.attn_mask = mask[:length, :length]
        return model(tokens)
    finally:
        tower.attn_mask = mask


@pytest.mark.parametrize("name", models.TEXT)
@pytest.mark.parametrize("batch, length", [(1, 12), (2, 12), (5, 12), (3, 5), (1, 1)])
def test_float32(name, batch, length):
    padding = models.text_config(name).get("pad_id", 0)
    ours, theirs = both(name, ids(batch, length, padding=padding))
    for field in ("pooled_output", "prompt"):
        mine, other = getattr(ours, field), getattr(theirs, field)
        assert mine.shape == other.shape and mine.dtype == other.dtype
        assert models.relative_error(mine, other) <= 5e-6, field


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", models.TEXT)
def test_half(name, dtype):
    # Many texts: the error of one small vector is too much a matter of luck for a ratio of 1.2.
    ours, theirs, exact = both(name, ids(96, 12, padding=models.text_config(name).get("pad_id", 0)), dtype, exact=True)
    for field in ("pooled_output", "prompt"):
        mine, other, truth = (getattr(run, field) for run in (ours, theirs, exact))
        assert mine.shape == other.shape and mine.dtype == other.dtype
        error, limit = models.relative_error(mine, truth), 1.2 * models.relative_error(other, truth)
        assert error <= limit, f"{field}: {error:.3e} > {limit:.3e}"


def test_repeated_largest_id():
    """pool_type="argmax" takes the first of equal largest ids."""
    tokens = torch.tensor([[5, 96, 3, 96, 2, 0], [1, 1, 1, 1, 1, 1]])
    ours, theirs = both("argmax", tokens)
    assert models.relative_error(ours.pooled_output, theirs.pooled_output) <= 5e-6


def test_prompt_drives_the_selection():
    """Text to prompt to top-down selection, all of it in each package."""
    text = models.TEXT_TINY
    assert text["prompt_proj_dim"] != 192  # so a projection of the right width stands in for the tower's own
    tokens = ids(2, 12)
    ours, theirs = both("siglip2", tokens)
    widen = torch.randn(40, 192, generator=torch.Generator().manual_seed(3))
    pixels = models.image(2, 96, 96)
    with torch.no_grad():
        mine = models.ours("vision", "tiny")(pixels, num_look_close=1, prompt=ours.prompt @ widen)
        other = models.theirs("vision", "tiny")(pixels, num_look_close=1, prompt=theirs.prompt @ widen)
    for a, b in zip(mine.selection_maps, other.selection_maps):
        assert torch.equal(a, b)
    assert models.relative_error(mine.last_hidden_state, other.last_hidden_state) <= 1e-5

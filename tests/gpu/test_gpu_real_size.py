"""PS3-4K-SigLIP2's shape on the GPU against ps3-torch on the same GPU, once in each dtype."""

import gc

import gpu_support
import models
import pytest
import reference
import test_real_size as real
import torch
from gpu_support import DEVICE, FLOAT32_ERROR, HALF_RATIO

SIZE = 16 << 30
pytestmark = [
    gpu_support.needs_gpu,
    pytest.mark.skipif(
        not gpu_support.missing() and torch.cuda.get_device_properties(0).total_memory < SIZE,
        reason="needs a GPU with 16 GB",
    ),
]


@pytest.fixture(scope="module")
def state():
    """The weights, float32, on the GPU."""
    import ps3c

    real.CONFIG["ps3_scales"] = [378, 756, 1512, 3780]
    try:
        drawn = models.random_weights(real.build(ps3c, None), seed=15)
        yield {name: tensor.to(DEVICE) for name, tensor in drawn.items()}
    finally:
        real.CONFIG["ps3_scales"] = [378, 756, 1512]


def build(package, state, dtype):
    model = real.build(package, None).to(DEVICE, dtype)
    model.load_state_dict(state)
    model.vision_model.num_hidden_layers_to_return = 2
    return model.eval().requires_grad_(False)


def run(package, state, dtype, arguments, probs=None, rounded=None):
    """The output on a model of its own, with the probabilities that it computed itself."""
    values = {name: tensor.to(rounded) for name, tensor in state.items()} if rounded else state
    model = build(package, values, dtype)
    pixels = models.image(1, 3780, 3780).to(DEVICE, rounded or dtype).to(dtype)
    words = models.prompt(1, 1152).to(DEVICE, rounded or dtype).to(dtype)
    if probs is not None:
        model.vision_model.forced_probs = probs
    with torch.no_grad():
        output = model(pixels, prompt=words, **arguments)
    if probs is not None:
        output.selection_probs = model.vision_model.own_probs[0]
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return output


@pytest.fixture(autouse=True)
def _true_float32():
    saved = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = saved


def test_float32(state):
    import ps3c

    arguments = dict(num_look_close=2)
    mine = run(ps3c, state, torch.float32, arguments)
    other = run(reference.load(), state, torch.float32, arguments, probs=mine.selection_probs)
    assert mine.last_hidden_state.shape == (1, 729 + 5120, 1152)
    for a, b in zip(mine.selection_maps, other.selection_maps, strict=True):
        assert torch.equal(a, b)
    for name in ("hidden_states", "selection_probs"):
        errors = [models.relative_error(a, b) for a, b in zip(getattr(mine, name), getattr(other, name), strict=True)]
        print(f"float32 {name}: {max(errors):.2e}")
        assert max(errors) <= FLOAT32_ERROR, name


@pytest.mark.parametrize("dtype", gpu_support.HALVES, ids=gpu_support.HALF_IDS)
def test_half(state, dtype):
    import ps3c

    arguments = dict(num_look_close=2)
    mine = run(ps3c, state, dtype, arguments)
    other = run(reference.load(), state, dtype, arguments, mine.selection_probs, rounded=dtype)
    truth = run(reference.load(), state, torch.float32, arguments, mine.selection_probs, rounded=dtype)
    for name in ("hidden_states", "selection_probs"):
        error, limit = (
            models.relative_error(getattr(one, name)[-1], getattr(truth, name)[-1]) for one in (mine, other)
        )
        print(f"{dtype} {name}: ps3c {error:.3e}, ps3-torch {limit:.3e}, ratio {error / limit:.3f}")
        assert error <= HALF_RATIO * limit, name


def test_no_product_was_refused(state):
    """cuBLASLt runs every matrix product of the published model. The plain kernel is only for other shapes."""
    import ps3c
    from ps3c import _core

    before = _core.cuda_refused_products()
    for dtype in (torch.float32, *gpu_support.HALVES):
        run(ps3c, state, dtype, dict(num_look_close=1))
    assert _core.cuda_refused_products() == before

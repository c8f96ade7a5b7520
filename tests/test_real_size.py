"""PS3-1.5K-SigLIP2's shape once against ps3-torch: `make real-size`. Minutes, and about 20 GB of memory."""

import gc
import os
import time

import models
import pytest
import reference
import torch

pytestmark = pytest.mark.skipif(
    os.environ.get("PS3C_REAL_SIZE") != "1", reason="takes minutes and 20 GB: PS3C_REAL_SIZE=1, or make real-size"
)

CONFIG = dict(
    model_name="vit_so400m_patch14_siglip_378",
    hidden_size=1152,
    pool="map",
    ps3_scales=[378, 756, 1512],
    select_based_on_layer=[0, 9, 18, 26],
    max_select_num=2560,
)


def build(package, state, dtype=torch.float32):
    """A model on `state`, cast to `dtype`; its constructor's own weights are not drawn."""
    # The reference's constructor needs a device (it reads numbers back); drawing weights is what takes long.
    draws = [
        name for name in ("trunc_normal_", "normal_", "uniform_", "kaiming_uniform_") if hasattr(torch.nn.init, name)
    ]
    saved = {name: getattr(torch.nn.init, name) for name in draws}
    for name in draws:
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        model = package.PS3VisionModel(package.PS3VisionConfig(**CONFIG))
    finally:
        for name, function in saved.items():
            setattr(torch.nn.init, name, function)
    if state is None:
        return model
    model.load_state_dict(state)
    model.vision_model.num_hidden_layers_to_return = 2
    return model.to(dtype).eval().requires_grad_(False)


def timed(what, model, *args, **kwargs):
    begin = time.perf_counter()
    with torch.no_grad():
        output = model(*args, **kwargs)
    print(f"{what}: {time.perf_counter() - begin:.1f} s")
    return output


def test_one_look():
    import ps3c

    theirs = reference.load()
    state = models.random_weights(build(ps3c, None), seed=15)
    pixels = models.image(1, 1512, 1512)
    arguments = dict(num_look_close=1, prompt=models.prompt(1, 1152))
    print()

    # float32
    model = build(ps3c, state)
    mine = timed("ps3c float32", model, pixels, **arguments)
    del model
    model = build(theirs, state)
    other = timed("ps3-torch float32", model, pixels, **arguments)
    del model
    gc.collect()
    different = sum(int((a != b).sum()) for a, b in zip(mine.selection_maps, other.selection_maps))
    errors = [models.relative_error(a, b) for a, b in zip(mine.hidden_states, other.hidden_states)]
    probs = [models.relative_error(a, b) for a, b in zip(mine.selection_probs, other.selection_probs)]
    print(
        f"float32: relative error {errors[-1]:.2e}, of probabilities {probs[0]:.2e}, "
        f"{different} patches chosen otherwise"
    )
    assert different == 0
    assert max(errors + probs) <= 5e-6

    # bfloat16: both on ps3c's selection, against float32 arithmetic on the rounded weights
    half = torch.bfloat16
    rounded = {name: tensor.to(half) for name, tensor in state.items()}
    del state, mine, other
    pixels, arguments["prompt"] = pixels.to(half), arguments["prompt"].to(half)
    model = build(ps3c, rounded, half)
    mine = timed("ps3c bfloat16", model, pixels, **arguments)
    del model
    outputs = {}
    for what, dtype in (("ps3-torch bfloat16", half), ("ps3-torch float32 on bfloat16 weights", torch.float32)):
        model = build(theirs, rounded, dtype)
        model.vision_model.forced_probs = mine.selection_probs
        outputs[dtype] = timed(what, model, pixels.to(dtype), num_look_close=1, prompt=arguments["prompt"].to(dtype))
        outputs[dtype].selection_probs = model.vision_model.own_probs[0]
        del model
        gc.collect()
    truth = outputs[torch.float32]
    for name in ("hidden_states", "selection_probs"):
        error, limit = (
            models.relative_error(getattr(run, name)[-1], getattr(truth, name)[-1]) for run in (mine, outputs[half])
        )
        print(f"bfloat16 {name}: ps3c {error:.3e}, ps3-torch {limit:.3e}, ratio {error / limit:.3f}")
        assert error <= 1.2 * limit

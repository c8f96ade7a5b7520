"""The whole CUDA backend against ps3-torch, on the CPU: kernels by tests/cuda_on_cpu, products by its stand-in for
cuBLASLt, the same cases and numbers as the CPU backend's parity tests.

Here a kernel takes about a hundred thousand times as long as on a GPU. Cases with large images or very many looks run
in the CPU backend's tests alone, and most models run without their convolution network, whose image has 1512 x 1512
pixels whatever the case's size; HIGHRES names the cases that have it.
"""

import dataclasses
import os

import emulated
import models
import pytest
import test_parity_text as text
import test_parity_vision as vision
import torch
from cases import FEATURES, PRETRAIN, by_model, case

pytestmark = [
    pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing()),
    pytest.mark.skipif("PS3C_ASAN" in os.environ, reason="the kernels' own tests run under sanitizers"),
]

MOST_PIXELS, MOST_LOOKS = 40000, 8
HIGHRES = [
    case("tiny", (1, 96, 96), num_look_close=1),
    case("deep_highres", (2, 64, 48), num_look_close=0, prompt=4),
    case("stride_28", (1, 60, 90), num_look_close=1, prompt=2),
    case("patch14", (1, 70, 50), num_look_close=2),
]


def without_highres(entry):
    """The case on its model without the convolution network."""
    name = f"{entry.model}+no_highres"
    models.VISION.setdefault(name, {**models.VISION[entry.model], "highres_selection_feature": False})
    copied = dataclasses.replace(entry, model=name)
    if id(entry) in vision.PRETRAIN_IDS:
        vision.PRETRAIN_IDS.add(id(copied))
    return copied


def is_small(entry):
    batch, height, width = entry.size
    if entry.model == "siglip":  # a trunk of 768 channels
        return False
    return batch * height * width <= MOST_PIXELS and "all" not in entry.args.values()


SMALL = [without_highres(entry) for entry in by_model(FEATURES) + by_model(PRETRAIN) if is_small(entry)]


@pytest.fixture(autouse=True)
def on_the_device():
    with emulated.device():
        yield


@pytest.mark.parametrize("entry", SMALL + HIGHRES, ids=str)
def test_float32(entry):
    vision.test_float32(entry)


@pytest.mark.parametrize("dtype", vision.HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("entry", [entry for entry in SMALL if entry.half] + HIGHRES[:1], ids=str)
def test_half(entry, dtype):
    vision.test_half(entry, dtype)


@pytest.mark.parametrize("name", models.TEXT)
def test_text_float32(name):
    text.test_float32(name, 3, 5)


@pytest.mark.parametrize("dtype", vision.HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", models.TEXT)
def test_text_half(name, dtype):
    text.test_half(name, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *vision.HALVES], ids=["float32", "float16", "bfloat16"])
def test_same_bits_whatever_the_grouping(dtype):
    """Looks and images one at a time, or together: workspace_limit changes nothing else."""
    model = models.ours("vision", "no_highres", dtype)
    pixels = models.image(3, 70, 96).to(dtype)
    runs = []
    try:
        for limit in (None, 1):
            model.vision_model.workspace_limit = limit
            with torch.no_grad():
                runs.append(model(pixels, num_look_close=3))
    finally:
        model.vision_model.workspace_limit = None
    for name, tensor in vision.tensors(runs[0]).items():
        assert torch.equal(tensor, vision.tensors(runs[1])[name]), name
    vision.assert_same_maps(*runs)


def test_weights_edited_and_replaced_are_honoured():
    model = models.ours("vision", "no_highres")
    pixels = models.image(1, 64, 64)
    with torch.no_grad():
        weight = model.vision_model.trunk.patch_embed.proj.weight
        before, kept = model(pixels, num_look_close=0).last_hidden_state, weight.clone()
        weight.mul_(0.5)
        edited = model(pixels, num_look_close=0).last_hidden_state
        weight.copy_(kept)
        again = model(pixels, num_look_close=0).last_hidden_state
    assert not torch.equal(edited, before) and torch.equal(again, before)

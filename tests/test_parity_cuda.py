"""The whole CUDA backend against ps3-torch, on the CPU: kernels by tests/cuda_on_cpu, products by its stand-in for
cuBLASLt, the same cases and numbers as the CPU backend's parity tests.

Cases whose images are large run in the CPU tests alone: here a kernel takes about a hundred thousand times as long.
"""

import copy
import os

import pytest
import torch

import emulated
import models
import test_parity_text as text
import test_parity_vision as vision
from cases import FEATURES, PRETRAIN, by_model

pytestmark = [
    pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing()),
    pytest.mark.skipif("PS3C_ASAN" in os.environ, reason="the kernels' own tests run under sanitizers"),
]

BOTH = by_model(FEATURES) + by_model(PRETRAIN)
MOST_PIXELS = 2 * 300 * 300


@pytest.fixture(autouse=True)
def on_the_device():
    with emulated.device():
        yield


def is_small(entry):
    batch, height, width = entry.size
    return batch * height * width <= MOST_PIXELS


@pytest.mark.parametrize("entry", [entry for entry in BOTH if is_small(entry)], ids=str)
def test_float32(entry):
    vision.test_float32(entry)


@pytest.mark.parametrize("dtype", vision.HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("entry", [entry for entry in BOTH if entry.half and is_small(entry)], ids=str)
def test_half(entry, dtype):
    vision.test_half(entry, dtype)

"""Nothing is kept that should not be: forwards of changing shapes, failing calls, models made and dropped."""

import gc
import os
from pathlib import Path

import models
import pytest
import torch

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")

# The sanitizers' allocator keeps freed memory for a while (its quarantine), so that use after free is seen.
ROUNDS = 1 if not os.environ.get("PS3C_ASAN") else 4  # a fourth of them
ALLOWED = 16 << 20 if not os.environ.get("PS3C_ASAN") else 400 << 20


def resident() -> int:
    """Bytes of memory in use by this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work, warm_up: int, rounds: int) -> int:
    """Bytes by which memory grows over `rounds` calls of work(index), after `warm_up` of them.

    The least of three: memory that other tests of this process have freed comes and goes in steps, and a leak stays.
    """
    for index in range(warm_up):
        work(index)
    grown = []
    while len(grown) < 3 and (not grown or min(grown) > ALLOWED // 4):
        before = resident()
        for index in range(rounds):
            work(index)
        grown.append(resident() - before)
    return min(grown)


def test_two_hundred_forwards_of_changing_shapes():
    def forward(index):
        model = models.ours("vision", "no_highres" if index % 8 else "tiny")
        model.vision_model.num_hidden_layers_to_return = 1 + index % 12
        batch, height, width = 1 + index % 3, 20 + index * 7 % 150, 20 + index * 13 % 170
        arguments = {"prompt": models.prompt(batch, 192)} if index % 2 else {"smooth_selection_prob": True}
        looks = {"num_token_look_close": 1 + index * 11 % 200} if index % 5 else {"num_look_close": "all"}
        with torch.no_grad():
            model(torch.zeros(batch, 3, height, width), **looks, **arguments)

    # Without a fault about 1 MiB; one plan's workspace left behind at each call would be hundreds.
    assert growth(forward, warm_up=60 // ROUNDS, rounds=200 // ROUNDS) < ALLOWED


def test_text_forwards():
    model = models.ours("text", "causal")

    def forward(index):
        with torch.no_grad():
            model(torch.ones(1 + index % 7, 1 + index % 12, dtype=torch.int64))

    assert growth(forward, warm_up=100 // ROUNDS, rounds=500 // ROUNDS) < ALLOWED // 2


def test_failing_calls():
    model, pixels = models.ours("vision", "tiny"), torch.zeros(1, 3, 40, 40)
    wrong = [
        (pixels, {}),
        (pixels, {"num_look_close": -1}),
        (pixels[0], {"num_look_close": 1}),
        (pixels, {"num_look_close": 1, "prompt": torch.zeros(1, 5)}),
        (pixels.half(), {"num_look_close": 1}),
        (pixels, {"num_look_close": 2, "num_token_look_close": 5}),
    ]

    def fail(index):
        image, arguments = wrong[index % len(wrong)]
        with pytest.raises((ValueError, TypeError)):
            model(image, **arguments)

    assert growth(fail, warm_up=100 // ROUNDS, rounds=1000 // ROUNDS) < ALLOWED // 2


def test_models_made_and_dropped():
    import ps3c

    def make(index):
        model = models.build(ps3c, "text", "one_layer")
        model(torch.ones(1, 1 + index % 12, dtype=torch.int64))

    assert growth(make, warm_up=20 // ROUNDS, rounds=100 // ROUNDS) < ALLOWED // 2

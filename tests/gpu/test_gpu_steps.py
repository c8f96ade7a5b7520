"""Stepwise passes on a GPU: the bits of forward, rows in the device's workspace, no synchronisation."""

import gpu_support
import models
import pytest
import torch
from gpu_support import DEVICE, EVERY, EVERY_IDS

pytestmark = gpu_support.needs_gpu


@pytest.mark.parametrize("dtype", EVERY, ids=EVERY_IDS)
@pytest.mark.parametrize("limit", [1, 1 << 30])
@pytest.mark.parametrize("looks_per_step", [0, 1])
def test_same_bits(looks_per_step, limit, dtype):
    encoder = gpu_support.new("vision", "tiny", dtype).vision_model
    encoder.workspace_limit = limit
    pixels = models.image(3, 96, 96).to(DEVICE, dtype)
    whole = encoder(pixels, output_hidden_states=True, num_look_close="all")
    steps = encoder.steps(pixels, num_look_close="all", pooled=True, looks_per_step=looks_per_step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        done = list(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name in ("hidden_states", "selection_maps", "selection_probs"):
        assert all(map(torch.equal, steps.outputs[name], whole[name])), name
    assert torch.equal(steps.outputs["pooled"], encoder.forward_low_res(pixels)["x"])
    seen = torch.zeros(whole.last_hidden_state.shape[:2], dtype=torch.int64, device=DEVICE)
    for step in done:
        for rows in step.rows:
            assert rows.is_cuda
            seen[list(step.images)] = seen[list(step.images)].scatter_add(1, rows, torch.ones_like(rows))
    low = steps.plan.low_res_tokens
    assert (seen[:, :low] == 0).all() and (seen[:, low:] == 1).all()

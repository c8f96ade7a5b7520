"""Runs every operation of the CUDA backend on tiny models. scripts/gpu_check.sh runs it under compute-sanitizer."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import models
import reference
import torch

reference.declare_torchvision_operators()

DEVICE = os.environ.get("PS3C_TINY_DEVICE", "cuda")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def vision(name: str, dtype: torch.dtype) -> None:
    model = models.build_ours("vision", name).to(DEVICE, dtype)
    pixels, width = models.image(2, 90, 70).to(DEVICE, dtype), model.vision_model.width
    prompt = models.prompt(2, width).to(DEVICE, dtype)
    maps = models.gt_maps(2, 9, 12, torch.float32).to(DEVICE)
    model(pixels, num_look_close=2, prompt=prompt, gt_selection_maps=maps, smooth_selection_prob=True)
    model(pixels[:1], num_look_close="all")
    model(pixels[:1].to(memory_format=torch.channels_last), num_token_look_close=7)
    flags = torch.tensor([[True], [False]], device=DEVICE)
    model(
        pixels,
        prompt=prompt,
        gt_selection_maps=maps,
        is_global_text=flags,
        pool_gt_token_only=True,
        output_hidden_states=False,
    )


def text(name: str, dtype: torch.dtype) -> None:
    model = models.build_ours("text", name).to(DEVICE, dtype)
    model(torch.randint(2, 97, (3, 12), generator=torch.Generator().manual_seed(0)).to(DEVICE))


def main() -> None:
    torch.set_grad_enabled(False)
    dtypes = DTYPES[: int(sys.argv[1])] if len(sys.argv) > 1 else DTYPES
    for dtype in dtypes:
        for name in ("test_vit", "two_scales"):
            vision(name, dtype)
        for name in ("siglip2", "cls", "bare_projection"):
            text(name, dtype)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        print(f"{dtype}: done", flush=True)


if __name__ == "__main__":
    main()

"""Compares the low-res trunk of so400m on the CPU: ps3c, OpenVINO, torch.compile and plain torch.

The trunk computes the pooled vector from 378 x 378 pixels (27 blocks, norm, attention pool), batch 1, with the same
random weights. ps3c runs forward_low_res, which includes its resampling. The others run the network written in plain
torch (below), alternately with ps3c. A peer that is not installed is skipped, and the report gives the reason.

    pip install openvino==2026.4.0
    python benchmarks/peers.py --rows openvino --dtypes float32
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import common
import models
import subjects
import torch
from products import gemm_ceiling
from torch import nn
from torch.nn import functional as F
from work import Work

ROWS = {
    "openvino": "OpenVINO's CPU plugin, latency mode",
    "compile": "torch.compile",
    "compile-max": "torch.compile, mode max-autotune",
    "torch": "torch as it is",
}
COLUMNS = dict(peer=12, dtype=9, ours=9, theirs=9, ratio=7, gflops=8, theirs_gflops=13, ceiling=8, error=9)


class Block(nn.Module):
    """One block of the trunk. The parameters have the names of a checkpoint."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Pool(nn.Module):
    """The attention pool after the blocks."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        dim = width // self.heads
        q = self.q(self.latent.expand(batch, -1, -1)).reshape(batch, 1, self.heads, dim).transpose(1, 2)
        k, v = self.kv(x).reshape(batch, tokens, 2, self.heads, dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, 1, width))
        return (y + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm(y)))))[:, 0]


class Trunk(nn.Module):
    """The low-res pass, for an image of the trunk's image size."""

    def __init__(self, encoder):
        super().__init__()
        width, heads = encoder.width, encoder.architecture.heads
        hidden = encoder.trunk.blocks[0].mlp.fc1.weight.shape[0]
        pool = encoder.trunk.attn_pool.mlp.fc1.weight.shape[0]
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, encoder.patch_size, encoder.patch_size)})
        self.pos_embed = nn.Parameter(torch.zeros(1, encoder.low_res_token_num, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(encoder.layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attn_pool = Pool(width, heads, pool)
        state = {
            name.removeprefix("trunk."): tensor
            for name, tensor in encoder.state_dict().items()
            if name.startswith("trunk.")
        }
        self.load_state_dict(state, assign=True)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2) + self.pos_embed
        return self.attn_pool(self.norm(self.blocks(x)))


# ---- peers ---------------------------------------------------------------------------------------------------------


def openvino(trunk: Trunk, pixels: torch.Tensor, arguments: argparse.Namespace) -> Callable[[], Any]:
    """OpenVINO converts a float32 model; a hint sets the precision. ImportError if OpenVINO is not installed."""
    import openvino as ov

    float_pixels = pixels.float()
    hint = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[pixels.dtype]
    model = ov.convert_model(trunk.float(), example_input=float_pixels)
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": arguments.threads,
    }
    compiled = ov.compile_model(model, "CPU", settings)
    request, values = compiled.create_infer_request(), float_pixels.numpy()
    return lambda: torch.from_numpy(request.infer({0: values}, share_inputs=True)[0])


def compiled_by_torch(trunk: Trunk, pixels: torch.Tensor, mode: str = None) -> Callable[[], Any]:
    module = torch.compile(trunk, mode=mode)
    module(pixels)
    return lambda: module(pixels)


def peer_call(row: str, trunk: Trunk, pixels: torch.Tensor, arguments: argparse.Namespace) -> Callable[[], Any]:
    if row == "openvino":
        return openvino(trunk, pixels, arguments)
    if row == "torch":
        return lambda: trunk(pixels)
    return compiled_by_torch(trunk, pixels, "max-autotune" if row == "compile-max" else None)


def main() -> None:
    arguments = common.parse(common.parser(__doc__, ROWS, ["openvino", "compile", "torch"]), ROWS)
    report = common.Report(arguments, COLUMNS)
    report.note(f"versions of the peers: {common.versions('openvino')}")
    name = "tiny-1.5k" if arguments.tiny else "1.5k"
    for dtype_name in arguments.dtypes:
        dtype = common.DTYPES[dtype_name]
        ours = subjects.Pair("Vision", name, dtype, only=("ours",)).ours
        encoder = ours.vision_model
        side = subjects.VISION[name]["ps3_scales"][0]
        pixels = models.image(1, side, side).to(dtype)
        work = Work.of(encoder)
        hidden = encoder.trunk.blocks[0].mlp.fc1.weight.shape[0]
        ceiling = gemm_ceiling(dtype, work.low_tokens, encoder.width, hidden, arguments.runs)
        report.note(f"{dtype_name}: GEMM ceiling {ceiling['gflops']:.0f} GFLOP/s, measured with {ceiling['by']}")
        for row in arguments.rows:
            trunk = Trunk(encoder).eval().requires_grad_(False)
            try:
                call = peer_call(row, trunk, pixels, arguments)
                theirs = call()
            except Exception as error:  # not installed, or not supported; the other rows are still measured
                report.note(f"{row}, {dtype_name} skipped: {type(error).__name__}: {str(error)[:300]}")
                continue
            result = encoder.forward_low_res(pixels)["x"]
            calls = {"ours": functools.partial(encoder.forward_low_res, pixels), "theirs": call}
            timings = common.alternate(calls, arguments.runs, arguments.seconds)
            best, other = timings["ours"].best, timings["theirs"].best
            report.row(
                peer=row,
                dtype=dtype_name,
                ours=best,
                theirs=other,
                ratio=other / best,
                gflops=1e-9 * work.low_res() / best,
                theirs_gflops=1e-9 * work.low_res() / other,
                ceiling=1e-9 * work.low_res() / best / ceiling["gflops"],
                error=models.relative_error(theirs.float(), result.float()),
                runs=len(timings["ours"].runs),
            )


if __name__ == "__main__":
    main()

"""ps3c and ps3-torch 0.1.3 in turn on an NVIDIA GPU: time, ratio, TFLOP/s of useful work, peak memory.

so400m at 4K with random weights, two hidden layers returned. A row is a number of looks, a batch and a kind of
arithmetic; in it run, in turn:

    ps3c            as it is
    ps3c graph      the same, captured once in a CUDA graph and replayed (not for "all")
    torch           ps3-torch as it is
    torch cudnn     with cuDNN's attention forced (torch.nn.attention.sdpa_kernel; float32 has none)
    torch compile   with every block of the trunk compiled (torch.compile, static shapes); the looks' loop reads numbers
                    back and cannot be compiled as a whole. Takes a minute to compile: see --rows and the order below

float32 computes its products in float32; tf32 is float32 with TF32 products allowed, in torch and in ps3c. Times are
CUDA events around one forward, so they hold the host's share where the GPU waits for it; the best of several. ratio:
the time of ps3-torch as it is over this one's. peak_mb: the most that torch's allocator gave out during a forward, above
weights, input and outputs. ceiling: share of the best rate of a plain product here, in the same arithmetic.

Rows run in the order of their importance until --budget is spent; what was left out is said. The file given with --json
is written after every row.

    python benchmarks/gpu.py --budget 300 --json gpu.json
    python benchmarks/gpu.py --modes bfloat16 --looks 2 all --batches 1 --variants ps3c torch
"""

import argparse
import contextlib
import functools
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import models
import subjects
import torch
from work import Work

MODES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "tf32": torch.float32, "float32": torch.float32}
VARIANTS = ["ps3c", "ps3c graph", "torch", "torch cudnn", "torch compile"]
LOOKS = ["2", "6", "all", "low", "1"]
COLUMNS = {
    "mode": 9,
    "batch": 6,
    "looks": 6,
    "variant": 14,
    "ms": 9,
    "median_ms": 10,
    "ratio": 7,
    "tflops": 8,
    "ceiling": 8,
    "peak_mb": 9,
    "error": 9,
}
GUESS = {"bfloat16": 150e12, "float16": 150e12, "tf32": 80e12, "float32": 20e12}  # FLOP/s, before anything is measured


@dataclass(frozen=True)
class Row:
    mode: str
    batch: int
    looks: str
    variants: tuple

    @property
    def argument(self):
        return {"low": 0, "all": "all"}.get(self.looks) if self.looks in ("low", "all") else int(self.looks)


def planned(arguments: argparse.Namespace) -> list[Row]:
    """All rows, the most important first."""
    plain = tuple(name for name in VARIANTS[:4] if name in arguments.variants)
    compiled = tuple(name for name in VARIANTS[4:] if name in arguments.variants)
    rows = []

    def add(variants: tuple, modes, batches) -> None:
        for mode in modes:
            for batch in batches:
                if variants and mode in arguments.modes and batch in arguments.batches:
                    rows.extend(Row(mode, batch, looks, variants) for looks in LOOKS if looks in arguments.looks)

    others = [mode for mode in MODES if mode != "bfloat16"]
    add(plain, ["bfloat16"], [1])
    add(compiled, ["bfloat16"], [1])
    add(plain, ["bfloat16"], [4])
    add(plain, others, [1])
    add(plain, others, [4])
    add(compiled, ["bfloat16"], [4])
    add(compiled, others, [1, 4])
    return rows


# ---- time and memory -----------------------------------------------------------------------------------------------


class Device:
    """What differs between a GPU and the CPU on which the script is tried."""

    def __init__(self, name: str):
        self.name = name
        self.cuda = torch.device(name).type == "cuda"

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, call: Callable[[], Any]) -> float:
        """Seconds of one call, from the GPU's first kernel to its last."""
        if not self.cuda:
            return common.stopwatch(call)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    def peak(self, call: Callable[[], Any]) -> float | None:
        """MB that a call takes at its peak beside what it returns."""
        if not self.cuda:
            return None
        self.clean()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before - subjects.output_bytes(list(output.values()))) / 1e6

    def clean(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def set_mode(mode: str) -> None:
    allowed = mode == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def ceiling(device: Device, mode: str, tiny: bool) -> float:
    """FLOP/s of the best of a few plain products."""
    dtype, best = MODES[mode], 0.0
    shapes = [(15360, 4304, 1152), (15360, 1152, 4304), (15360, 3456, 1152), (8192, 8192, 8192)]
    shapes = [(64, 64, 64)] if tiny else shapes
    for m, n, k in shapes:
        x, weight = (torch.randn(rows, k, device=device.name, dtype=dtype) for rows in (m, n))
        call = functools.partial(torch.mm, x, weight.T)
        timing = common.alternate({"mm": call}, 4, 0.2, device.time, most=20)["mm"]
        best = max(best, 2 * m * n * k / timing.best)
    return best


# ---- variants: each makes a call of a row --------------------------------------------------------------------------


class Subjects:
    """The models of one dtype and the images, made when they are first wanted."""

    def __init__(self, name: str, device: Device, absent: str, workspace_limit: int | None):
        self.name, self.device, self.absent, self.limit = name, device, absent, workspace_limit
        self._dtype = self._pair = self._compiled = None

    def pair(self, mode: str) -> subjects.Pair:
        if self._dtype != MODES[mode]:
            self._pair = self._compiled = None
            self.device.clean()
            only = ("ours",) if self.absent else ()
            self._pair = subjects.Pair("Vision", self.name, MODES[mode], self.device.name, only)
            if self.limit is not None:
                self._pair.ours.vision_model.workspace_limit = self.limit
            self._dtype = MODES[mode]
        return self._pair

    def compiled(self, mode: str) -> torch.nn.Module:
        """Another ps3-torch on the same weights, its blocks compiled."""
        pair = self.pair(mode)
        if self._compiled is None:
            torch._dynamo.config.cache_size_limit = 64
            self._compiled = subjects.another_theirs(pair, self.name)
            for block in self._compiled.vision_model.trunk.blocks:
                block.compile(dynamic=False)
        return self._compiled

    @functools.lru_cache(maxsize=2)
    def _image(self, dtype: torch.dtype) -> torch.Tensor:
        return subjects.image(self.name, dtype, self.device.name)

    def image(self, row: Row) -> torch.Tensor:
        return self._image(MODES[row.mode]).repeat(row.batch, 1, 1, 1)

    def call(self, variant: str, row: Row, x: torch.Tensor) -> Callable[[], Any]:
        pair = self.pair(row.mode)
        if variant.startswith("torch") and self.absent:
            raise RuntimeError("ps3-torch is missing")
        if variant == "ps3c":
            return lambda: pair.ours(x, num_look_close=row.argument)
        if variant == "ps3c graph":
            return self._graph(pair.ours, row, x)
        if variant == "torch":
            return lambda: pair.theirs(x, num_look_close=row.argument)
        if variant == "torch cudnn":
            return self._cudnn(pair.theirs, row, x)
        model = self.compiled(row.mode)
        return lambda: model(x, num_look_close=row.argument)

    def _graph(self, model, row: Row, x: torch.Tensor) -> Callable[[], Any]:
        if not self.device.cuda:
            raise RuntimeError("needs a GPU")
        if row.looks == "all":
            raise RuntimeError("left out: the GPU is busy enough without it")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            model(x, num_look_close=row.argument)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = model(x, num_look_close=row.argument)

        def replay():
            graph.replay()
            return output

        return replay

    def _cudnn(self, model, row: Row, x: torch.Tensor) -> Callable[[], Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if not self.device.cuda:
            raise RuntimeError("needs a GPU")

        def call():
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return model(x, num_look_close=row.argument)

        return call


# ---- one row -------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.device = Device(arguments.device)
        self.report = common.Report(arguments, COLUMNS)
        absent = subjects.missing_reference()
        if absent:
            self.report.note(f"ps3-torch left out: {absent}")
        name = "tiny-4k" if arguments.tiny else "4k"
        self.subjects = Subjects(name, self.device, absent, arguments.workspace_limit)
        self.end = time.monotonic() + arguments.budget
        self.rates: dict[str, float] = dict(GUESS)  # the slowest seen in a mode
        self.ceilings: dict[str, float] = {}
        self.best: dict[tuple, float] = {}
        self.low: dict[tuple, torch.Tensor] = {}

    def left(self) -> float:
        return self.end - time.monotonic()

    def fits(self, row: Row) -> bool:
        """Is there time for the row? A trial, a look at the memory and two runs of each variant, at known rates."""
        needed = 5 + 4 * len(row.variants) * self.useful(row) / self.rates[row.mode]
        needed += 60 if "torch compile" in row.variants and self.device.cuda else 0
        return self.left() >= needed

    @functools.cache
    def useful(self, row: Row) -> float:
        """FLOP of useful work; "all" is every patch of a square image, a look less where there are not as many."""
        encoder = self.subjects.pair(row.mode).ours.vision_model
        work = Work.of(encoder)
        everything = sum((scale // encoder.patch_size) ** 2 for scale in encoder.ps3_scales[1:])
        chosen = everything if row.looks == "all" else min(everything, (row.argument or 0) * work.look_tokens)
        return float(row.batch * work.forward(chosen))

    def run(self, row: Row) -> None:
        set_mode(row.mode)
        if row.mode not in self.ceilings:
            self.ceilings[row.mode] = ceiling(self.device, row.mode, self.arguments.tiny)
            self.report.note(f"{row.mode}: a plain product runs at {1e-12 * self.ceilings[row.mode]:.1f} TFLOP/s")
        x = self.subjects.image(row)
        calls, facts = {}, {}
        for variant in row.variants:
            with contextlib.ExitStack() as stack:
                stack.callback(self.device.clean)
                try:
                    call = self.subjects.call(variant, row, x)
                    facts[variant] = self.trial(variant, row, call)
                    calls[variant] = call
                except Exception as error:  # out of memory, no kernel for this: the other variants still count
                    self.report.note(
                        f"{row.mode}, batch {row.batch}, {row.looks}: {variant}: {type(error).__name__}: "
                        f"{(str(error).strip().splitlines() or [''])[0][:200]}"
                    )
        if calls:
            seconds = min(self.arguments.seconds, max(self.left() - 2, 0.0))
            timings = common.alternate(calls, 2, seconds, self.device.time, most=30)
            self.write(row, timings, facts)
        del calls
        self.device.clean()

    def trial(self, variant: str, row: Row, call: Callable[[], Any]) -> dict[str, Any]:
        """Warms up, then: peak memory, and how far the low-res tokens are from those of ps3c."""
        output = call()
        self.device.synchronize()
        low = output.last_hidden_state[:1, : self.subjects.pair(row.mode).ours.vision_model.low_res_token_num].float()
        first = self.low.setdefault((row.mode, row.looks), low)
        error = models.relative_error(low, first) if first is not low else None
        del output
        peak = None if variant == "ps3c graph" else self.device.peak(call)
        return {"peak_mb": peak, "error": error}

    def write(self, row: Row, timings: dict[str, common.Timing], facts: dict[str, dict[str, Any]]) -> None:
        key = (row.mode, row.batch, row.looks)
        if "torch" in timings:
            self.best[key] = timings["torch"].best
        work = self.useful(row)
        for variant, timing in timings.items():
            rate = work / timing.best
            self.rates[row.mode] = min(self.rates[row.mode], rate) if row.looks != "low" else self.rates[row.mode]
            ratio = self.best[key] / timing.best if key in self.best and variant != "torch" else None
            self.report.row(
                mode=row.mode,
                batch=row.batch,
                looks=row.looks,
                variant=variant,
                ms=1e3 * timing.best,
                median_ms=1e3 * timing.median,
                ratio=ratio,
                tflops=1e-12 * rate,
                ceiling=rate / self.ceilings[row.mode],
                flops=work,
                runs=timing.runs,
                **facts[variant],
            )


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--budget", type=float, default=600.0, help="seconds for everything (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=3.0, help="spent on the runs of a row (default: %(default)s)")
    options.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    options.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    options.add_argument("--batches", nargs="+", type=int, choices=[1, 4], default=[1, 4])
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options.add_argument("--workspace-limit", type=int, metavar="BYTES", help="ps3c's, instead of its own choice")
    options.add_argument("--device", default="cuda", help="'cpu' to try the script (with --tiny)")
    options.add_argument("--tiny", action="store_true", help="a tiny model: to see that it runs, not to measure")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    arguments = options.parse_args()
    arguments.threads = torch.get_num_threads()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        options.error("torch finds no GPU (torch.cuda.is_available() is false)")
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_grad_enabled(False)
    bench = Bench(arguments)
    left_out = []
    for row in planned(arguments):
        if bench.left() > 0 and bench.fits(row):
            bench.run(row)
        else:
            left_out.append(f"{row.mode} batch {row.batch} {row.looks} ({', '.join(row.variants)})")
    if left_out:
        bench.report.note("left out, for want of time: " + "; ".join(left_out))
    if arguments.device.startswith("cuda"):
        from ps3c import _core

        bench.report.note(f"products that cuBLASLt refused: {_core.cuda_refused_products()}")
    bench.report.note(f"done, {max(bench.left(), 0):.0f} s of the budget left")


if __name__ == "__main__":
    main()

"""Compares ps3c with ps3-torch 0.1.3 on an NVIDIA GPU: time, ratio, TFLOP/s of useful work, peak memory.

The model is so400m at 4K with random weights, two hidden layers returned. A row is a number of looks, a batch size and
a mode. In each row these variants run alternately:

    ps3c            ps3c
    ps3c graph      ps3c, captured once in a CUDA graph and replayed (not for "all")
    torch           ps3-torch
    torch cudnn     ps3-torch with cuDNN's attention (torch.nn.attention.sdpa_kernel; not for float32)
    torch compile   ps3-torch with every block of the trunk compiled (torch.compile, static shapes). The loop over looks
                    reads values from the GPU and cannot be compiled as a whole. Compiling takes a minute

Mode float32 computes matrix products in float32. Mode tf32 is float32 with TF32 products, in torch and in ps3c. Times
are measured with CUDA events around one forward, so they include the time in which the GPU waits for the host. The best
run is reported. Columns: ratio is the time of variant torch divided by that of this variant. peak_mb is the peak of
torch's allocator during a forward, minus weights, input and outputs. ceiling is the share of the best rate of a plain
matrix product in the same mode.

Rows run in order of importance until --budget is used up. The report lists skipped rows. The file of --json is written
after every row.

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
GUESS = {
    "bfloat16": 150e12,
    "float16": 150e12,
    "tf32": 80e12,
    "float32": 20e12,
}  # FLOP/s, an estimate that is used before the first measurement


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
    """All rows, in order of importance."""
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
    """Functions that differ between a GPU and the CPU, which is used to test the script."""

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
        """Peak memory of a call in MB, without its outputs."""
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
    """The best rate, in FLOP/s, of several plain matrix products."""
    dtype, best = MODES[mode], 0.0
    shapes = [(15360, 4304, 1152), (15360, 1152, 4304), (15360, 3456, 1152), (8192, 8192, 8192)]
    shapes = [(64, 64, 64)] if tiny else shapes
    for m, n, k in shapes:
        x, weight = (torch.randn(rows, k, device=device.name, dtype=dtype) for rows in (m, n))
        call = functools.partial(torch.mm, x, weight.T)
        timing = common.alternate({"mm": call}, 4, 0.2, device.time, most=20)["mm"]
        best = max(best, 2 * m * n * k / timing.best)
    return best


# ---- variants ------------------------------------------------------------------------------------------------------


class Subjects:
    """The models of one dtype and the images. They are created at their first use."""

    def __init__(self, name: str, device: Device, absent: str, workspace_limit: int | None):
        self.name, self.device, self.absent, self.limit = name, device, absent, workspace_limit
        self._dtype = self._pair = self._compiled = None
        self._image = functools.lru_cache(maxsize=2)(lambda dtype: subjects.image(name, dtype, device.name))

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
        """A second ps3-torch model with the same weights, whose blocks are compiled."""
        pair = self.pair(mode)
        if self._compiled is None:
            torch._dynamo.config.cache_size_limit = 64
            self._compiled = subjects.another_theirs(pair, self.name)
            for block in self._compiled.vision_model.trunk.blocks:
                block.compile(dynamic=False)
        return self._compiled

    def image(self, row: Row) -> torch.Tensor:
        return self._image(MODES[row.mode]).repeat(row.batch, 1, 1, 1)

    def call(self, variant: str, row: Row, x: torch.Tensor) -> Callable[[], Any]:
        pair = self.pair(row.mode)
        if variant.startswith("torch") and self.absent:
            raise RuntimeError("ps3-torch is not installed")
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
            raise RuntimeError("skipped: launch gaps do not matter for so many looks")
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
            self.report.note(f"ps3-torch skipped: {absent}")
        name = "tiny-4k" if arguments.tiny else "4k"
        self.subjects = Subjects(name, self.device, absent, arguments.workspace_limit)
        self.end = time.monotonic() + arguments.budget
        self.rates: dict[str, float] = dict(GUESS)  # the slowest measured rate of each mode
        self.ceilings: dict[str, float] = {}
        self.best: dict[tuple, float] = {}
        self.low: dict[tuple, torch.Tensor] = {}
        self.useful = functools.cache(self._useful)

    def left(self) -> float:
        return self.end - time.monotonic()

    def fits(self, row: Row) -> bool:
        """True if the remaining time is enough: a trial, a memory run and two timed runs of each variant."""
        needed = 5 + 4 * len(row.variants) * self.useful(row) / self.rates[row.mode]
        needed += 60 if "torch compile" in row.variants and self.device.cuda else 0
        return self.left() >= needed

    def _useful(self, row: Row) -> float:
        """FLOP of useful work. "all" is every patch of a square image; larger numbers of looks are clamped to it."""
        encoder = self.subjects.pair(row.mode).ours.vision_model
        work = Work.of(encoder)
        everything = sum((scale // encoder.patch_size) ** 2 for scale in encoder.ps3_scales[1:])
        chosen = everything if row.looks == "all" else min(everything, (row.argument or 0) * work.look_tokens)
        return float(row.batch * work.forward(chosen))

    def run(self, row: Row) -> None:
        set_mode(row.mode)
        if row.mode not in self.ceilings:
            self.ceilings[row.mode] = ceiling(self.device, row.mode, self.arguments.tiny)
            self.report.note(
                f"{row.mode}: a plain matrix product reaches {1e-12 * self.ceilings[row.mode]:.1f} TFLOP/s"
            )
        x = self.subjects.image(row)
        calls, facts = {}, {}
        for variant in row.variants:
            with contextlib.ExitStack() as stack:
                stack.callback(self.device.clean)
                try:
                    call = self.subjects.call(variant, row, x)
                    facts[variant] = self.trial(variant, row, call)
                    calls[variant] = call
                except Exception as error:  # such as out of memory or no kernel; the other variants are still measured
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
        """Runs a warm-up, then measures the peak memory and the relative error of the low-res tokens against ps3c's."""
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
    options.add_argument("--budget", type=float, default=600.0, help="total time in seconds (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=3.0, help="time per row in seconds (default: %(default)s)")
    options.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    options.add_argument("--looks", nargs="+", choices=LOOKS, default=LOOKS)
    options.add_argument("--batches", nargs="+", type=int, choices=[1, 4], default=[1, 4])
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options.add_argument(
        "--workspace-limit", type=int, metavar="BYTES", help="ps3c's workspace limit (default: chosen by ps3c)"
    )
    options.add_argument("--device", default="cuda", help="'cpu' to test the script (with --tiny)")
    options.add_argument("--tiny", action="store_true", help="use a tiny model, to test the script, not to measure")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write all results to FILE")
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
        bench.report.note("skipped, because the time was used up: " + "; ".join(left_out))
    if arguments.device.startswith("cuda"):
        from ps3c import _core

        bench.report.note(f"matrix products that cuBLASLt refused: {_core.cuda_refused_products()}")
    bench.report.note(f"done, {max(bench.left(), 0):.0f} s of the budget left")


if __name__ == "__main__":
    main()

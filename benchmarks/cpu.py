"""Compares ps3c with ps3-torch 0.1.3 on the CPU, running alternately in one process.

The model is so400m in the published size with random weights, batch 1, two hidden layers returned. Columns: ratio is
ps3-torch's best time divided by ps3c's; gflops is the useful work (work.py) divided by the time; ceiling is gflops
divided by the GEMM ceiling, the best rate of a plain matrix product, measured in the same run.

    python benchmarks/cpu.py --rows 1.5k-1 --dtypes bfloat16
    python benchmarks/cpu.py --json cpu.json
"""

import functools
from collections.abc import Callable
from typing import Any

import common
import models
import numpy as np
import subjects
import torch
from products import gemm_ceiling
from work import Work, text_tower

ROWS = {
    "1.5k-low": "1512 x 1512, low resolution only",
    "1.5k-1": "1512 x 1512, one look",
    "1.5k-2": "1512 x 1512, two looks",
    "4k-1": "3780 x 3780, one look",
    "4k-2": "3780 x 3780, two looks",
    "4k-6": "3780 x 3780, six looks",
    "text-1": "SigLIP2 text tower, one text of 64 tokens",
    "text-16": "SigLIP2 text tower, 16 texts of 64 tokens",
    "processor": "image processor, from 4000 x 3000 to 3780 x 3780 pixels",
    "vit_tiny": "a small model at 64/128/256, one look",
    "threads": "1.5K, one look, with one thread and with --threads",
    "call": "Python overhead of a call: time of a small model's forward minus that of its engine run",
}
DEFAULT = [name for name in ROWS if name not in ("4k-6", "threads")]
COLUMNS = dict(row=10, dtype=9, ours=9, theirs=9, ratio=7, gflops=8, theirs_gflops=13, ceiling=8, runs=5)


@functools.lru_cache(maxsize=1)
def pair(kind: str, name: str, dtype: torch.dtype, only: tuple) -> subjects.Pair:
    return subjects.Pair(kind, name, dtype, only=only)


class Rows:
    """Creates the calls of each row, {"ours": ..., "theirs": ...}, and computes its useful work."""

    def __init__(self, arguments, absent: str):
        self.prefix = "tiny-" if arguments.tiny else ""
        self.tiny = arguments.tiny
        self.only = ("ours",) if absent else ()

    def vision(self, name: str, looks: int, dtype: torch.dtype):
        models_ = pair("Vision", name, dtype, self.only)
        x = subjects.image(name, dtype)
        work = Work.of(models_.ours.vision_model)
        selected = subjects.selected_tokens(models_.ours(x, num_look_close=looks)) if looks else 0
        return self._calls(models_, lambda model: model(x, num_look_close=looks)), work.forward(selected)

    def text(self, batch: int, dtype: torch.dtype):
        name = f"{self.prefix}siglip2"
        config = subjects.TEXT[name]
        models_ = pair("Text", name, dtype, self.only)
        ids = subjects.texts(batch, config["context_length"], config["vocab_size"])
        hidden = int(config["width"] * config["mlp_ratio"])
        work = text_tower(config["width"], config["layers"], hidden, config["context_length"], batch)
        return self._calls(models_, lambda model: model(ids)), work

    @staticmethod
    def _calls(models_, call: Callable[[Any], Any]) -> dict[str, Callable[[], Any]]:
        both = {"ours": models_.ours, "theirs": models_.theirs}
        return {name: functools.partial(call, model) for name, model in both.items() if model is not None}

    def processor(self):
        """The calls of the image processors, on an image of shapes, gradients and noise. The work is 0."""
        from PIL import Image

        import ps3c

        height, width, side = (75, 100, 94) if self.tiny else (3000, 4000, 3780)
        pixels = models.image(1, height, width)[0].mul(64).add(128).clamp(0, 255).to(torch.uint8)
        photograph = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        packages = {"ours": ps3c} if self.only else {"ours": ps3c, "theirs": subjects.reference_package()}
        calls = {}
        for name, package in packages.items():
            processor = package.PS3ImageProcessor(image_size=side, mean=0.5, std=0.5)
            calls[name] = functools.partial(processor.preprocess, photograph)
        if len(calls) == 2:
            ours, theirs = (call()["pixel_values"][0] for call in calls.values())
            error = float((ours - theirs).abs().max())
            if error > 1e-6:
                raise AssertionError(f"the processors differ by {error:.2e}")
        return calls, 0


def call_cost(arguments, report: common.Report) -> None:
    """Measures the seconds of model(x) minus those of plan.run with allocated outputs and workspace.

    It uses one thread: the overhead is smaller than the variation of the time in which threads wake up.
    """
    from ps3c.engine import tensors
    from ps3c.torch_api.forward import VisionForward

    torch.set_num_threads(1)
    model = pair("Vision", "small-call", torch.float32, ("ours",)).ours
    encoder = model.vision_model
    x = models.image(1, 64, 64)
    plan = VisionForward(encoder, x).plan_of("features", {"num_look_close": 1, "hidden_states": 2})
    tokens = plan.low_res_tokens + plan.selected_tokens
    outputs = dict(
        hidden_states=[torch.empty(1, tokens, encoder.width) for _ in range(2)],
        selection_maps=[torch.empty(1, *grid) for grid in plan.grids[1:]],
        selection_probs=[torch.empty(1, *grid) for grid in plan.grids[1:]],
    )
    weights, rest = encoder._engine_model().parameters.collect(), tensors.run_arguments(plan, x.device)
    calls = {"model": lambda: model(x, num_look_close=1), "engine": lambda: plan.run(weights, x, **outputs, **rest)}
    timings = common.alternate(calls, 20, arguments.seconds, most=2000)
    torch.set_num_threads(arguments.threads)
    cost = timings["model"].median - timings["engine"].median
    report.row(
        row="call",
        dtype="float32",
        ours=cost,
        model=timings["model"].best,
        engine=timings["engine"].best,
        runs=len(timings["model"].runs),
    )
    engine = 1e3 * timings["engine"].median
    report.note(f"call: {1e3 * cost:.3f} ms of overhead, {engine:.3f} ms in the engine (medians)")


def thread_scaling(arguments, report: common.Report, rows: Rows, dtype_name: str) -> None:
    """Measures the parallel efficiency: one thread's time divided by --threads and by the time with --threads."""
    calls, _ = rows.vision(rows.prefix + "1.5k", 1, common.DTYPES[dtype_name])

    def on(threads: int) -> None:
        torch.set_num_threads(threads)
        calls["ours"]()

    timings = common.alternate(
        {"one": functools.partial(on, 1), "all": functools.partial(on, arguments.threads)},
        arguments.runs,
        arguments.seconds,
    )
    torch.set_num_threads(arguments.threads)
    one, all_ = timings["one"].best, timings["all"].best
    report.row(row="threads", dtype=dtype_name, ours=all_, one_thread=one, runs=len(timings["all"].runs))
    report.note(
        f"threads, {dtype_name}: {one:.2f} s with one, {all_:.2f} s with {arguments.threads}, "
        f"efficiency {one / all_ / arguments.threads:.3f}"
    )


def measure(arguments, report, rows: Rows, row: str, dtype_name: str, ceiling: dict[str, Any]) -> None:
    dtype = common.DTYPES[dtype_name]
    if row == "processor":
        calls, work = rows.processor()
    elif row.startswith("text-"):
        calls, work = rows.text(int(row.removeprefix("text-")), dtype)
    elif row == "vit_tiny":
        calls, work = rows.vision("vit_tiny", 1, dtype)
    else:
        name, looks = row.split("-")
        calls, work = rows.vision(rows.prefix + name, 0 if looks == "low" else int(looks), dtype)
    timings = common.alternate(calls, arguments.runs, arguments.seconds)
    ours, theirs = timings["ours"], timings.get("theirs")
    rates = {}
    if work:
        rates = dict(flops=work, gflops=1e-9 * work / ours.best, ceiling=1e-9 * work / ours.best / ceiling["gflops"])
        if theirs:
            rates["theirs_gflops"] = 1e-9 * work / theirs.best
    report.row(
        row=row,
        dtype="-" if row == "processor" else dtype_name,
        ours=ours.best,
        runs=len(ours.runs),
        ours_runs=ours.runs,
        **(dict(theirs=theirs.best, theirs_runs=theirs.runs, ratio=theirs.best / ours.best) if theirs else {}),
        **rates,
    )


def main() -> None:
    arguments = common.parse(common.parser(__doc__, ROWS, DEFAULT), ROWS)
    report = common.Report(arguments, COLUMNS)
    absent = subjects.missing_reference()
    if absent:
        report.note(f"ps3-torch skipped: {absent}")
    rows = Rows(arguments, absent)
    tokens, width, hidden = (320, 192, 768) if arguments.tiny else (2560, 1152, 4304)
    for index, dtype in enumerate(arguments.dtypes):
        ceiling = gemm_ceiling(common.DTYPES[dtype], tokens, width, hidden, arguments.runs)
        report.note(f"{dtype}: GEMM ceiling {ceiling['gflops']:.0f} GFLOP/s, measured with {ceiling['by']}")
        for row in [row for row in ROWS if row in arguments.rows]:
            if row == "threads":
                thread_scaling(arguments, report, rows, dtype)
                continue
            if row in ("processor", "call"):
                if index == 0:  # these rows do not depend on the dtype
                    call_cost(arguments, report) if row == "call" else measure(
                        arguments, report, rows, row, dtype, ceiling
                    )
                continue
            measure(arguments, report, rows, row, dtype, ceiling)


if __name__ == "__main__":
    main()

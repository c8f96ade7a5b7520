"""Measure the model's time on this machine: low resolution, one look, two looks, a text.

The rows run alternately, several times. The best time of each row is reported, because other load on the machine can
only make a run slower."""

import time
from collections.abc import Callable
from typing import Any

from . import _console, _errors, _model, _options

HELP = "measure the model's time on this machine"


def add_arguments(parser) -> None:
    _options.add_model(parser)
    parser.add_argument(
        "--batch-size", type=_options.positive, default=1, metavar="N", help="images or texts per batch (default: 1)"
    )
    parser.add_argument(
        "--runs", type=_options.positive, default=3, metavar="N", help="minimum number of runs of each row (default: 3)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="repeat until S seconds have passed (default: 5)"
    )
    _options.add_json(parser)


def run(arguments) -> int:
    encoder = _model.load(arguments)
    rows = _rows(encoder, arguments.batch_size)
    calls = {name: row["call"] for name, row in rows.items()}
    seconds = _alternate(calls, arguments.runs, arguments.seconds, encoder.device)
    results: list[dict[str, Any]] = []
    for name, row in rows.items():
        runs = sorted(seconds[name])
        results.append(
            {
                "what": name,
                "tokens": row["tokens"],
                "best_s": runs[0],
                "median_s": runs[len(runs) // 2],
                "runs": len(runs),
                "per_second": row["count"] / runs[0],
            }
        )
    report = {**_circumstances(encoder, arguments), "rows": results}
    if arguments.json:
        _console.result_json(report)
        return _errors.OK
    words = (report["model"], report["dtype"], report["device"], f"{report['threads']} threads", report["level"])
    _console.say(", ".join(str(word) for word in words if word))
    _console.result_table(
        ("what", "tokens", "best s", "median s", "runs", "images or texts/s"),
        ([row[key] for key in ("what", "tokens", "best_s", "median_s", "runs", "per_second")] for row in results),
    )
    return _errors.OK


def _rows(encoder, batch: int) -> dict[str, dict[str, Any]]:
    """For each row: the call, the number of tokens per image or text, and the number of images or texts per call."""
    import torch

    vision = encoder.model.vision_model
    side = encoder.scales[-1]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, side, side, generator=generator).to(encoder.device, encoder.dtype)

    def looks(count: int) -> Callable[[], Any]:
        return lambda: vision(pixels, num_look_close=count, output_hidden_states=True).last_hidden_state

    low, quota = vision.low_res_token_num, sum(vision.max_select_num_each_scale)
    most = vision.max_highres_token_num(pixels)
    rows: dict[str, dict[str, Any]] = {
        "low resolution": {"call": lambda: vision.forward_low_res(pixels)["x"], "tokens": low, "count": batch}
    }
    for count in (1, 2):
        name = f"{count} look{'s' if count > 1 else ''}"
        rows[name] = {"call": looks(count), "tokens": low + min(count * quota, most), "count": batch}
    text_model = getattr(encoder.model, "text_model", None)
    if text_model is not None and encoder.tokenizer is not None:
        ids = encoder.tokenizer(["a photograph of a harbour"] * batch).to(encoder.device)
        rows["text"] = {"call": lambda: text_model(ids).pooled_output, "tokens": ids.shape[1], "count": batch}
    return rows


def _alternate(calls: dict[str, Callable[[], Any]], runs: int, limit: float, device) -> dict[str, list[float]]:
    """Seconds of each run. The first round is a warm-up; it is counted only if there is no other round."""
    import torch

    seconds = {name: [] for name in calls}
    begin, rounds = time.perf_counter(), 0
    progress = _console.ProgressLine(runs, "round")
    with torch.inference_mode():
        while rounds < runs or (time.perf_counter() - begin < limit and rounds < 1000):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[name].append(time.perf_counter() - start)
            rounds += 1
            if rounds <= runs:
                progress.add(1)
    progress.close()
    return {name: times[1:] or times for name, times in seconds.items()}


def _circumstances(encoder, arguments) -> dict[str, Any]:
    import torch

    from .. import __version__
    from ..engine import core

    cuda = encoder.device.type == "cuda"
    return {
        "ps3c": __version__,
        "torch": torch.__version__,
        "model": arguments.model,
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(encoder.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "level": None if cuda else core.cpu_level(),
        "image": encoder.scales[-1],
        "batch_size": arguments.batch_size,
    }

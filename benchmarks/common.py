"""Functions that the benchmarks share: alternating runs, the record of machine and versions, tables and JSON.

Two programs are compared by running them alternately in one process, so that clock rate, caches and other load are the
same for both. The best run of each is compared, because other load can only make a run slower.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT / "tests"))  # reference.py, models.py
# If two packages run alternately, the threads of one that spin after a parallel loop would slow down the other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import reference  # noqa: E402
import torch  # noqa: E402  (before ps3c._core, and after the environment it reads)

reference.declare_torchvision_operators()

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


# ---- the command line -------------------------------------------------------------------------------------------


def parser(doc: str, rows: dict[str, str], default: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks share. rows: {name: description}. default: rows that run without --rows."""
    asked = {name: "" if name in default else " (on request)" for name in rows}
    listing = "\n".join(f"  {name:<16} {text}{asked[name]}" for name, text in rows.items())
    result = argparse.ArgumentParser(
        description=doc, epilog=f"rows:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--rows",
        nargs="+",
        choices=[*rows, "all"],
        metavar="ROW",
        default=list(default),
        help="rows to run, or 'all' (default: all rows that are not marked 'on request')",
    )
    result.add_argument(
        "--dtypes",
        nargs="+",
        choices=list(DTYPES),
        default=["float32", "bfloat16"],
        metavar="DTYPE",
        help="float32, float16, bfloat16 (default: float32 bfloat16)",
    )
    result.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: %(default)s)")
    result.add_argument("--runs", type=int, default=3, help="minimum number of runs (default: %(default)s)")
    result.add_argument(
        "--seconds", type=float, default=5.0, help="repeat a row until this time has passed (default: %(default)s)"
    )
    result.add_argument("--tiny", action="store_true", help="use a tiny model, to test the script, not to measure")
    result.add_argument("--json", type=Path, metavar="FILE", help="also write all results to FILE")
    return result


def parse(options: argparse.ArgumentParser, rows: Iterable[str]) -> argparse.Namespace:
    """Parses the arguments and sets the number of threads."""
    arguments = options.parse_args()
    if "all" in arguments.rows:
        arguments.rows = list(rows)
    if arguments.threads < 1 or arguments.runs < 1:
        options.error("--threads and --runs: expected 1 or more")
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    return arguments


# ---- runs ---------------------------------------------------------------------------------------------------------


@dataclass
class Timing:
    """Seconds of several runs of one call."""

    runs: list[float]

    @property
    def best(self) -> float:
        return min(self.runs)

    @property
    def median(self) -> float:
        return sorted(self.runs)[len(self.runs) // 2]


def stopwatch(call: Callable[[], Any]) -> float:
    """Seconds of one call. Its result is released before this function returns."""
    begin = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - begin
    del result
    return seconds


def alternate(
    calls: dict[str, Callable[[], Any]],
    runs: int,
    seconds: float = 0.0,
    measure: Callable[[Callable[[], Any]], float] = stopwatch,
    most: int = 200,
) -> dict[str, Timing]:
    """Runs the calls alternately: at least `runs` rounds, then more until `seconds` have passed, at most `most` rounds.

    The first round is a warm-up. It is counted only if there are at most two rounds, or if the call takes longer than
    `seconds`. measure: returns the seconds of one call.
    """
    timings: dict[str, Timing] = {name: Timing([]) for name in calls}
    begin, rounds = time.perf_counter(), 0
    while rounds < runs or (time.perf_counter() - begin < seconds and rounds < most):
        for name, call in calls.items():
            timings[name].runs.append(measure(call))
        rounds += 1
    for timing in timings.values():
        if rounds > 2 and timing.runs[0] < seconds:
            del timing.runs[0]
    return timings


# ---- where and how -------------------------------------------------------------------------------------------------


def _text(*command: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, followed by "with changes" if files were changed."""
    name = _text("git", "rev-parse", "--short=12", "HEAD")
    if name is None:
        return "not a checkout"
    return name + (" with changes" if _text("git", "status", "--porcelain", "--untracked-files=no") else "")


def versions(*packages: str) -> dict[str, str]:
    result = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            result[name] = importlib.metadata.version(name)
    return result


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine, versions, commit and command."""
    import ps3c
    from ps3c import _core

    record = {
        "command": " ".join(["python", str(Path(sys.argv[0]).name), *sys.argv[1:]]),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": arguments.threads,
        "level": _core.cpu_level(),
        "ps3c": str(getattr(ps3c, "__version__", "")) or None,
        "versions": {**versions("transformers", "timm", "numpy", "pillow"), "torch": torch.__version__},
    }
    if torch.cuda.is_available():
        record["gpu"] = torch.cuda.get_device_name()
        record["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        record["cuda"] = torch.version.cuda
        record["driver"] = _text("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return record


# ---- report --------------------------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        digits = ".3g" if abs(value) < 0.1 else ".3f" if abs(value) < 10 else ".1f" if abs(value) < 1000 else ".0f"
        return format(value, digits)
    return str(value)


class Report:
    """Prints a table, each row when it is measured, and writes all results to the JSON file."""

    def __init__(self, arguments: argparse.Namespace, columns: dict[str, int]):
        """columns: {name: width} of the printed values. Other values of a row are written only to the file."""
        self._columns = columns
        self._file = arguments.json
        self._printed_header = False
        self.data: dict[str, Any] = {"circumstances": circumstances(arguments), "notes": [], "rows": []}
        for name, value in self.data["circumstances"].items():
            print(f"# {name}: {value}", flush=True)

    def row(self, **values: Any) -> None:
        self.data["rows"].append(values)
        if not self._printed_header:
            print("  ".join(f"{name:<{width}}" for name, width in self._columns.items()))
            self._printed_header = True
        print("  ".join(f"{_shown(values.get(name)):<{width}}" for name, width in self._columns.items()), flush=True)
        self.write()

    def note(self, text: str) -> None:
        self.data["notes"].append(text)
        print(f"# {text}", flush=True)
        self.write()

    def write(self) -> None:
        """Called after every row, so that an interrupted run leaves the rows it measured."""
        if self._file is not None:
            self._file.write_text(json.dumps(self.data, indent=1) + "\n")

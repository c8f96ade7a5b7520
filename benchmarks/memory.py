"""Measures the memory of a forward besides weights, input and outputs, for ps3c and ps3-torch 0.1.3 on the CPU.

Each row runs in a separate process. above_mb is the peak of the resident memory during one forward, minus the resident
memory before it and minus the outputs. Before it, a forward of a small image loads weights and libraries into memory.
The row "shared" loads one safetensors file in two processes and reports how much memory they share.

    python benchmarks/memory.py --rows 4k-2 4k-all --dtypes bfloat16
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import subjects
import torch

ROWS = {
    "1.5k-low": "1512 x 1512, low resolution only",
    "1.5k-1": "1512 x 1512, one look",
    "1.5k-2": "1512 x 1512, two looks",
    "4k-2": "3780 x 3780, two looks",
    "4k-6": "3780 x 3780, six looks",
    "4k-all": "3780 x 3780, all patches (many minutes)",
    "text-16": "SigLIP2 text tower, 16 texts",
    "shared": "two processes that load the same file",
}
DEFAULT = ["1.5k-low", "1.5k-1", "4k-2", "text-16", "shared"]
COLUMNS = dict(row=10, dtype=9, of=10, above_mb=9, outputs_mb=11, weights_mb=11, before_mb=10, peak_mb=9, seconds=8)
MB = 1e6


# ---- resident memory -----------------------------------------------------------------------------------------------


def status(field: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


class Peak:
    """Peak of the resident memory inside a `with` block: VmHWM, or samples of VmRSS if VmHWM cannot be reset."""

    def __enter__(self) -> "Peak":
        self.before = status("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self.exact = status("VmHWM") < self.before + 64 * MB
        except OSError:
            self.exact = False
        self._done = threading.Event()
        self._sampled = self.before
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if not self.exact:
            self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            self._sampled = max(self._sampled, status("VmRSS"))

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        if not self.exact:
            self._thread.join()
        self.bytes = status("VmHWM") if self.exact else max(self._sampled, status("VmRSS"))


def settle() -> None:
    """Returns freed memory to the system."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


# ---- one row, in its own process -----------------------------------------------------------------------------------


def calls(arguments: argparse.Namespace, model) -> dict[str, Callable[[], Any]]:
    """{"warm": a small forward, "measured": the row's forward}. The inputs are created here."""
    dtype = common.DTYPES[arguments.dtypes[0]]
    if arguments.child.startswith("text-"):
        config = subjects.TEXT[arguments.model]
        ids = subjects.texts(int(arguments.child.removeprefix("text-")), config["context_length"], config["vocab_size"])
        return {"warm": lambda: model(ids[:1]), "measured": lambda: model(ids)}
    looks = arguments.child.split("-")[1]
    looks = {"low": 0, "all": "all"}.get(looks) if looks in ("low", "all") else int(looks)
    x = subjects.image(arguments.model, dtype)
    small = torch.zeros(1, 3, 64, 64, dtype=dtype)
    return {"warm": lambda: model(small, num_token_look_close=1), "measured": lambda: model(x, num_look_close=looks)}


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    dtype = common.DTYPES[arguments.dtypes[0]]
    kind = "Text" if arguments.child.startswith("text-") else "Vision"
    pair = subjects.Pair(kind, arguments.model, dtype, only=(arguments.of,))
    subjects._state.cache_clear()
    model = pair.ours or pair.theirs
    made = calls(arguments, model)
    made["warm"]()
    settle()
    begin = time.perf_counter()
    with Peak() as peak:
        output = made["measured"]()
    seconds = time.perf_counter() - begin
    outputs = subjects.output_bytes(list(output.values()))
    return dict(
        before_mb=peak.before / MB,
        peak_mb=peak.bytes / MB,
        outputs_mb=outputs / MB,
        weights_mb=pair.weight_bytes / MB,
        above_mb=(peak.bytes - peak.before - outputs) / MB,
        seconds=seconds,
        exact=peak.exact,
    )


def run_child(arguments: argparse.Namespace, row: str, dtype: str, of: str) -> dict[str, Any]:
    prefix = "tiny-" if arguments.tiny else ""
    model = prefix + ("siglip2" if row.startswith("text-") else row.split("-")[0])
    command = [
        sys.executable,
        __file__,
        "--child",
        row,
        "--of",
        of,
        "--model",
        model,
        "--dtypes",
        dtype,
        "--threads",
        str(arguments.threads),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return {"error": (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


# ---- two processes, one file ---------------------------------------------------------------------------------------


def holder(folder: str, dtype: str) -> None:
    """Loads the model, reads every weight, prints a line, and waits until standard input is closed."""
    from ps3c import PS3VisionModel

    model = PS3VisionModel.from_pretrained(folder, torch_dtype=common.DTYPES[dtype])
    print(float(sum(parameter.float().sum() for parameter in model.parameters())), flush=True)
    sys.stdin.read()


def rollup(pid: int) -> dict[str, float]:
    """Rss, Pss and shared memory of a process, in MB."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = int(value.split()[0]) * 1024 / MB
    return {"rss": fields["Rss"], "pss": fields["Pss"], "shared": fields["Shared_Clean"] + fields["Shared_Dirty"]}


def shared(arguments: argparse.Namespace, report: common.Report, dtype: str) -> None:
    name = "tiny-1.5k" if arguments.tiny else "1.5k"
    with tempfile.TemporaryDirectory() as folder:
        pair = subjects.Pair("Vision", name, common.DTYPES[dtype], only=("ours",))
        pair.ours.save_pretrained(folder)
        command = [sys.executable, __file__, "--holder", folder, "--dtypes", dtype]
        holders = []
        try:
            for _ in range(2):
                holders.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for process in holders:
                process.stdout.readline()
            found = [rollup(process.pid) for process in holders]
        finally:
            for process in holders:
                process.stdin.close()
                process.wait()
    weights = pair.weight_bytes / MB
    report.row(row="shared", dtype=dtype, of="ours", weights_mb=weights, processes=found)
    report.note(
        f"shared, {dtype}: weights {weights:.0f} MB; two processes hold "
        + " and ".join(f"{one['rss']:.0f} MB ({one['shared']:.0f} MB shared)" for one in found)
    )


def main() -> None:
    options = common.parser(__doc__, ROWS, DEFAULT)
    options.add_argument("--child", help=argparse.SUPPRESS)
    options.add_argument("--of", choices=["ours", "theirs"], help="measure only one of the two packages")
    options.add_argument("--model", help=argparse.SUPPRESS)
    options.add_argument("--holder", help=argparse.SUPPRESS)
    arguments = common.parse(options, ROWS)
    # malloc returns freed memory to the system instead of keeping it, so that only memory in use is measured.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
    if arguments.child:
        print(json.dumps(child(arguments)))
        return
    if arguments.holder:
        holder(arguments.holder, arguments.dtypes[0])
        return
    report = common.Report(arguments, COLUMNS)
    absent = subjects.missing_reference()
    if absent:
        report.note(f"ps3-torch skipped: {absent}")
    for dtype in arguments.dtypes:
        for row in [row for row in ROWS if row in arguments.rows]:
            if row == "shared":
                shared(arguments, report, dtype)
                continue
            for of in [
                of for of in ("ours", "theirs") if of == (arguments.of or of) and not (absent and of == "theirs")
            ]:
                measured = run_child(arguments, row, dtype, of)
                if "error" in measured:
                    report.note(f"{row}, {dtype}, {of} failed: {measured['error']}")
                    continue
                report.row(row=row, dtype=dtype, of="ps3c" if of == "ours" else "ps3-torch", **measured)


if __name__ == "__main__":
    main()

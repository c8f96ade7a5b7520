"""Two builds of ps3c in turn, on the CPU: is the new one as fast as the old one?

Each build runs in a process of its own, on the same random weights, and both wait while the other runs. The pages of
memory that a process gets change its time by up to 5 %, so every row is timed in several pairs of processes. ratio: the
old build's best time over the new build's; 1.02 means that the new build is 2 % faster.

    git worktree add build/old v0.1.0 && (cd build/old && python setup.py build_ext --inplace)
    python benchmarks/builds.py build/old .
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = {
    "1.5k-low": "1512 x 1512, low resolution only",
    "1.5k-1": "1512 x 1512, one look",
    "4k-2": "3780 x 3780, two looks",
    "text-1": "SigLIP2 text tower, one text of 64 tokens",
    "text-16": "the same, 16 texts",
    "processor": "image processor, a photograph of 4000 x 3000 to 3780 x 3780",
    "vit_tiny": "a small model at 64/128/256, one look",
    "call": "the smallest model's forward, on one thread: mostly the cost of a call (microseconds)",
}


class Worker:
    """A process that has one build of ps3c and times the rows that it is asked for."""

    def __init__(self, folder: Path, threads: int):
        folder = folder.resolve()
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), str(folder / "python")]))
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve", str(threads)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        built = Path(self._answer()["module"])
        if folder not in built.parents:
            raise SystemExit(f"{folder}: its ps3c was not found, {built} was: build it in place first")

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a build's process ended; its error stands above")
        return json.loads(line)

    def time(self, row: str, dtype: str) -> float:
        """Seconds of one call."""
        self.process.stdin.write(json.dumps([row, dtype]) + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(threads: int) -> None:
    """The worker's side."""
    sys.path.insert(0, str(HERE))
    import common
    import torch

    import ps3c

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    print(json.dumps({"module": ps3c.__file__}), flush=True)
    calls: dict[str, object] = {}
    for line in sys.stdin:
        row, dtype = json.loads(line)
        key = f"{row} {dtype}"
        if key not in calls:
            calls.clear()  # the last row's model
            calls[key] = make_call(row, common.DTYPES[dtype])
            calls[key]()
        torch.set_num_threads(1 if row == "call" else threads)
        begin = time.perf_counter()
        result = calls[key]()
        seconds = time.perf_counter() - begin
        del result
        print(json.dumps({"seconds": seconds}), flush=True)


def make_call(row: str, dtype):
    import cpu
    import subjects

    if row == "processor":
        return cpu.Rows(argparse.Namespace(tiny=False), "absent").processor()[0]["ours"]
    if row.startswith("text"):
        batch, config = int(row.split("-")[1]), subjects.TEXT["siglip2"]
        model = subjects.Pair("Text", "siglip2", dtype, only=("ours",)).ours
        ids = subjects.texts(batch, config["context_length"], config["vocab_size"])
        return lambda: model(ids)
    name, looks = {
        "1.5k-low": ("1.5k", 0),
        "1.5k-1": ("1.5k", 1),
        "4k-2": ("4k", 2),
        "vit_tiny": ("vit_tiny", 1),
        "call": ("small-call", 1),
    }[row]
    model = subjects.Pair("Vision", name, dtype, only=("ours",)).ours
    x = subjects.image(name, dtype)
    return lambda: model(x, num_look_close=looks)


def time_pair(arguments: argparse.Namespace, row: str, dtype: str, swap: bool) -> tuple[list[float], list[float]]:
    """Seconds of the old and of the new build's runs, in one new process each. swap: the new build goes first."""
    times: tuple[list[float], list[float]] = ([], [])
    order = (1, 0) if swap else (0, 1)
    workers = {build: Worker(arguments.builds[build], arguments.threads) for build in order}
    for build in order:
        workers[build].time(row, dtype)  # builds the model and warms up
    begin = time.perf_counter()
    while len(times[0]) < arguments.runs or time.perf_counter() - begin < arguments.seconds:
        for build in order:
            times[build].append(workers[build].time(row, dtype))
    for worker in workers.values():
        worker.close()
    return times


def main() -> None:
    listing = "\n".join(f"  {name:<12} {text}" for name, text in ROWS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"rows:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("builds", nargs="*", type=Path, metavar="OLD NEW", help="two checkouts that are built in place")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=[row for row in ROWS if row != "4k-2"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--processes", type=int, default=3, help="pairs of processes, one after another (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=5, help="at least so many runs in a process (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a pair of processes: short rows run so long")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return serve(arguments.serve)
    if len(arguments.builds) != 2:
        parser.error("OLD NEW: expected two folders")
    print(f"{'row':<12}{'dtype':<10}{'old s':>10}{'new s':>10}{'ratio':>8}{'runs':>6}  ratio in each pair")
    for row in arguments.rows:
        for dtype in ["float32"] if row == "processor" else arguments.dtypes:
            pairs = [time_pair(arguments, row, dtype, bool(pair % 2)) for pair in range(arguments.processes)]
            best = [min(min(pair[build]) for pair in pairs) for build in (0, 1)]
            ratios = " ".join(f"{min(pair[0]) / min(pair[1]):.3f}" for pair in pairs)
            runs = sum(len(pair[0]) for pair in pairs)
            print(
                f"{row:<12}{dtype:<10}{best[0]:>10.5f}{best[1]:>10.5f}{best[0] / best[1]:>8.3f}{runs:>6}  {ratios}",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()

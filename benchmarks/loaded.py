"""Builds of ps3c beside other load: a small forward on two threads while other processes compute.

A model of two blocks of width 32 has many short parallel regions and little work, so waiting for threads shows. Some
rows need control groups (v1 or v2) that this user may write; without them they are left out.

    python benchmarks/loaded.py build/old .
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")]
PERIOD = 100_000  # microseconds
FORWARD = """
import sys, time
import torch
from core_support import vision_arguments
from ps3c import _core

torch.set_num_threads(2)
plan, arguments = vision_arguments(_core)
weights, pixels = arguments.pop("weights"), arguments.pop("pixel_values")
arguments["threads"] = 2
for _ in range(20):
    plan.run(weights, pixels, **arguments)
times, processor, begin = [], time.process_time(), time.time()
while time.time() - begin < float(sys.argv[1]):
    start = time.perf_counter()
    plan.run(weights, pixels, **arguments)
    times.append(1000 * (time.perf_counter() - start))
processor = 1000 * (time.process_time() - processor)
times.sort()
count = len(times)
figures = times[count // 2], sum(times) / count, times[count * 99 // 100], processor / count
print("".join(f"{figure:9.2f}" for figure in figures) + f"{count:8d}")
"""


def control_group(name: str, quota: float = 0, small: bool = False) -> Path | None:
    """A control group of this name with a quota of processors, or with a small share; None if it cannot be made."""
    root = next((folder for folder in GROUPS if (folder / "cgroup.procs").exists()), None)
    if root is None:
        return None
    group, old = root / f"ps3c-{name}", (root / "cpu.shares").exists()
    try:
        group.mkdir(exist_ok=True)
        if quota and old:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(int(quota * PERIOD)))
        elif quota:
            (group / "cpu.max").write_text(f"{int(quota * PERIOD)} {PERIOD}")
        if small:
            (group / ("cpu.shares" if old else "cpu.weight")).write_text("128" if old else "12")
    except OSError:
        return None
    return group


def entering(group: Path | None):
    """What a child does before it starts its program: it enters the group."""
    return (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if group else None


def measure(build: Path, seconds: float, group: Path | None) -> str:
    """Milliseconds of a call (median, mean, 99th percentile), of processor time a call, and the number of calls."""
    paths = [build.resolve(), build.resolve() / "python", ROOT / "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-P", "-c", FORWARD, str(seconds)]
    return subprocess.run(
        command, env=environment, preexec_fn=entering(group), capture_output=True, text=True, check=True
    ).stdout.rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", type=Path, help="checkouts that are built in place")
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    rows = [
        ("alone", 0, None, None),
        ("a quota of 1 processor", 0, ("one", 1, False), None),
        ("a quota of half a processor", 0, ("half", 0.5, False), None),
        (f"{cores} busy processes", cores, None, None),
        (f"{2 * cores} busy in another group", 2 * cores, ("work", 0, False), ("load", 0, False)),
        (f"{4 * cores} busy, 8 times the share", 4 * cores, ("small", 0, True), ("load", 0, False)),
    ]
    print(f"{'':32}{'build':>20}{'median':>9}{'mean':>9}{'p99':>9}{'CPU':>9}{'calls':>8}   (ms a call)")
    for name, busy, own, other in rows:
        groups = [control_group(*group) if group else None for group in (own, other)]
        if any(group and not made for group, made in zip((own, other), groups)):
            print(f"{name:32} left out: no control group can be made")
            continue
        load = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=entering(groups[1]))
            for _ in range(busy)
        ]
        try:
            for build in arguments.builds:
                print(f"{name:32}{build.resolve().name:>20}{measure(build, arguments.seconds, groups[0])}", flush=True)
        finally:
            for process in load:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()

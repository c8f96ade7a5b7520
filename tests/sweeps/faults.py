"""Faults in a prepared process: the n-th allocation or the n-th call for a file fails, in a fork for each n.

A test starts a script by `run`, with a shared library of this folder preloaded (faults_memory.c or faults_files.c). The
script imports and loads what it needs once. Then it tries each point in a fork, which takes milliseconds and cannot
disturb the next point: `forked`. It ends with `report`, whose figures `run` adds to the test's.
"""

import contextlib
import ctypes
import faulthandler
import functools
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import end as end_process
from support import SCALE, SEED, paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 120  # of one point; each needs less than one

IO_ERROR, FULL, INTERRUPTED, SHORT, SHRINK = range(5)  # the faults of faults_files.c
LIBRARY, PYTHON = 1, 2  # the sets of faults_memory.c


# ---- in the test ----------------------------------------------------------------------------------------------------


@functools.cache
def _built(source: Path, folder: Path) -> Path:
    compiler = os.environ.get("CC", "gcc").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"needs a C compiler: {compiler}")
    target = folder / f"{source.stem}.so"
    flags = ["-shared", "-fPIC", "-O1", "-std=gnu11", "-fno-builtin", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([compiler, *flags, source, "-o", target, "-ldl"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(script: Path, source: str, folder: Path, figures, *arguments: Any, seconds: int = 900) -> dict:
    """Runs a script with a library preloaded, and adds what it reports to the figures. Returns its facts.

    folder: an empty one, for the library and for the script's files. It is the script's first argument.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("LD_PRELOAD and fork are used as on Linux")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(_built(HERE / source, folder)),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "user"), str(HERE.parent), *paths()]),
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": "1",  # a fork of a process with OpenMP's threads hangs in its next parallel region
        "PS3C_SWEEP": str(SCALE),
        "PS3C_SWEEP_SEED": str(SEED),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, str(script), str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)
    assert done.returncode == 0, done.stderr[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    figures.passed(result["passed"])
    for failure in result["failures"]:
        figures.failed(failure)
    if result["failures"]:
        print(done.stderr[-6000:])
    return result["facts"]


# ---- in the script --------------------------------------------------------------------------------------------------


class Memory:
    """faults_memory.c in this process. Use: `with memory.fault(LIBRARY, n, ever): ...`, then memory.failed."""

    def __init__(self, library: str):
        self._functions = functions = ctypes.CDLL(None)
        functions.faults_memory_open.restype = ctypes.c_char_p
        functions.faults_memory_arm.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]
        for name in ("count", "failed", "in_library", "live"):
            getattr(functions, f"faults_memory_{name}").restype = ctypes.c_long
        self.arm, self.disarm = functions.faults_memory_arm, functions.faults_memory_disarm
        missing = functions.faults_memory_open(os.fsencode(library))
        assert missing is None, missing

    @contextlib.contextmanager
    def fault(self, which: int, n: int = 0, ever: bool = False) -> Iterator[None]:
        """The n-th allocation of a set fails in the block, and all later ones if `ever`. n = 0: they are counted."""
        self.arm(which, n, ever)
        try:
            yield
        finally:
            self.disarm()

    count = property(lambda self: self._functions.faults_memory_count())
    failed = property(lambda self: self._functions.faults_memory_failed())
    in_library = property(lambda self: self._functions.faults_memory_in_library())  # the last one that failed
    live = property(lambda self: self._functions.faults_memory_live())


class Files:
    """faults_files.c in this process. Use: `with files.fault(folder, IO_ERROR, n): ...`, then files.failed."""

    def __init__(self):
        self._functions = functions = ctypes.CDLL(None)
        functions.faults_files_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
        functions.faults_files_what.restype = ctypes.c_char_p
        for name in ("count", "failed"):
            getattr(functions, f"faults_files_{name}").restype = ctypes.c_long

    @contextlib.contextmanager
    def fault(self, folder: Path, fault: int, n: int = 0, ever: bool = False) -> Iterator[None]:
        """The fault happens to the n-th call for a file below the folder, and to all later ones if `ever`."""
        self._functions.faults_files_arm(os.fsencode(folder), fault, n, ever)
        try:
            yield
        finally:
            self._functions.faults_files_disarm()

    count = property(lambda self: self._functions.faults_files_count())
    failed = property(lambda self: self._functions.faults_files_failed())
    what = property(lambda self: self._functions.faults_files_what().decode())  # the first call that failed


def forked(work: Callable[[], dict], seconds: float = SECONDS) -> dict:
    """What work() returns in a fork of this process; {"trouble": why} if the fork crashes, hangs or raises."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                result = work()
            except BaseException:
                result = {"trouble": traceback.format_exc()[-2000:]}
            with open(writing, "w") as pipe:
                json.dump(result, pipe)
        finally:
            end_process(0)
    os.close(writing)
    parts, end = [], time.monotonic() + seconds
    while True:
        if not select.select([reading], [], [], max(0, end - time.monotonic()))[0]:
            os.kill(child, signal.SIGABRT)  # faulthandler prints where it hangs
            trouble = f"not ended after {seconds} s"
            break
        parts.append(os.read(reading, 1 << 16))
        if not parts[-1]:
            trouble = "ended without a result"
            break
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and not trouble.startswith("not"):
        trouble = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    try:
        result = json.loads(b"".join(parts))
    except ValueError:
        return {"trouble": trouble}
    return result if os.waitstatus_to_exitcode(status) == 0 else {"trouble": f"ended with status {status}"}


def points(total: int, most: int, random) -> Iterable[int]:
    """The numbers 1..total, or `most` of them: the first and the last few, and others that are drawn."""
    if total <= most:
        return range(1, total + 1)
    ends = {*range(1, most // 4 + 1), *range(total - most // 8 + 1, total + 1)}
    others = [n for n in range(1, total + 1) if n not in ends]
    return sorted(ends.union(random.sample(others, most - len(ends))))


def checkpoint(folder: Path) -> Path:
    """The tiny checkpoint of examples/make_checkpoint.py, in a new folder."""
    make = runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))
    make["write_checkpoint"](folder / "tiny", tiny=True)
    return folder / "tiny"


class Report:
    """Counts of a script, for the test that ran it."""

    def __init__(self):
        faulthandler.enable()
        self.passed, self.failures, self.facts = 0, [], {}

    def add(self, label: str, trouble: str | None):
        """One trial: it held, or trouble says what did not."""
        if trouble is None:
            self.passed += 1
        else:
            self.failures.append(f"{label}: {trouble}")

    def count(self, fact: str, number: int = 1):
        self.facts[fact] = self.facts.get(fact, 0) + number

    def print(self):
        print(json.dumps({"passed": self.passed, "failures": self.failures, "facts": self.facts}))

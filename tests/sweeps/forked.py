"""A prepared process and its children.

A Python with torch takes seconds to start. So a sweep of processes runs in one process of its own, which imports and
loads everything once and then forks a child for each trial. A child that hangs is ended by SIGALRM.
"""

import ctypes
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

from support import paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 60  # far more than a child needs: it ends, or it hangs
HUNG = -signal.SIGALRM


class Tally:
    """What the prepared process counts; `alone` adds it to the figures."""

    def __init__(self):
        self.tried, self.failures, self.facts = 0, [], {}

    def check(self, good: bool, what: str) -> bool:
        self.tried += 1
        if not good:
            self.failures.append(what)
        return good

    def count(self, fact: str, number: int = 1):
        self.facts[fact] = self.facts.get(fact, 0) + number


def alone(figures, function: str, *arguments, timeout: int = 1800, **environment):
    """Runs function(tally, *arguments), named "module:function", in a new process and adds its tally to the figures."""
    command = [sys.executable, __file__, function, json.dumps([str(one) for one in arguments])]
    folders = [str(ROOT), str(ROOT / "python"), str(HERE), str(HERE.parent), *paths()]
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **environment,
    }
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=timeout)
    assert done.returncode == 0, f"the prepared process ended with {done.returncode}:\n{done.stderr[-4000:]}"
    tally = json.loads(done.stdout.splitlines()[-1])
    figures.passed(tally["tried"] - len(tally["failures"]))
    for what in tally["failures"]:
        figures.failed(what)
    figures.facts.update(tally["facts"])


def fork(function, *arguments, seconds: int = SECONDS) -> int:
    """Starts a child that runs the function and ends with its result as exit code: the child's process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        signal.alarm(seconds)
        code = function(*arguments) or 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 98
    finally:
        leave(code if isinstance(code, int) else 97)


def leave(code: int):
    """Ends this process. A signal that arrives after the function is not part of the trial."""
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
            sys.stdout.flush()
            sys.stderr.flush()
            end(code)
        except KeyboardInterrupt:
            continue


def end(code: int):
    """Ends this process without what Python does at its end. A build that counts lines (gcov) writes its counts."""
    (ctypes.CDLL(None).exit if "PS3C_COVERAGE" in os.environ else os._exit)(code)


def ended(child: int) -> int:
    """Waits for a child: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Lines:
    """A trace function that notes executed lines of FILES and sends a signal to this process before line `last`."""

    # All that touches the disk in `ps3c embed`.
    FILES = ("features/files.py", "cli/_outputs.py", "cli/_lock.py", "cli/embed.py", "ps3c/_temporary.py")

    def __init__(self, last: int, number: int, log: Path):
        self.last, self.number, self.log, self.functions = last, number, log, []

    def trace(self, frame, event, argument):
        return self.line if frame.f_code.co_filename.endswith(self.FILES) else None

    def line(self, frame, event, argument):
        if event == "line":
            self.functions.append(frame.f_code.co_name)
            if len(self.functions) == self.last + 1:
                self.write()
                os.kill(os.getpid(), self.number)
        return self.line

    def write(self):
        """Writes the function of each line."""
        self.log.write_text(json.dumps(self.functions))


def to_file(path: Path):
    """Sends what this process prints, also from C, to the end of a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def write_checkpoint(folder: Path, vision: dict | None = None, text: dict | None = None):
    """A checkpoint of the tiny model, with other sizes where they are given."""
    make = runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))
    names = make["write_checkpoint"].__globals__
    names["TINY_VISION"] = {**names["TINY_VISION"], **(vision or {})}
    names["TINY_TEXT"] = {**names["TINY_TEXT"], **(text or {})}
    make["write_checkpoint"](folder, tiny=True)


def photographs(folder: Path, count: int) -> list[str]:
    """Writes small images of different sizes: their names."""
    import numpy
    from PIL import Image

    names = [str(folder / f"{number}.png") for number in range(count)]
    for number, name in enumerate(names):
        pixels = numpy.random.default_rng(number).integers(0, 256, (64, 40 + 8 * number, 3), numpy.uint8)
        Image.fromarray(pixels).save(name)
    return names


def prepare(threads: int = 1):
    """Imports what the trials need."""
    import torch

    import ps3c
    import ps3c.cli

    warnings.simplefilter("ignore", DeprecationWarning)  # fork of a process with threads
    torch.set_num_threads(threads)
    # A shell's background job starts with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return torch, ps3c


def main(function: str, arguments: str) -> int:
    module, name = function.split(":")
    tally = Tally()
    answer = os.dup(1)
    os.dup2(2, 1)  # what the trials print is not the answer
    getattr(importlib.import_module(module), name)(tally, *json.loads(arguments))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    tally.facts["CPU time [s]"] = round(sum(one.ru_utime + one.ru_stime for one in used))
    os.write(answer, (json.dumps(vars(tally)) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

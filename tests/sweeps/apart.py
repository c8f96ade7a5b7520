"""Points of a sweep in a process of its own: a crash, an exit or a hang fails the sweep and says at which point.

The script prints its points by `at`, `passed`, `failed` and `fact`; `tried` runs it and counts them.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


# ---- in the script ---------------------------------------------------------------------------------------------------


def _say(kind: str, *words):
    print(kind, *(str(word).replace("\n", " ") for word in words), flush=True)


def at(what):
    """The point that comes next."""
    _say("at", what)


def passed(number: int = 1):
    _say("passed", number)


def failed(what):
    _say("failed", what)


def fact(name: str, value):
    """A figure for the sweep's line."""
    _say("fact", name, value)


# ---- in the test -----------------------------------------------------------------------------------------------------


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with {code}"
    names = {signal.SIGSEGV: "crashed", signal.SIGABRT: "aborted", signal.SIGKILL: "was stopped after a hang"}
    return f"{names.get(-code, 'ended')} (signal {-code})"


def tried(figures, script: str, *arguments: str, timeout: float = 600, **environment: str):
    """Runs a script of this folder to its end and adds its points to figures."""
    command = [sys.executable, str(HERE / script), *arguments]
    child = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        said, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        said, errors = child.communicate()
    point = "the start"
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "at":
            point = rest
        elif kind == "passed":
            figures.passed(int(rest))
        elif kind == "failed":
            figures.failed(rest)
        elif kind == "fact":
            name, _, value = rest.partition(" ")
            figures.facts[name] = value
    if child.returncode:
        figures.failed(f"{script} {ending(child.returncode)} at {point}: {errors[-1500:]}")

"""Hostile arguments: 20,000 calls with up to three of them, and fewer under `python -O`.

Calls: the forwards of both towers, PS3VisionEncoder.steps and forward_low_res, PS3ImageProcessor, plan and run of
ps3c._core (hostile_targets.py, hostile_core.py, hostile_images.py). What must hold: an answer that is right, bit for
bit that of plain copies of the arguments; or a TypeError, a ValueError, or another kind that the value's row allows,
whose message is short and names the argument. The next plain call gives the same bits. No crash, no hang: each run is a
process of its own, with a limit of memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import SEED, trials

HERE = Path(__file__).resolve().parent
SECONDS = 1200  # far more than it needs


def hostile(*arguments: int, optimised: bool) -> dict:
    """The report of hostile.py in a process of its own. A crash or a hang fails the test, with the stacks."""
    command = [sys.executable, *(["-O"] if optimised else []), str(HERE / "hostile.py"), *map(str, arguments)]
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-4000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("optimised", [False, True], ids=["plain", "python -O"])
def test_hostile_arguments(optimised, figures):
    count = trials(2000 if optimised else 20000)
    report = hostile(count, SEED + optimised, optimised=optimised)
    assert report["optimised"] == int(optimised)
    figures.passed(report["tried"] - len(report["failures"]))
    for failure in report["failures"]:
        figures.failed(failure)
    assert report["tried"] == count
    figures.finish(longest_s=round(report["longest"], 2))

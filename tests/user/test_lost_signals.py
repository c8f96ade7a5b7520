"""A signal whose exception Python drops, inside a `__del__`, ends a command all the same."""

import subprocess
import sys

import pytest
from cli_support import environment

LOST = """
import os, signal, sys, time
from ps3c._signals import Terminated, ending_on_signals

class Dying:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        sum(range(1000))

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
try:
    with ending_on_signals():
        hook = sys.unraisablehook
        Dying()
        time.sleep(20)
    print("not heard")
except (Terminated, KeyboardInterrupt) as error:
    print(type(error).__name__, error, sys.unraisablehook is not hook)
"""


@pytest.mark.parametrize(
    "number, expected", [(2, "KeyboardInterrupt  True"), (15, "Terminated 143 True"), (1, "Terminated 129 True")]
)
def test_is_sent_again(number, expected):
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(number)], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.stdout.strip() == expected, done.stderr


def test_other_exceptions_are_shown():
    program = LOST.replace("os.kill(os.getpid(), int(sys.argv[1]))", "1 / 0").replace("time.sleep(20)", "")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert "ZeroDivisionError" in done.stderr and done.stdout.strip() == "not heard"

"""A signal ends a command also if Python drops its exception, inside a `__del__`, or if another package catches it."""

import json
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


# In each place another package catches the exception. Then it goes on, or it raises an error of its own.
CAUGHT = """
import contextlib, io, itertools, json, os, signal, sys
from unittest import mock
import gradio, ps3c.cli, ps3c.features.load, ps3c.features.reading, ps3c.page.server

model, image, folder = sys.argv[1:]
embed = ["embed", image, image, "-m", model, "--batch-size", "1", "-o"]
demo = ["demo", "-m", model, "--port", "0"]
places = {
    "load": (ps3c.features.load, "load", embed, RuntimeError("not a file")),
    "read": (ps3c.features.reading.Reader, "prepare", embed, ps3c.ImageError("one", "unreadable")),
    "build": (ps3c.page.server, "build", demo, TypeError("no signature")),
    "launch": (gradio.Blocks, "launch", demo, OSError("no port")),
}
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
for (place, (owner, name, command, error)), number, goes_on in itertools.product(places.items(), (2, 15, 1), (1, 0)):
    real = getattr(owner, name)

    def caught(*arguments, **options):
        try:
            os.kill(os.getpid(), number)
            sum(range(1000))
        except BaseException:
            if not goes_on:
                raise error from None
            return real(*arguments, **options)

    output = [f"{folder}/{place}-{number}-{goes_on}.npz"] if command is embed else []
    said = io.StringIO()
    with mock.patch.object(owner, name, caught), contextlib.redirect_stderr(said):
        code = ps3c.cli.main(command + output)
    print(json.dumps([place, number, goes_on, code, said.getvalue()]))
"""


def test_is_raised_again(tiny_checkpoint, image_files, tmp_path):
    pytest.importorskip("gradio")
    done = subprocess.run(
        [sys.executable, "-c", CAUGHT, str(tiny_checkpoint), str(image_files[0]), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=200,
    )
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cases) == 24, done.stderr
    ends = {2: (130, "ps3c: interrupted"), 15: (143, "ps3c: terminated"), 1: (129, "ps3c: terminated")}
    for place, number, goes_on, code, said in cases:
        assert (code, said.splitlines()[-1]) == ends[number], (place, number, goes_on, said)
        assert "unreadable" not in said
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.errors*"))

"""Runs the `ps3c` command in tests: in a separate process or, much faster, in this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def environment(**changes):
    """The environment variables: the checkout's package comes first, and no variable changes the output."""
    names = ("NO_COLOR", "PS3C_CPU_LEVEL", "PS3C_REFERENCE", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def spawn(*arguments, **options):
    """`python -m ps3c ARGUMENTS` as a running process."""
    command = [sys.executable, "-m", "ps3c", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(), **options}
    return subprocess.Popen(command, **options)


def run(*arguments, input=None, timeout=120, **options):
    """Runs `python -m ps3c ARGUMENTS` and returns (exit code, stdout, stderr)."""
    process = spawn(*arguments, stdin=subprocess.PIPE, **options)
    out, err = process.communicate(input, timeout)
    return process.returncode, out, err


@pytest.fixture
def ps3c_main(capsys):
    """ps3c.cli.main in this process: call it with arguments, get (exit code, stdout, stderr)."""
    from transformers.utils import logging

    from ps3c.cli import main

    threads, verbosity, bars = torch.get_num_threads(), logging.get_verbosity(), logging.is_progress_bar_enabled()

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


def error_line(err: str) -> str:
    """The error line in stderr. Fails if there is not exactly one, or if there is a traceback."""
    lines = [line for line in err.splitlines() if line.startswith("ps3c: error: ")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0][len("ps3c: error: ") :]

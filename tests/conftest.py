"""Settings for all tests: two threads, and the folder of the tests on the path for their shared modules.

Waiting threads sleep rather than spin: of two packages' short parallel loops in turn, spinning makes a crowd.
"""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
import reference
import torch

reference.declare_torchvision_operators()
# A shell's background job starts with SIGINT ignored; the tests of interruption want it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(min(2, os.cpu_count() or 1))

# Under the sanitizers, a few times slower, only tests that run C code of ps3c's which no other test runs; memory in use
# says little there, since freed memory is kept for a while. Of the sweeps, the one of integers that may overflow.
if "PS3C_ASAN" in os.environ:
    sweeps = (Path(__file__).parent / "sweeps").glob("test_*.py")
    names = ("autocast", "build", "c_library", "changed_layers", "cuda_on_cpu", "memory", "processor", "python_api")
    names += ("python_bad_input", "recorders", "rooms", "tokenizer", "transformers_matrix")
    collect_ignore = ["user", *(f"test_{name}.py" for name in names)]
    collect_ignore += [f"sweeps/{file.name}" for file in sweeps if file.name != "test_operation_arguments.py"]


# `make test` gives whole files to its processes. The longest come first: one that starts last would run alone.
LONGEST_FIRST = (
    "test_cuda_on_cpu.py",
    "test_parity_cuda.py",
    "test_transformers_matrix.py",
    "test_wheel.py",
    "test_leaks_models.py",
    "test_leaks_encoder.py",
    "test_leaks_refused.py",
    "test_leaks_core.py",
    "test_forks.py",
    "test_nth_file_call.py",
    "test_embed_memory.py",
    "test_kill.py",
    "test_threads.py",
    "test_parity_vision.py",
    "test_signals.py",
    "test_steps.py",
    "test_bad_input.py",
    "test_plan.py",
    "test_notebooks.py",
    "test_c_library.py",
)


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_terminal_summary(terminalreporter):
    """Prints the figures of the sweeps, which their tests record (tests/sweeps/support.py)."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = [value for report in reports for name, value in report.user_properties if name == "sweep"]
    if lines:
        terminalreporter.section("sweeps")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was():
    """A failed load can leave torch's default dtype changed (transformers 4.46); no test inherits that."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)

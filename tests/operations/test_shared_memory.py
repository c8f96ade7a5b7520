"""Memory of operations on a GPU, with a fake driver: which functions are called, and how errors are reported."""

import os
import subprocess
import sys
from pathlib import Path

import emulated
import pytest
import torch

from .extension import FILE

FAKES = Path(__file__).parent / "fake_driver"

pytestmark = [
    pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing() or "-"),
    pytest.mark.skipif("PS3C_ASAN" in os.environ, reason="the emulated library is built without sanitizers"),
]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory) -> Path:
    """A folder with libcuda.so.1 and a CUDA library for it."""
    folder = tmp_path_factory.mktemp("fake driver")
    for source, target in (("driver.c", "libcuda.so.1"), ("library.c", "library.so")):
        command = ["gcc", "-std=gnu11", "-shared", "-fPIC", FAKES / source, "-o", folder / target, "-ldl"]
        subprocess.run(command, check=True)
    return folder


CALL = """
import ctypes
import numpy as np
from operations import operations
x, one, zero = np.arange(8, dtype="f").reshape(1, 1, 8), np.ones(8, "f"), np.zeros(8, "f")
try:
    got = operations.layernorm(x, one, zero, level="cuda")
    print(np.allclose(got, operations.layernorm(x, one, zero), atol=1e-6))
except (MemoryError, RuntimeError) as error:
    print(type(error).__name__, error)
"""
COUNTS = """
driver = ctypes.CDLL("libcuda.so.1")
print(*(ctypes.c_int.in_dll(driver, f"fake_{name}").value for name in ("allocated", "released", "waited")))
"""


def run(code, folder, fail="", **environment):
    library = emulated.library()
    environment = {
        **os.environ,
        "PS3C_OPERATIONS": FILE,
        "PS3C_CUDA_LIBRARY": str(folder / "library.so"),
        "FAKE_DRIVER_KERNELS": str(library),
        "FAKE_DRIVER_FAIL": fail,
        "LD_LIBRARY_PATH": str(folder),
        **environment,
    }
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=FAKES.parent.parent, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines(), result.stderr


def test_memory_comes_from_the_driver_and_goes_back(fakes):
    (same, counts), errors = run(CALL + COUNTS, fakes)
    allocated, released, waited = map(int, counts.split())
    assert same == "True" and not errors
    assert allocated == released > 3 and waited >= 3  # from_rows, layernorm, to_rows


@pytest.mark.parametrize(
    "function, said",
    [
        ("cuMemAllocHost", "MemoryError cuMemAllocHost: CUDA_ERROR_OUT_OF_MEMORY (2)"),
        ("cuCtxSynchronize", "RuntimeError cuCtxSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS (700)"),
    ],
    ids=["allocate", "wait"],
)
def test_an_error_of_the_driver_is_raised(function, said, fakes):
    lines, _ = run(CALL + COUNTS, fakes, fail=function)
    allocated, released, _ = map(int, lines[1].split())
    assert lines[0] == said and allocated == released


def test_memory_that_does_not_go_back_is_reported(fakes):
    """The result is returned. The error is reported as Python reports errors in destructors."""
    lines, errors = run(CALL, fakes, fail="cuMemFreeHost")
    assert lines == ["True"] and "cuMemFreeHost: CUDA_ERROR_ILLEGAL_ADDRESS (700)" in errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_no_driver(fakes):
    (line,), _ = run(CALL, fakes, LD_LIBRARY_PATH="")
    assert line.startswith("RuntimeError the CUDA driver cannot be opened: libcuda.so.1")

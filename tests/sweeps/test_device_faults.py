"""The n-th call of the CUDA runtime or of cuBLASLt fails, on the emulated device: once, for ever, or with an error
that no call clears. n runs over the calls of vision, text and stepwise forwards and of their plans.

What must hold: RuntimeError, or MemoryError for an error about memory, which names the function (of a launch: the
operation), the error and the device; never an exit, a hang, a wrong number or a silent success. After an error that is
cleared, the next forward has the right bits, and no error stays for cudaGetLastError. After one that is not, each
forward raises the same kind. Nothing is left behind: no description or handle of cuBLASLt, no memory, and the caller's
CUDA context is current again. The points are in device_faults.py.
"""

import os
import subprocess

import apart
import emulated
import pytest

pytestmark = [
    pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing() or "-"),
    pytest.mark.skipif("PS3C_ASAN" in os.environ, reason="the emulated library is built without sanitizers"),
]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that uses the emulated device and a fake driver."""
    driver = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = emulated.HERE.parent / "operations" / "fake_driver" / "driver.c"
    subprocess.run(
        ["gcc", "-std=gnu11", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", source, "-o", driver], check=True
    )
    library = emulated.library()
    return {
        "PS3C_CUDA_LIBRARY": str(library),
        "PS3C_CUBLASLT": str(library.parent / "libcublasLt_stand_in.so"),
        "SWEEP_DRIVER": str(driver),
        "EMU_THREADS": "1",
    }


def test_the_nth_call_fails(figures, libraries):
    apart.tried(figures, "device_faults.py", "warm", "18", **libraries)
    figures.finish()


def test_the_nth_call_of_a_process_fails(figures, libraries, tmp_path):
    apart.tried(figures, "device_faults.py", "cold", "20", str(tmp_path), **libraries)
    figures.finish()

"""The CUDA backend on the CPU: its kernels as tests/cuda_on_cpu runs them, loaded as if they were the real library.

`library()` builds it once. In an emulated run device memory is the host's: a model stays on the CPU for torch, and only
the engine is told that its tensors are on "cuda:0".
"""

import fcntl
import functools
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from ps3c import _core
from ps3c.engine import tensors

HERE = Path(__file__).resolve().parent / "cuda_on_cpu"
BUILD = HERE.parent.parent / "build" / "cuda-on-cpu"


def missing() -> str:
    """Why the kernels cannot be built here; "" when they can."""
    if os.uname().machine != "x86_64":
        return "tests/cuda_on_cpu runs on x86-64 alone"
    if not shutil.which("g++"):
        return "no g++"
    if not include():
        return "no cuda_runtime_api.h: neither nvcc nor CUDA_HOME is here (tests/cuda_on_cpu/README.md)"
    return ""


def include() -> str:
    """The folder of CUDA's headers, or ""."""
    nvcc = shutil.which("nvcc")
    homes = [
        os.environ.get("CUDA_HOME", ""),
        str(Path(nvcc).resolve().parent.parent) if nvcc else "",
        "/usr/local/cuda",
    ]
    homes.append(str(HERE.parent.parent / ".cache/cuda/nvidia/cu13"))
    folders = [Path(home, "include") for home in homes if home]
    return next((str(folder) for folder in folders if (folder / "cuda_runtime_api.h").is_file()), "")


@contextmanager
def building():
    """Tests run in several processes, of which one at a time may write into BUILD."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def library() -> Path:
    """Builds the emulated library and makes this process's engine open it. RuntimeError: what make said."""
    with building():
        made = subprocess.run(
            ["make", "-s", "-j2", "-C", str(HERE), f"BUILD={BUILD}", f"CUDA_INCLUDE={include()}", "emulated"],
            capture_output=True,
            text=True,
        )
    if made.returncode:
        raise RuntimeError(made.stdout + made.stderr)
    path = BUILD / "libps3c_cuda_emulated.so"
    os.environ.setdefault("PS3C_CUDA_LIBRARY", str(path))
    os.environ.setdefault("PS3C_CUBLASLT", str(BUILD / "libcublasLt_stand_in.so"))
    reason = _core.cuda_error()
    if reason:
        raise RuntimeError(reason)
    return path


@contextmanager
def device():
    """Within it every forward runs on the emulated device."""
    library()
    original = tensors.device_of
    tensors.device_of = lambda tensor: ("cuda", 0)
    try:
        yield
    finally:
        tensors.device_of = original

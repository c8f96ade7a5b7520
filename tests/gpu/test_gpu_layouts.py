"""The warp instructions that tests/cuda_on_cpu emulates give the same results as the hardware.

That emulator's lane layouts are a reading of the manual, and kernels tested with it would share a mistake in it.
"""

import shutil
import subprocess
from pathlib import Path

import gpu_support
import pytest
import torch

pytestmark = gpu_support.needs_gpu

SOURCE = Path(__file__).resolve().parent / "layouts.cu"
EMULATOR = SOURCE.parent.parent / "cuda_on_cpu"


def run(*command) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stderr}"
    return result.stdout


def emulated(folder: Path) -> list:
    """Lines that layouts.cu prints on the CPU."""
    options = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-pthread",
        "-I",
        EMULATOR,
        "-isystem",
        gpu_support.cuda_include(),
        "-Wno-unknown-pragmas",
    ]
    program = folder / "layouts.o"
    run("g++", *options, "-include", "cuda_on_cpu.h", "-x", "c++", "-c", SOURCE, "-o", program)
    runner = [EMULATOR / f"{name}.cpp" for name in ("cuda_on_cpu", "warp", "runtime")]
    run("g++", *options, *runner, program, "-o", folder / "emulated", "-ldl", "-lm")
    return run(folder / "emulated").splitlines()


def on_hardware(folder: Path) -> list:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("needs nvcc")
    major, minor = torch.cuda.get_device_capability()
    run(nvcc, "-std=c++17", "-O2", f"-arch=sm_{major}{minor}", SOURCE, "-o", folder / "hardware")
    return run(folder / "hardware").splitlines()


def test_layouts(tmp_path):
    expected, got = emulated(tmp_path), on_hardware(tmp_path)
    assert len(got) == len(expected) > 400
    different = [f"hardware {mine}\nemulator {other}" for mine, other in zip(got, expected) if mine != other]
    assert not different, f"{len(different)} lines differ, first\n" + "\n".join(different[:4])

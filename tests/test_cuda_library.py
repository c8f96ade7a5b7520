"""How the engine finds its CUDA library and what happens when something about it is wrong: missing, of another build,
without cuBLASLt, a launch that fails; and that a forward waits for nothing. Each in a process of its own, or emulated.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import core_support
import emulated
import models
import pytest
import torch

from ps3c import _core

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "cuda" / "ps3c" / "libps3c_cuda.so"

needs_kernels = pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing())
pytestmark = pytest.mark.skipif("PS3C_ASAN" in os.environ, reason="the kernels' own tests run under sanitizers")

ERROR = "from ps3c import _core\nprint(_core.cuda_error())"


def python(code, **environment):
    """What the code prints, in a new process whose engine has opened no library."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PS3C_CUDA_LIBRARY", "PS3C_CUBLASLT")}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), *filter(None, [variables.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code]  # in a folder without a ps3c
    done = subprocess.run(command, env=variables | environment, capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_library(tmp_path):
    said = python(ERROR, PS3C_CUDA_LIBRARY=str(tmp_path / "none.so"))
    assert "CUDA library cannot be opened" in said and "none.so" in said and "PS3C_CUDA=1" in said


def test_another_library(tmp_path):
    """A library that is none of ours, and one of another build: refused by name, and the CPU still works."""
    for source, name in [("", "empty"), ("const void *ps3c_cuda_open(const void *host) { return 0; }", "other")]:
        file = tmp_path / f"{name}.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(file)], input=source, text=True, check=True
        )
        said = python(ERROR, PS3C_CUDA_LIBRARY=str(file))
        assert f"{name}.so belongs to another build of ps3c" in said
    code = """
import torch, models, reference
from ps3c import _core
reference.declare_torchvision_operators()
model = models.ours("vision", "no_highres")
assert _core.cuda_error()
print(model(models.image(1, 64, 64), num_look_close=0).last_hidden_state.isfinite().all().item())
"""
    assert python(f"import torch\nwith torch.no_grad():\n    exec({code!r})", PS3C_CUDA_LIBRARY=str(file)) == "True"


@pytest.mark.skipif(not BUILT.is_file(), reason="`make cuda` was not run")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_driver():
    """The real library opens anywhere; without a driver the sentence says so."""
    said = python(ERROR, PS3C_CUDA_LIBRARY=str(BUILT))
    if "belongs to another build" in said:
        pytest.skip("`make cuda` was run before the interface changed")
    assert "CUDA cannot be used here" in said


EMULATED = """
import torch, models, emulated, reference
reference.declare_torchvision_operators()
model = models.ours("vision", "no_highres")
def run():
    with torch.no_grad(), emulated.device():
        return model(models.image(1, 64, 64), num_look_close=1)
"""


@needs_kernels
def test_no_cublaslt(tmp_path):
    code = EMULATED + "try:\n    run()\nexcept RuntimeError as error:\n    print(error)"
    said = python(code, PS3C_CUBLASLT=str(tmp_path / "none.so"))
    assert "gemm: no cuBLASLt" in said and "none.so" in said


@needs_kernels
@pytest.mark.parametrize(
    "kernel, operation",
    [
        ("attention", "attention"),
        ("norm_warp", "layernorm"),
        ("gather_patches", "patch_gather"),
        ("rank_small", "rank"),
    ],
)
def test_a_launch_that_fails(kernel, operation):
    """RuntimeError that names operation and device; the next call is right again."""
    model, pixels = models.ours("vision", "no_highres"), models.image(1, 64, 64)
    library = ctypes.CDLL(str(emulated.library()))
    with torch.no_grad(), emulated.device():
        before = model(pixels, num_look_close=1).last_hidden_state
        library.emu_fail_next_launch(kernel.encode())
        with pytest.raises(RuntimeError, match=rf"{operation} on cuda:0: .*cudaErrorLaunchOutOfResources"):
            model(pixels, num_look_close=1)
        assert torch.equal(model(pixels, num_look_close=1).last_hidden_state, before)


@needs_kernels
def test_a_forward_waits_for_nothing():
    """The emulator stops the process at a synchronisation or a copy to the host; a plan may ask for free memory."""
    code = (
        EMULATED
        + """
import ctypes
library = ctypes.CDLL(str(emulated.library()))
run()
library.emu_forbid_waiting(True)
print(run().last_hidden_state.isfinite().all().item())
"""
    )
    assert python(code) == "True"
    with pytest.raises(AssertionError, match="may neither allocate nor wait"):  # the check can fail
        python(code + "library.emu_wait()")


@needs_kernels
@pytest.mark.parametrize("index", [-1, 1, 7])
def test_no_such_device(index):
    emulated.library()
    assert f"got cuda:{index}, expected one of the 1 devices here" in _core.cuda_error(index)


LIMITS = {"": 256 << 20, "1048576": 1 << 20, "1M": 1 << 20, "64m": 64 << 20, "2G": 2 << 30}


@pytest.mark.parametrize("asked", LIMITS)
def test_workspace_limit_of_the_environment(asked, monkeypatch):
    monkeypatch.setenv("PS3C_WORKSPACE_LIMIT", asked)
    plan = _core.VisionModel(core_support.VISION).plan(64, 128, 128, num_look_close=2)
    assert plan.workspace_bytes <= LIMITS[asked]


@pytest.mark.parametrize("bad", ["lots", "12X", "-5", "0", "1.5G"])
def test_workspace_limit_that_is_none(bad, monkeypatch):
    monkeypatch.setenv("PS3C_WORKSPACE_LIMIT", bad)
    with pytest.raises(ValueError, match=f"PS3C_WORKSPACE_LIMIT: got '{bad}', expected bytes"):
        _core.VisionModel(core_support.VISION).plan(1, 128, 128, num_look_close=2)


@pytest.mark.parametrize("bad, error", [(0, ValueError), (-1, ValueError), ("1G", TypeError), (1.5, TypeError)])
def test_workspace_limit_attribute(bad, error):
    model, pixels = models.ours("vision", "no_highres"), models.image(1, 64, 64)
    try:
        model.vision_model.workspace_limit = bad
        with torch.no_grad(), pytest.raises(error, match="workspace_limit"):
            model(pixels, num_look_close=1)
    finally:
        model.vision_model.workspace_limit = None


@pytest.mark.parametrize(
    "wanted, gpu, said",
    [
        ("auto", False, "CUDA library: not built, because this machine has no NVIDIA GPU; PS3C_CUDA=1 builds it"),
        ("auto", True, "CUDA library: built with /nvcc, because this machine has an NVIDIA GPU"),
        ("0", True, "CUDA library: not built, because PS3C_CUDA=0"),
        ("1", False, "CUDA library: built with /nvcc, because PS3C_CUDA=1"),
    ],
)
def test_when_it_is_built(wanted, gpu, said):
    """Not because nvcc is there: the build of a library that nobody uses takes minutes."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from native_build import CudaLibrary\n"
        f"CudaLibrary.has_gpu = staticmethod(lambda: {gpu})\n"
        "library = CudaLibrary()\n"
        "print(library.nvcc)"
    )
    shown = python(code, PS3C_CUDA=wanted, NVCC="/nvcc").splitlines()
    assert shown[0].startswith(said)
    assert shown[1] == ("/nvcc" if "with /nvcc" in said else "None")

"""Single matrix products with ps3c, torch and oneDNN, and the arrays that are arguments of single operations."""

import ctypes
import functools
import importlib.util
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import common
import numpy as np
import torch

NAMES = {dtype: name for name, dtype in common.DTYPES.items()}


# ---- arrays --------------------------------------------------------------------------------------------------------


def random(shape, dtype: str, scale: float = 1.0) -> np.ndarray:
    """Normally distributed values in the operations' dtypes: float32, float16, or uint16 for bfloat16."""
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).mul_(scale)
    tensor = tensor.to(common.DTYPES[dtype])
    return tensor.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else tensor.numpy()


@functools.cache
def extension() -> ModuleType:
    """The extension of tests/operations, built if needed. It is imported by path: this folder has an operations.py."""
    path = common.ROOT / "tests" / "operations" / "extension.py"
    spec = importlib.util.spec_from_file_location("tests_extension", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.operations


def seconds(name: str, *arguments, **keywords) -> float:
    """Runs one operation. Returns the seconds of the backend's call."""
    getattr(extension(), name)(*arguments, **keywords)
    return extension().seconds()


# ---- matrix products -----------------------------------------------------------------------------------------------


def gemm_arrays(tokens: int, n: int, k: int, dtype: str):
    return random((1, tokens, k), dtype), random((n, k), dtype, k**-0.5), random((n,), dtype, 0.1)


def gemm_seconds(tokens: int, n: int, k: int, dtype: torch.dtype) -> Callable[[], float]:
    """A call that runs a plain product with ps3c and returns its seconds."""
    name = NAMES[dtype]
    x, weight, _ = gemm_arrays(tokens, n, k, name)
    return partial(seconds, "gemm", x, weight, dtype=name, threads=torch.get_num_threads())


def gemm_torch(tokens: int, n: int, k: int, dtype: torch.dtype) -> Callable[[], float]:
    """A call that runs a plain product with torch and returns its seconds."""
    x, weight = torch.randn(tokens, k).to(dtype), torch.randn(n, k).to(dtype)
    out = torch.empty(tokens, n, dtype=dtype)
    return partial(common.stopwatch, lambda: torch.mm(x, weight.T, out=out))


class OneDNN:
    """oneDNN's matmul, called through a small library that is compiled here."""

    def __init__(self, folder: Path, scratch: Path):
        header = next(folder.rglob("oneapi/dnnl/dnnl.hpp"), None)
        library = next(folder.rglob("libdnnl.so*"), None)
        if header is None or library is None:
            raise OSError(f"{folder}: has no oneapi/dnnl/dnnl.hpp or no libdnnl.so")
        source, target = Path(__file__).with_name("onednn_gemm.cpp"), scratch / "onednn_gemm.so"
        result = subprocess.run(
            [
                "g++",
                "-O2",
                "-std=c++17",
                "-shared",
                "-fPIC",
                f"-I{header.parent.parent.parent}",
                str(source),
                "-o",
                str(target),
                str(library),
                f"-Wl,-rpath,{library.parent}",
            ],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise OSError(f"onednn_gemm.cpp does not compile: {result.stderr[:500]}")
        # torch contains another oneDNN with the same symbol names; these flags keep the two separate.
        self._library = ctypes.CDLL(str(target), mode=os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
        self._library.onednn_gemm_new.restype = ctypes.c_void_p
        self._library.onednn_gemm_new.argtypes = [ctypes.c_long] * 3 + [ctypes.c_int] * 2 + [ctypes.c_void_p] * 5
        self._library.onednn_gemm_run.argtypes = self._library.onednn_gemm_free.argtypes = [ctypes.c_void_p]

    def gemm(self, tokens, n, k, dtype: str, gelu: bool, residual: bool) -> Callable[[], float] | None:
        """A call that returns its seconds. None if oneDNN does not support it (bfloat16 without AVX-512-BF16)."""
        if dtype == "float16":
            return None
        x, weight, _ = gemm_arrays(tokens, n, k, dtype)
        bias, other, y = random((n,), "float32"), random((tokens, n), dtype), random((tokens, n), dtype)
        arrays = [x, weight, bias, other if residual else None, y]
        handle = self._library.onednn_gemm_new(
            tokens, n, k, dtype == "bfloat16", gelu, *(None if a is None else a.ctypes.data for a in arrays)
        )
        if not handle:
            return None

        def run(arrays=arrays) -> float:  # keeps the arrays alive
            return common.stopwatch(lambda: self._library.onednn_gemm_run(handle))

        run.free = lambda: self._library.onednn_gemm_free(handle)
        return run


# ---- ceiling -------------------------------------------------------------------------------------------------------


def gemm_ceiling(dtype: torch.dtype, tokens: int, width: int, hidden: int, runs: int = 3) -> dict[str, Any]:
    """The best rate of a plain matrix product of the trunk's MLP shapes, with torch or ps3c.

    Returns {"gflops": rate, "by": "torch" or "ps3c", "rates": both rates}. The product has no epilogue and no copies.
    It is an upper bound for the rate of a whole pass.
    """
    rates: dict[str, float] = {}
    for n, k in ((hidden, width), (width, hidden)):
        calls = {"torch": gemm_torch(tokens, n, k, dtype), "ps3c": gemm_seconds(tokens, n, k, dtype)}
        timings = common.alternate(calls, runs + 1, seconds=1.0, measure=lambda call: call(), most=20)
        for name, timing in timings.items():
            rates[name] = max(rates.get(name, 0.0), 2e-9 * tokens * n * k / timing.best)
    by = max(rates, key=rates.get)
    return {"gflops": rates[by], "by": by, "rates": rates}

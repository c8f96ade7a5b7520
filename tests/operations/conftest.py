import os

import emulated
import pytest

from . import operations
from .support import DTYPES, LEVELS


@pytest.fixture(params=[*LEVELS, "cuda"])
def level(request):
    """Every instruction set that this processor has, "naive" included; "cuda": a GPU, or its kernels on the CPU."""
    if request.param == "cuda":
        if "PS3C_ASAN" in os.environ:
            pytest.skip("the kernels' own tests (tests/cuda_on_cpu) run under sanitizers")
        if operations.cuda_error() is not None:
            if emulated.missing():
                pytest.skip(emulated.missing())
            emulated.library()
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param

"""The points of test_device_faults.py: forwards on the emulated device whose n-th call of a library fails.

Arguments: "warm" (the forwards have run before) or "cold" (each point is the first of its process); the number of
points for each forward and library; a folder. The environment names the libraries.
"""

import ctypes
import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import apart
import forked
import support
import tiny_core
import torch

from ps3c import _core

ONCE, FOR_EVER, STICKY = range(3)
MODES = ("once", "for ever", "sticky")
COLD = sys.argv[1:2] == ["cold"]
CALLERS_CONTEXT = 0x77000
MEMORY = {"cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED"}
RUNTIME_ERRORS = {
    "cudaErrorMemoryAllocation": 2,
    "cudaErrorLaunchFailure": 719,
    "cudaErrorIllegalAddress": 700,
    "cudaErrorStreamCaptureUnsupported": 900,
}
LT_ERRORS = {
    "CUBLAS_STATUS_NOT_INITIALIZED": 1,
    "CUBLAS_STATUS_ALLOC_FAILED": 3,
    "CUBLAS_STATUS_EXECUTION_FAILED": 13,
    "CUBLAS_STATUS_NOT_SUPPORTED": 15,
}
DEVICE_CHECK = 2  # calls of a plan that may not fail: is there a device, and of which architecture?
# A refused product is computed by another kernel, whose sums have another order.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 2e-1}

driver = ctypes.CDLL(os.environ["SWEEP_DRIVER"], mode=ctypes.RTLD_GLOBAL)
driver.cuCtxGetCurrent.argtypes = [ctypes.POINTER(ctypes.c_void_p)]
driver.cuCtxSetCurrent.argtypes = [ctypes.c_void_p]


class Library:
    """A stand-in whose calls can fail."""

    def __init__(self, file: str, prefix: str, errors: dict[str, int], modes: tuple[int, ...]):
        self.errors, self.modes = errors, modes
        self.handle = ctypes.CDLL(file)
        self.fault, self.calls, self.live = (self._function(prefix + name) for name in ("fault", "calls", "live"))
        self.fault.argtypes, self.calls.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int], []
        self.called = self._function(prefix + "called", ctypes.c_char_p)

    def _function(self, name, result=ctypes.c_long):
        function = getattr(self.handle, name)
        function.restype = result
        return function


RUNTIME = Library(os.environ["PS3C_CUDA_LIBRARY"], "emu_", RUNTIME_ERRORS, (ONCE, FOR_EVER, STICKY))
LT = Library(os.environ["PS3C_CUBLASLT"], "stand_in_lt_", LT_ERRORS, (ONCE, FOR_EVER))
emu_last_error, lt_handles = RUNTIME.handle.emu_last_error, LT.handle.stand_in_lt_handles

# ---- the forwards ----------------------------------------------------------------------------------------------------


class Forward(tiny_core.Pass):
    """A forward on the emulated device. `forward` makes its plan and computes its outputs, which start as NaN."""

    def __init__(self, *arguments, **request):
        super().__init__(_core, *arguments, device=("cuda", 0), **request)
        self.expected: list[torch.Tensor] = []
        self.planned = 0  # calls of the runtime until the plan was made

    def forward(self) -> list[torch.Tensor]:
        plan = self.plan()
        self.planned = RUNTIME.calls()
        arguments = self.arguments(plan)
        self.run(plan, arguments)
        return self.outputs(arguments)


def forwards() -> list[Forward]:
    look = dict(num_look_close=2, prompt=True)
    return [
        Forward("vision float32", True, torch.float32, hidden_states=2, **look),
        Forward("vision bfloat16", True, torch.bfloat16, **look),
        Forward("pretrain float16", True, torch.float16, 2, mode="pretrain", global_text=True, gt_maps=True, **look),
        Forward("steps float32", True, torch.float32, 1, True, looks_per_step=1, **look),
        Forward("text float32", False, torch.float32, 2),
        Forward("text float16", False, torch.float16, 1),
    ]


def same(forward: Forward, got: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, got, forward.expected))


def close(forward: Forward, got: list[torch.Tensor]) -> bool:
    """Is it the result but for the order of sums? That may select another patch where numbers have 16 bits."""
    if forward.vision and forward.dtype != torch.float32:
        return all(tensor.isfinite().all() for tensor in got)
    return all(torch.allclose(one, other, 0, TOLERANCE[forward.dtype]) for one, other in zip(got, forward.expected))


# ---- one point -------------------------------------------------------------------------------------------------------


def attempt(forward: Forward):
    """The outputs, or the exception; what is wrong with what the call left behind."""
    driver.cuCtxSetCurrent(CALLERS_CONTEXT)
    try:
        result = forward.forward()
    except Exception as error:
        result = error
    context = ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(context))
    if context.value != CALLERS_CONTEXT:
        return result, f"the caller's CUDA context is not restored: {context.value}"
    if LT.live() or RUNTIME.live() or lt_handles() > 1:
        return result, f"left behind: {LT.live()} descriptions, {RUNTIME.live()} allocations, {lt_handles()} handles"
    return result, ""


def wrong(error: Exception, name: str, function: str) -> str:
    """What is wrong with the exception of a fault; "" if nothing is. function: the one that failed; "": several."""
    expected = MemoryError if name in MEMORY else RuntimeError
    if type(error) is not expected:
        return f"{type(error).__name__}, not {expected.__name__}: {error}"
    launch = function in ("cudaLaunchKernel", "cudaGetLastError", "cudaFuncSetAttribute")
    if name not in str(error) or "cuda:0" not in str(error) or (not launch and function not in str(error)):
        return f"the message names not {function}, {name} and the device: {error}"
    return ""


def harmless(library: Library, forward: Forward, n: int, name: str) -> bool:
    """May the call succeed, with the right bits, though call n failed?

    A plan can do without the free memory. cudaGetLastError may see an error from before the run. An attribute of an
    algorithm that cannot be read is not used. A product that is not supported has another kernel.
    """
    function = library.called(n)
    if library is LT:
        return name == "CUBLAS_STATUS_NOT_SUPPORTED" or function == b"cublasLtMatmulAlgoConfigGetAttribute"
    if n <= forward.planned:
        return n > DEVICE_CHECK
    return function == b"cudaGetLastError" and library.called(n - 1) == b"cudaSetDevice"


def judge(library: Library, forward: Forward, n: int, name: str, mode: int, result) -> str:
    """What is wrong with the result of a call whose n-th call failed; "" if nothing is."""
    if isinstance(result, Exception):
        if mode != STICKY and emu_last_error():
            return "a stale error stays"
        return wrong(result, name, library.called(n).decode() if mode == ONCE else "")
    if name == "CUBLAS_STATUS_NOT_SUPPORTED":
        return "" if close(forward, result) else "other numbers"
    if mode != ONCE or not harmless(library, forward, n, name):
        return "the call succeeded"
    return "" if same(forward, result) else "other bits"


def point(library: Library, forward: Forward, n: int, name: str, mode: int) -> str:
    """Fails call n of a forward, once or from then on. What is wrong with what follows; "" if nothing is."""
    library.fault(n, library.errors[name], mode)
    problem = ""
    for again in range(1 if mode == ONCE else 3):
        result, left = attempt(forward)
        function = library.called(n).decode()
        found = left or judge(library, forward, n, name, mode, result)
        if found and not problem:
            problem = f"{function}, forward {again + 1}: {found}"
    library.fault(0, 0, ONCE)
    result, left = attempt(forward)
    if not problem and isinstance(result, Exception):
        problem = f"{function}: the next call raised {result!r}"
    elif not problem and not same(forward, result):
        refused = library is LT and name == "CUBLAS_STATUS_NOT_SUPPORTED" and close(forward, result)
        problem = "" if refused and COLD else f"{function}: the next call has other bits"  # a refusal is remembered
    return problem or left or ("a stale error stays after the next call" if emu_last_error() else "")


# ---- the points ------------------------------------------------------------------------------------------------------


def trace(library: Library, forward: Forward) -> list[str]:
    """The functions of the library that a forward calls."""
    library.fault(0, 0, ONCE)
    forward.expected = forward.forward()
    return [library.called(n + 1).decode() for n in range(library.calls())]


def chosen(generator: random.Random, library: Library, functions: list[str], number: int) -> list[tuple]:
    """(n, error, mode): the first and the last call of each function, and others at random."""
    ends = {functions.index(name) for name in functions}
    ends |= {len(functions) - 1 - functions[::-1].index(name) for name in functions}
    every = [(n + 1, name, mode) for n in range(len(functions)) for name in library.errors for mode in library.modes]
    picked = [(n + 1, generator.choice(list(library.errors)), generator.choice(library.modes)) for n in sorted(ends)]
    return picked + generator.sample(every, min(number, len(every)))


def warm(number: int):
    """Every forward has run before: handles and algorithms exist."""
    generator = random.Random(support.SEED)
    total = 0
    for forward in forwards():
        forward.forward()
        for library in (RUNTIME, LT):
            functions = trace(library, forward)
            total += len(functions)
            for n, name, mode in chosen(generator, library, functions, support.trials(number)):
                what = f"{forward.name}: call {n} of {len(functions)}, {name}, {MODES[mode]}"
                apart.at(what)
                problem = point(library, forward, n, name, mode)
                apart.failed(f"{what}: {problem}") if problem else apart.passed()
    apart.fact("calls", total)


def in_a_child(function, *arguments):
    """Calls the function in a child of this process, which has made no product yet."""
    child = os.fork()
    if not child:
        signal.alarm(120)
        function(*arguments)
        sys.stdout.flush()
        forked.end(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        apart.failed(f"{arguments[-1]}: {apart.ending(code)}")


def cold(number: int, folder: Path):
    """Each point is the first forward of its process: cuBLASLt's handle and algorithms are made in it."""
    generator = random.Random(support.SEED + 1)
    for forward in (forwards()[0], forwards()[-1]):
        for library in (RUNTIME, LT):
            file = folder / "clean.pt"
            in_a_child(keep_trace, library, forward, file, forward.name)
            functions, forward.expected = torch.load(file)
            for n, name, mode in chosen(generator, library, functions, support.trials(number)):
                what = f"cold {forward.name}: call {n} of {len(functions)}, {name}, {MODES[mode]}"
                apart.at(what)
                in_a_child(cold_point, library, forward, n, name, mode, what)


def keep_trace(library: Library, forward: Forward, file: Path, what: str):
    torch.save((trace(library, forward), forward.expected), file)


def cold_point(library: Library, forward: Forward, n: int, name: str, mode: int, what: str):
    problem = point(library, forward, n, name, mode)
    apart.failed(f"{what}: {problem}") if problem else apart.passed()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        cold(int(sys.argv[2]), Path(sys.argv[3])) if COLD else warm(int(sys.argv[2]))

"""The CUDA kernels run on the CPU: the native tests, and mistakes that the emulator and the sanitizers have to see."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import emulated
import pytest

FOLDER = Path(__file__).parent / "cuda_on_cpu"
BUILD = Path(__file__).parent.parent / "build" / "cuda-on-cpu"
INCLUDE = os.environ.get("CUDA_INCLUDE") or emulated.include()
PROGRAMS = sorted(path.stem for path in FOLDER.glob("test_*.cpp"))
SANITIZER = {"plain": [], "asan": ["-fsanitize=address,undefined"], "tsan": ["-fsanitize=thread"]}
ENVIRONMENT = {
    "plain": {},
    "asan": {"ASAN_OPTIONS": "detect_leaks=0"},
    "tsan": {"EMU_THREADS": "1", "TSAN_OPTIONS": "halt_on_error=1"},
}

pytestmark = [
    pytest.mark.skipif(not shutil.which("g++") or not shutil.which("make"), reason="no g++ and make here"),
    pytest.mark.skipif(
        not Path(INCLUDE or "none", "cuda_runtime_api.h").exists(),
        reason="no CUDA headers here; CUDA_INCLUDE names their folder",
    ),
]


def clean_environment(**variables):
    """Without what `make asan` preloads into Python."""
    kept = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS")}
    return kept | variables


def run(command, timeout=600, **variables):
    return subprocess.run(
        [str(word) for word in command],
        cwd=FOLDER,
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        errors="replace",
    )


def make(*words):
    return run(["make", "-s", f"-j{min(4, os.cpu_count() or 1)}", f"BUILD={BUILD}", f"CUDA_INCLUDE={INCLUDE}", *words])


def compiler(configuration):
    """TSan with hundreds of fibers is clang's: gcc's takes ten times the memory and time."""
    if configuration != "tsan":
        return shutil.which("g++")
    names = ["clang++", *(f"clang++-{version}" for version in range(14, 22))]
    return next(filter(None, map(shutil.which, names)), None)


@functools.cache
def missing(configuration):
    """Why a configuration cannot be built here; "" when it can."""
    found = compiler(configuration)
    if not found:
        return "no clang++ here"
    program = BUILD / f"works-{configuration}"
    BUILD.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        [found, *SANITIZER[configuration], "-x", "c++", "-", "-o", str(program)],
        input="int main() {}",
        text=True,
        capture_output=True,
        env=clean_environment(),
    )
    return f"{found} cannot link {SANITIZER[configuration]}" if built.returncode else ""


@pytest.fixture(scope="module", params=list(SANITIZER))
def configuration(request):
    """One whose programs are built."""
    if missing(request.param):
        pytest.skip(missing(request.param))
    name = request.param
    library = ["libcublasLt_stand_in.so" if name == "plain" else f"{name}/libcublasLt_stand_in.so"] * (name != "tsan")
    programs = [BUILD / name / program for program in [*PROGRAMS, "negatives"]]
    with emulated.building():
        made = make("-k", *programs, *(BUILD / file for file in library or ["libcublasLt_stand_in.so"]))
    assert made.returncode == 0, made.stdout[-4000:]
    return name


# ---- the native tests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_natively(configuration, program):
    target = "check" if configuration == "plain" else f"check-{configuration}"
    made = make(f"ONLY={program}", target)
    assert made.returncode == 0, made.stdout[-4000:]
    counts = re.findall(r"^(\d+) passed, 0 failed$", made.stdout, re.MULTILINE)
    assert len(counts) == (3 if configuration == "plain" else 1) and min(map(int, counts)) > 0


def test_library_for_python():
    with emulated.building():
        made = make("emulated")
    assert made.returncode == 0, made.stdout[-4000:]
    assert (BUILD / "libps3c_cuda_emulated.so").exists()


# ---- mistakes --------------------------------------------------------------------------------------------------------

# name: configuration: what its output says; WRONG: results are.
WRONG = "^wrong$"
RACE = "ThreadSanitizer: data race"
OVERFLOW = "AddressSanitizer: heap-buffer-overflow"
EVERYWHERE = ("plain", "asan", "tsan")
MISTAKES = {
    "barrier_before_use": {"plain": WRONG, "tsan": RACE},
    "barrier_before_overwrite": {"plain": WRONG, "tsan": RACE},
    "warp_barrier": {"plain": WRONG, "tsan": RACE},
    "sum_over_blocks": {"tsan": RACE},
    "tail": {"asan": OVERFLOW},
    "read_beyond": {"asan": OVERFLOW},
    "dynamic_too_small": {"asan": OVERFLOW},
    "static_array_index": {"asan": "index 96 out of bounds"},
    "wide_shift": {"asan": "shift exponent 32 is too large"},
    "stack_overflow": {"asan": "AddressSanitizer: stack-overflow"},
    "never_written": dict.fromkeys(EVERYWHERE, WRONG),
    "shuffle_lane": dict.fromkeys(EVERYWHERE, WRONG),
    "weak_wait": dict.fromkeys(EVERYWHERE, WRONG),
    "divergent_barrier": dict.fromkeys(EVERYWHERE, "__syncthreads here, but other threads are at __syncthreads"),
    "return_before_barrier": dict.fromkeys(EVERYWHERE, r"deadlock(.*\n)*.*threads 90\.\.95: ended"),
    "much_dynamic_memory": dict.fromkeys(EVERYWHERE, "launch: 166916 bytes of shared memory, of 166912"),
    "much_static_memory": dict.fromkeys(EVERYWHERE, "49156 bytes of static shared memory, of 49152"),
    "divergent_shuffle": dict.fromkeys(EVERYWHERE, r"deadlock(.*\n)*.*threads 0\.\.19: __shfl_xor_sync at"),
    "lane_outside_mask": dict.fromkeys(EVERYWHERE, "reads lane 16, not in mask 0000ffff"),
    "ended_lanes": dict.fromkeys(EVERYWHERE, "mask ffffffff has lane 0, which has ended"),
    "differing_masks": dict.fromkeys(EVERYWHERE, "masks differ, "),
    "pending_copies": dict.fromkeys(EVERYWHERE, "copies still pending when the thread exits"),
    "copy_alignment": dict.fromkeys(EVERYWHERE, "cp.async: .* is not 16-byte aligned"),
    "ldmatrix_alignment": dict.fromkeys(EVERYWHERE, "ldmatrix: row address .* is not 16-byte aligned"),
    "unrounded_tf32": dict.fromkeys(EVERYWHERE, "3eaaaaab is no TF32 number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_seen(configuration, name):
    program = BUILD / configuration / "negatives"
    environment = ENVIRONMENT[configuration] | {"EMU_ARCH": "80"}
    for seed in ("0", "3"):
        fine = run([program, name, "fine"], EMU_SEED=seed, **environment)
        assert fine.returncode == 0 and fine.stdout == "right\n", fine.stdout
    if configuration not in MISTAKES[name]:
        return
    bug = run([program, name, "bug"], EMU_SEED="0", **environment)
    assert bug.returncode != 0, bug.stdout
    assert re.search(MISTAKES[name][configuration], bug.stdout, re.MULTILINE), bug.stdout


def test_every_mistake_is_listed(configuration):
    assert sorted(run([BUILD / configuration / "negatives"]).stdout.split()) == sorted(MISTAKES)


@pytest.mark.parametrize(
    ("kernel", "error"),
    [
        ("__shared__ int s[32]; s[threadIdx.x] = *p;", "use PS3C_SHARED"),
        ("*p = (int)__activemask();", "masks are written out"),
        ("*p = __shfl_xor(*p, 1);", "__shfl_xor"),
        ("other<<<1, 32>>>(p);", "expected"),
    ],
)
def test_rules_that_the_compiler_keeps(tmp_path, kernel, error):
    source = tmp_path / "kernel.cu"
    lines = [
        '#include "ptx.cuh"',
        "__global__ void other(int *p) { *p = 1; }",
        f"__global__ void k(int *p) {{ {kernel} }}",
    ]
    source.write_text("\n".join([*lines, ""]))
    command = ["g++", "-std=c++17", "-fsyntax-only", "-I.", "-I../../kernels/cuda", "-isystem", INCLUDE]
    compiled = run([*command, "-include", "cuda_on_cpu.h", "-x", "c++", source])
    assert compiled.returncode != 0 and error in compiled.stdout, compiled.stdout

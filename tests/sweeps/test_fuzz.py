"""The fuzz targets of tests/fuzz on random inputs of a seed, and on the inputs that once failed (tests/fuzz/found).

Each input is a configuration, a request, tensors, DLPack structs or Python values, almost all of them valid. A target
must end normally on every input: no report of AddressSanitizer or UndefinedBehaviorSanitizer, no leak, and none of its
own checks fails, such as "an invalid run is refused". `make fuzz` runs the same targets with libFuzzer.
"""

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from support import SEED, trials

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
COVERAGE = "PS3C_COVERAGE" in os.environ  # make coverage: counters of lines instead of sanitizers
BUILD = FUZZ.parents[1] / "build" / ("coverage/fuzz" if COVERAGE else "fuzz-replay")
# Inputs of each target: 2 to 5 seconds.
COUNTS = {
    "plan": 40000,
    "vision": 1000,
    "text": 2000,
    "image": 2000,
    "machine": 20000,
    "checkpoint": 10000,
    "dlpack": 20000,
    "module": 4000,
}
WITH_PYTHON = ("dlpack", "module")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("gcc", "make")), reason="the targets are built with make and gcc"
)


@pytest.fixture(scope="module")
def built():
    """Compiles the targets with gcc's sanitizers; only what changed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "LD_PRELOAD")}
    made = subprocess.run(
        ["make", "-s", "-j2", "-C", str(FUZZ), f"BUILD={BUILD}", f"PYTHON={sys.executable}", "CC=gcc"]
        + ["COVERAGE=1"] * COVERAGE,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert made.returncode == 0, made.stdout + made.stderr


def command(target: str) -> tuple[list[str], dict[str, str]]:
    """How a target is started, and its environment. Targets with Python are libraries that Python loads."""
    options = "allocator_may_return_null=1:max_allocation_size_mb={}:detect_leaks={}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    for name in ("PS3C_NUM_THREADS", "PS3C_WORKSPACE_LIMIT", "PS3C_CPU_LEVEL", "PS3C_DLPACK"):
        environment.pop(name, None)
    if target not in WITH_PYTHON:
        return [str(BUILD / target)], {**environment, "ASAN_OPTIONS": options.format(25, 1)}
    asan = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself leaks, and its allocator would hide errors.
    environment |= {
        "ASAN_OPTIONS": options.format(64, 0),
        "LD_PRELOAD": "" if COVERAGE else asan.stdout.strip(),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([sysconfig.get_path("purelib"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    code = (
        "import ctypes, sys\n"
        "words = [word.encode() for word in sys.argv[1:]]\n"
        "sys.exit(ctypes.PyDLL(words[0].decode()).fuzz_replay(len(words), (ctypes.c_char_p * len(words))(*words)))"
    )
    return [sys.executable, "-c", code, str(BUILD / f"{target}.so")], environment


def limit_memory():
    """In the child, for `make coverage`, where no sanitizer limits an allocation."""
    resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))


@pytest.mark.parametrize("target", COUNTS)
def test_replay(target, built, figures, tmp_path):
    count, found = trials(COUNTS[target]), sorted(FUZZ.joinpath("found").glob(f"{target}-*"))
    start, (words, environment) = time.time(), command(target)
    done = subprocess.run(
        [*words, str(SEED), str(count), *map(str, found)],
        capture_output=True,
        text=True,
        env={**environment, "PS3C_FUZZ_INPUT": str(tmp_path / "input")},
        timeout=600 * max(1, trials(1)),
        preexec_fn=limit_memory if COVERAGE and target not in WITH_PYTHON else None,
    )
    if done.returncode:
        report = (done.stdout + done.stderr)[-6000:]
        figures.failed(f"{target}: exit status {done.returncode}; its input is {tmp_path / 'input'}\n{report}")
    else:
        assert done.stdout.split() == [str(len(found)), "files,", str(count), "inputs"], done.stdout
        figures.passed(count + len(found))
    figures.finish(inputs_per_second=round(count / max(time.time() - start, 0.01)))


def test_every_target_is_replayed():
    lines = [line for line in (FUZZ / "Makefile").read_text().splitlines() if "TARGETS =" in line]
    assert sorted(name for line in lines for name in line.split("=")[1].split()) == sorted(COUNTS)
    assert {path.name.split("-")[0] for path in FUZZ.glob("found/*")} <= set(COUNTS)

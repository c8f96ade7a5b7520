"""Compiles C and CUDA sources to objects and links them. An object is compiled again only if its inputs changed.

setup.py uses it to build ps3c._core and, from the same objects, the extension of the tests (tests/operations). The
environment variables are described in setup.py.
"""

import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).resolve().parent.parent

# Version of Python's limited API that the module uses. None: the module works only with the Python that built it.
LIMITED_API = (3, 11)
if (
    sys.implementation.name != "cpython"
    or sys.version_info < LIMITED_API
    or sysconfig.get_config_var("Py_GIL_DISABLED")
):
    LIMITED_API = None

# Machine code is generated for each. The PTX of the last one is also included, for later architectures.
CUDA_ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]


def switch(name):
    """True if the environment variable is set and not 0."""
    return os.environ.get(name, "0") not in ("", "0")


def sources(folder, pattern="*.c"):
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern))


@functools.lru_cache(None)
def digest(name):
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


@contextmanager
def locked(folder):
    """Holds a lock on the folder, so that only one build at a time writes into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Compilation:
    """Compiles one source to one object with one set of flags.

    strict: warnings are errors. It is not part of the stamp, so that `make lint` and other builds share objects. But a
    strict build compiles an object again if the compiler printed a message for it.
    """

    def __init__(self, compiler, source, flags, folder, tag="", strict=False):
        self.strict = strict
        self.source = source
        stem = Path(folder, source).with_suffix("")
        self.object = Path(f"{stem}{'.' + tag if tag else ''}.o")
        self.depends = self.object.with_suffix(".d")
        self.command = [*compiler, *flags, "-c", source]

    def stamp(self):
        """A hash of the command and of the contents of the files that the compiler read."""
        names = self.depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        return hashlib.sha256("\0".join([*self.command, *map(digest, names)]).encode()).hexdigest()

    def is_current(self):
        try:
            if self.strict and self.object.with_suffix(".log").read_text():
                return False
            return self.object.is_file() and self.object.with_suffix(".made").read_text() == self.stamp()
        except (OSError, IndexError):
            return False

    def run(self):
        if self.is_current():
            return
        self.object.parent.mkdir(parents=True, exist_ok=True)
        print("cc", self.source, "->", self.object.name, flush=True)
        output = ["-MMD", "-MF", str(self.depends), "-o", str(self.object), *(["-Werror"] if self.strict else [])]
        result = subprocess.run(self.command + output, capture_output=True, text=True)
        self.object.with_suffix(".log").write_text(result.stderr)  # scripts/cuda_kernels.py reads ptxas's output there
        if result.returncode != 0 or "-Xptxas=-v" not in self.command:
            sys.stderr.write(result.stderr)
        if result.returncode != 0:
            raise CompileError(f"{self.source}: the compiler failed with status {result.returncode}")
        self.object.with_suffix(".made").write_text(self.stamp())


class Toolchain:
    """The C compiler, the flags of one kind of build, and the folder of its objects.

    Kinds: release, debug, sanitize, coverage.
    """

    def __init__(self, objects, jobs):
        """objects: a folder. Each kind of build has a subfolder, so that changing the kind does not recompile all."""
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        self.compiler = [part for part in compiler if part != "-pthread"] + ["-pthread"]
        kinds = ("sanitize", "coverage", "debug")
        self.kind = next((kind for kind in kinds if switch(f"PS3C_{kind.upper()}")), "release")
        # Of the compiler and of the linker. Several threads count lines: gcov's counters must be atomic.
        self.instrument = {
            "sanitize": ["-fsanitize=address,undefined"],
            "coverage": ["--coverage", "-fprofile-update=atomic"],
        }.get(self.kind, [])
        self.folder = Path(objects, self.kind)
        self.jobs = jobs
        self.optimize = {
            "sanitize": ["-O2", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"],
            "coverage": ["-O1", "-g"],
            "debug": ["-O0", "-g"],
            "release": [],
        }[self.kind]
        self.common = ["-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", *self.instrument]
        self.common += [
            "-Werror=implicit-function-declaration"
        ]  # for example a call of a function that the limited API does not declare
        # Engine and binding meet what comes from outside; kernels get sizes that the engine has checked.
        self.hardening = ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"] if self.kind == "release" else []

    def engine_flags(self):
        return [*self.common, "-ffp-contract=off", *(self.optimize or ["-O2", *self.hardening])]

    def kernel_flags(self):
        # Counters in a kernel's loops must be cheap. A race loses a count, never all counts of a line.
        cheap = ["-fprofile-update=single"] if self.kind == "coverage" else []
        return [*self.common, "-ffp-contract=fast", *(self.optimize or ["-O3"]), *cheap]

    def python_flags(self):
        """Flags of sources that include Python.h and NumPy's headers."""
        import numpy

        paths = sysconfig.get_paths()
        folders = dict.fromkeys([paths["include"], paths["platinclude"], numpy.get_include()])
        limited = [f"-DPy_LIMITED_API=0x{LIMITED_API[0]:02X}{LIMITED_API[1]:02X}0000"] if LIMITED_API else []
        return [*self.engine_flags(), *limited, *[f"-isystem{path}" for path in folders]]

    def compilation(self, source, flags, tag=""):
        return Compilation(self.compiler, source, flags, self.folder, tag, strict=switch("PS3C_WERROR"))

    def run(self, compilations):
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(Compilation.run, compilations))

    def link(self, compilations, target):
        """Links a shared library, unless it exists and was linked from the same objects.

        An existing file is replaced, not overwritten, because a process may have loaded it.
        """
        # Python's own link command is not used: with some Pythons it adds an rpath.
        command = [*self.compiler, "-shared", *[str(task.object) for task in compilations], *self.instrument]
        command += ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]
        command += [*shlex.split(os.environ.get("LDFLAGS", "")), "-ldl", "-lm"]
        made = [task.object.with_suffix(".made").read_text() for task in compilations]
        stamp = hashlib.sha256("\0".join([*command, *made]).encode()).hexdigest()
        stamps = self.folder / f"{target.name}.linked"
        if target.is_file() and stamps.is_file() and stamps.read_text() == stamp + digest_of(target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.new")
        if subprocess.run([*command, "-o", str(new)]).returncode != 0:
            raise LinkError(f"{target}: the compiler failed to link")
        os.replace(new, target)
        stamps.write_text(stamp + digest_of(target))


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class CudaLibrary:
    """Builds libps3c_cuda.so: one fat object per source, linked with the static CUDA runtime only."""

    NAME = "libps3c_cuda.so"
    CHECKS = "kernels/cuda/cublaslt_check.cu"  # `make cuda` compiles it, to compare our declarations with cuBLASLt's

    def __init__(self):
        wanted = os.environ.get("PS3C_CUDA", "auto") or "auto"
        if wanted not in ("auto", "0", "1"):
            raise CompileError(f"PS3C_CUDA: got {wanted!r}, expected auto, 1 or 0")
        self.required = wanted == "1"
        self.nvcc, reason = None, "PS3C_CUDA=0"
        if not sources("kernels/cuda", "*.cu"):
            reason = "its sources are not here"
        elif wanted == "auto" and not self.has_gpu():
            reason = "this machine has no NVIDIA GPU; PS3C_CUDA=1 builds it for another machine"
        elif wanted != "0":
            self.nvcc, reason = self.find_nvcc(), "there is no nvcc"
        if self.nvcc is None and self.required:
            raise CompileError(
                "PS3C_CUDA: got 1, expected nvcc on the PATH, in CUDA_HOME/bin, in /usr/local/cuda/bin or named by NVCC"
            )
        if self.nvcc is None:
            print(f"CUDA library: not built, because {reason}")
        else:
            why = "PS3C_CUDA=1" if self.required else "this machine has an NVIDIA GPU; PS3C_CUDA=0 leaves it out"
            print(f"CUDA library: built with {self.nvcc}, because {why}; this takes minutes", flush=True)

    @staticmethod
    def has_gpu():
        """True if NVIDIA's driver shows a GPU: on Linux, and in Windows' subsystem for Linux."""
        return any(
            Path(folder).is_dir() and any(Path(folder).glob(pattern))
            for folder, pattern in (("/proc/driver/nvidia/gpus", "*"), ("/dev", "nvidia[0-9]*"), ("/dev", "dxg"))
        )

    @staticmethod
    def find_nvcc():
        named = os.environ.get("NVCC")
        places = [Path(os.environ[name], "bin", "nvcc") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
        places.append(Path("/usr/local/cuda/bin/nvcc"))
        return named or shutil.which("nvcc") or next((str(place) for place in places if place.is_file()), None)

    def architectures(self):
        asked = os.environ.get("PS3C_CUDA_ARCHITECTURES", "").replace(",", " ").replace(";", " ").split()
        if asked:
            return asked
        listed = subprocess.run([self.nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
        known = [name for name in CUDA_ARCHITECTURES if name.rstrip("a") in listed]
        if not known:
            raise CompileError(f"{self.nvcc}: supports none of the architectures {' '.join(CUDA_ARCHITECTURES)}")
        return known

    def flags(self):
        names = [name.replace("sm_", "") for name in self.architectures()]
        later = names[-1].rstrip("a")  # code for "90a" runs only on sm_90
        flags = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unused-parameter"]
        flags += [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
        flags += [f"-gencode=arch=compute_{later},code=compute_{later}"]
        return flags + (["-Xptxas=-v"] if switch("PS3C_CUDA_VERBOSE") else [])

    def build(self, folder, target, jobs):
        """Compiles and links the library. An error of nvcc is a warning, unless PS3C_CUDA=1."""
        target.unlink(missing_ok=True)  # a library of another build would not match this module
        if self.nvcc is None:
            return
        try:
            flags = self.flags()
            names = [name for name in sources("kernels/cuda", "*.cu") if name != self.CHECKS]
            tasks = [Compilation([self.nvcc], source, flags, folder) for source in names]
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(Compilation.run, tasks))
            self.link(tasks, target)
        except (CompileError, OSError) as error:
            if self.required:
                raise
            print(f"warning: the CUDA library was not built ({error}): ps3c will run on the CPU only", file=sys.stderr)

    def link(self, tasks, target):
        lib = (
            Path(os.path.realpath(self.nvcc)).parent.parent / "lib"
        )  # the nvcc from pip has its libraries in lib, others have them in lib64
        command = [self.nvcc, "-shared", "-cudart=static", f"-L{lib}", *[str(task.object) for task in tasks]]
        command += ["-Xlinker=-z,defs,--exclude-libs,ALL", "-ldl", "-lpthread", "-lrt", "-o", str(target)]
        # libstdc++ is linked statically, because that of the process may be too old. Not every system has the static
        # library, so the second attempt links it dynamically.
        for inside in (["-Xcompiler=-static-libstdc++,-static-libgcc"], []):
            result = subprocess.run(command + inside, capture_output=True, text=True)
            if result.returncode == 0:
                break
        sys.stderr.write(result.stderr)
        if result.returncode != 0:
            raise CompileError(f"{target}: nvcc failed to link with status {result.returncode}")

"""Builds ps3c._core: the engine (csrc), the CPU kernels, once per instruction set, and the Python binding; and where
nvcc is, libps3c_cuda.so beside it: the CUDA kernels (kernels/cuda), opened when a CUDA tensor comes.

Environment:
    CC              compiler; gcc or clang
    PS3C_DEBUG=1    -O0 -g
    PS3C_SANITIZE=1 address and undefined-behaviour sanitizers; run Python with libasan preloaded
    PS3C_WERROR=1   warnings stop the build
    PS3C_CUDA       auto: the CUDA library where nvcc is found and can build it (the default); 1: or fail; 0: not
    PS3C_CUDA_ARCHITECTURES  such as "sm_90a" or "sm_80 sm_90a"; default: all of CUDA_ARCHITECTURES that nvcc knows
    NVCC            the CUDA compiler; default: nvcc on the path, then CUDA_HOME's, then /usr/local/cuda's
    PS3C_JOBS       compilers at once; default 2, or what `build_ext -j` says
    PS3C_OBJECTS    folder of the objects; default: under build/. Builds of copies of these sources can share one
    LDFLAGS         more for the link

A source is compiled again when it, a header that it includes, or its flags changed; what counts is what files hold, not
when they were written.

The module keeps to Python's limited API, so that one build serves CPython 3.11 and all that follow (_core.abi3.so, wheel
tag cp311-abi3). For 3.10, whose limited API lacks what NumPy needs, and for free-threaded Python, which has none yet, it
is built for that version.
"""

import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).resolve().parent

# Compiler flags of each level, from the one table. A source that uses PS3C_CPU(name) (kernels/cpu/cpu.h) is compiled
# once for each level.
LEVEL = re.compile(r'^ +PS3C_LEVEL_(\w+)\(LEVEL, op, (\w+),[^"]*"([^"]*)"', re.MULTILINE)
MACHINE = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
LEVELS = {
    name: flags.split()
    for architecture, name, flags in LEVEL.findall((ROOT / "kernels/cpu/levels.def").read_text())
    if architecture in ("any", MACHINE)
}

# Of the oldest Python that the module built here serves; None: this Python alone.
LIMITED_API = (3, 11)
if (
    sys.implementation.name != "cpython"
    or sys.version_info < LIMITED_API
    or sysconfig.get_config_var("Py_GIL_DISABLED")
):
    LIMITED_API = None

# Machine code for each; the last one's PTX too, for what comes after it.
CUDA_ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]

COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
PER_LEVEL = re.compile(r"\bPS3C_CPU\(")


def switch(name):
    return os.environ.get(name, "0") not in ("", "0")


def sources(folder, pattern="*.c"):
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern))


def is_per_level(source):
    return bool(PER_LEVEL.search(COMMENTS.sub("", (ROOT / source).read_text())))


@functools.lru_cache(None)
def digest(name):
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


class Compilation:
    """One source to one object, with one set of flags."""

    def __init__(self, compiler, source, flags, folder, tag=""):
        self.source = source
        stem = Path(folder, source).with_suffix("")
        self.object = Path(f"{stem}{'.' + tag if tag else ''}.o")
        self.depends = self.object.with_suffix(".d")
        self.command = [*compiler, *flags, "-c", source]

    def stamp(self):
        """What the object is made from: the command, and the contents of the files that the compiler read."""
        names = self.depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        return hashlib.sha256("\0".join([*self.command, *map(digest, names)]).encode()).hexdigest()

    def is_current(self):
        try:
            return self.object.is_file() and self.object.with_suffix(".made").read_text() == self.stamp()
        except (OSError, IndexError):
            return False

    def run(self):
        if self.is_current():
            return
        self.object.parent.mkdir(parents=True, exist_ok=True)
        print("cc", self.source, "->", self.object.name, flush=True)
        output = ["-MMD", "-MF", str(self.depends), "-o", str(self.object)]
        result = subprocess.run(self.command + output, capture_output=True, text=True)
        self.object.with_suffix(".log").write_text(result.stderr)  # scripts/cuda_kernels.py reads ptxas's words there
        if result.returncode != 0 or "-Xptxas=-v" not in self.command:
            sys.stderr.write(result.stderr)
        if result.returncode != 0:
            raise CompileError(f"{self.source}: the compiler failed with status {result.returncode}")
        self.object.with_suffix(".made").write_text(self.stamp())


class CudaLibrary:
    """libps3c_cuda.so: one fat object a source, linked with CUDA's runtime inside and no other CUDA library."""

    NAME = "libps3c_cuda.so"
    CHECKS = (
        "kernels/cuda/cublaslt_check.cu"  # compares our declarations with cuBLAS's header, where that is: make cuda
    )

    def __init__(self):
        wanted = os.environ.get("PS3C_CUDA", "auto") or "auto"
        if wanted not in ("auto", "0", "1"):
            raise CompileError(f"PS3C_CUDA: got {wanted!r}, expected auto, 1 or 0")
        self.required = wanted == "1"
        self.nvcc = None if wanted == "0" or not sources("kernels/cuda", "*.cu") else self.find_nvcc()
        if self.nvcc is None and self.required:
            raise CompileError(
                "PS3C_CUDA=1, but no nvcc: it is not on the path, under CUDA_HOME or in /usr/local/cuda; NVCC names it"
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
            raise CompileError(f"{self.nvcc} does not say that it compiles for any of {' '.join(CUDA_ARCHITECTURES)}")
        return known

    def flags(self):
        names = [name.replace("sm_", "") for name in self.architectures()]
        later = names[-1].rstrip("a")  # code for "90a" runs nowhere else
        flags = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unused-parameter"]
        flags += [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
        flags += [f"-gencode=arch=compute_{later},code=compute_{later}"]
        return flags + (["-Xptxas=-v"] if switch("PS3C_CUDA_VERBOSE") else [])

    def build(self, folder, target, jobs):
        """Compiles and links; where nobody asked for it, what nvcc cannot do is a warning."""
        target.unlink(missing_ok=True)  # none is better than that of another build
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
            print(f"warning: no CUDA library ({error}): ps3c will run on the CPU alone", file=sys.stderr)

    def link(self, tasks, target):
        lib = (
            Path(os.path.realpath(self.nvcc)).parent.parent / "lib"
        )  # where pip's nvcc keeps what others have in lib64
        command = [self.nvcc, "-shared", "-cudart=static", f"-L{lib}", *[str(task.object) for task in tasks]]
        command += ["-Xlinker=-z,defs,--exclude-libs,ALL", "-ldl", "-lpthread", "-lrt", "-o", str(target)]
        # With libstdc++ inside, the process's own cannot be too old for it; not every system has it as an archive.
        for inside in (["-Xcompiler=-static-libstdc++,-static-libgcc"], []):
            result = subprocess.run(command + inside, capture_output=True, text=True)
            if result.returncode == 0:
                break
        sys.stderr.write(result.stderr)
        if result.returncode != 0:
            raise CompileError(f"{target}: nvcc failed to link with status {result.returncode}")


class BuildCore(build_ext):
    """Compiles each file with its own flags, in parallel, and links one module."""

    def build_extension(self, ext):
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        compiler = [part for part in compiler if part != "-pthread"] + ["-pthread"]
        openmp = self.openmp_flags(compiler)
        tasks = self.compilations(ext, compiler, openmp)
        cuda = CudaLibrary()  # before the work: it may refuse its switches
        with ThreadPoolExecutor(self.jobs()) as pool:
            list(pool.map(Compilation.run, tasks))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.remove_others(target)
        # Not by Python's own link command: some add where that Python lies to the library's search path.
        command = [*compiler, "-shared", *[str(task.object) for task in tasks], *self.sanitize_flags(), *openmp]
        command += [*shlex.split(os.environ.get("LDFLAGS", "")), "-ldl", "-lm", "-o", str(target)]
        if subprocess.run(command).returncode != 0:
            raise LinkError(f"{target}: the compiler failed to link")
        cuda.build(Path(self.folder(), "cuda"), target.parent / CudaLibrary.NAME, self.jobs())

    @staticmethod
    def remove_others(target):
        """Modules of the same name by another build's tag, which Python might find first."""
        for other in target.parent.glob(f"{target.name.split('.')[0]}.*.so"):
            if other.name != target.name:
                other.unlink()

    def copy_extensions_to_source(self):
        """In place (also `pip install -e`): the CUDA library goes where the module goes."""
        super().copy_extensions_to_source()
        for ext in self.extensions:
            package = ext.name.rpartition(".")[0]
            built = Path(self.build_lib, *package.split("."), CudaLibrary.NAME)
            folder = Path(self.get_finalized_command("build_py").get_package_dir(package))
            source = folder / CudaLibrary.NAME
            source.unlink(missing_ok=True)
            self.remove_others(folder / Path(self.get_ext_filename(ext.name)).name)
            if built.is_file():
                shutil.copyfile(built, source)

    def jobs(self):
        return max(1, int(os.environ.get("PS3C_JOBS") or (self.parallel if isinstance(self.parallel, int) else 2)))

    @staticmethod
    def sanitize_flags():
        return ["-fsanitize=address,undefined"] if switch("PS3C_SANITIZE") else []

    @staticmethod
    def openmp_flags(compiler):
        """-fopenmp where the compiler has its headers and library; without it everything runs on one thread."""
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(program)
            command = [*compiler, "-fopenmp", str(source), "-o", str(Path(folder, "openmp"))]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return ["-fopenmp"]
        print("warning: this compiler has no OpenMP: ps3c will use one thread", file=sys.stderr)
        return []

    @staticmethod
    def kind():
        return "sanitize" if switch("PS3C_SANITIZE") else "debug" if switch("PS3C_DEBUG") else "release"

    def folder(self):
        """Where objects go. Debug and sanitized ones lie apart, so that changing a switch doesn't rebuild the others."""
        # pip gives an editable build a temporary folder; objects stay, so that the next one only compiles changes.
        lasting = f"build/temp.{self.plat_name}-{sys.implementation.cache_tag}"
        chosen = os.environ.get("PS3C_OBJECTS") or (lasting if self.editable_mode else self.build_temp)
        return Path(chosen, self.kind())

    def compilations(self, ext, compiler, openmp):
        kind, folder = self.kind(), self.folder()
        optimize = {
            "sanitize": ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"],
            "debug": ["-O0", "-g"],
            "release": [],
        }[kind]
        common = ["-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", *self.sanitize_flags(), *openmp]
        common += ["-Werror=implicit-function-declaration"]  # such as of what the limited API hides
        common += ["-Werror"] if switch("PS3C_WERROR") else []
        engine = [*common, "-ffp-contract=off", *(optimize or ["-O2"])]
        kernel = [*common, "-ffp-contract=fast", *(optimize or ["-O3"])]
        limited = [f"-DPy_LIMITED_API=0x{LIMITED_API[0]:02X}{LIMITED_API[1]:02X}0000"] if LIMITED_API else []
        binding = [*engine, *limited, *[f"-isystem{path}" for path in self.python_includes()]]
        tasks = []
        for source in ext.sources:
            if source.startswith("csrc/binding/"):
                tasks.append(Compilation(compiler, source, binding, folder))
            elif source.startswith("csrc/"):
                tasks.append(Compilation(compiler, source, engine, folder))
            elif is_per_level(source):
                for level, flags in LEVELS.items():
                    tasks.append(
                        Compilation(compiler, source, [*kernel, *flags, f"-DPS3C_LEVEL={level}"], folder, level)
                    )
            else:
                tasks.append(Compilation(compiler, source, kernel, folder))
        return tasks

    @staticmethod
    def python_includes():
        import numpy

        paths = sysconfig.get_paths()
        return dict.fromkeys([paths["include"], paths["platinclude"], numpy.get_include()])


os.chdir(ROOT)
setup(
    ext_modules=[
        Extension(
            "ps3c._core",
            sources=[*sources("csrc/model"), *sources("csrc/run"), *sources("csrc/binding"), *sources("kernels/cpu")],
            py_limited_api=bool(LIMITED_API),
        )
    ],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp{}{}".format(*LIMITED_API)}} if LIMITED_API else {},
)

"""Builds ps3c._core from the engine (csrc), the CPU kernels (once per instruction set) and the Python binding.

On a machine with an NVIDIA GPU and nvcc, it also builds libps3c_cuda.so with the CUDA kernels (kernels/cuda) in the
same folder. ps3c opens that library at the first CUDA tensor.

Environment:
    CC              compiler; gcc or clang
    PS3C_DEBUG=1    -O0 -g
    PS3C_SANITIZE=1 address and undefined-behaviour sanitizers; run Python with libasan preloaded
    PS3C_COVERAGE=1 counters of lines, for gcov; `make coverage` uses it
    PS3C_WERROR=1   warnings stop the build
    PS3C_CUDA       auto (default): build the CUDA library if this machine has an NVIDIA GPU and nvcc; 1: build it, and
                    fail if that is not possible; 0: do not
    PS3C_CUDA_ARCHITECTURES  such as "sm_90a" or "sm_80 sm_90a"; default: all of CUDA_ARCHITECTURES that nvcc supports
    NVCC            the CUDA compiler; default: nvcc on the PATH, then in CUDA_HOME, then in /usr/local/cuda
    PS3C_JOBS       number of parallel compilers; default 2, or the number of `build_ext -j`
    PS3C_OBJECTS    folder of the objects; default: under build/. Builds of copies of these sources can share a folder
    LDFLAGS         additional linker flags

A source is compiled again if it, a header that it includes, or its flags changed. Contents are compared, not times.

The module uses Python's limited API, so one build works with CPython 3.11 and all later versions (_core.abi3.so, wheel
tag cp311-abi3). Two Pythons need a build of their own: 3.10, whose limited API lacks functions that NumPy needs, and
free-threaded Python, which has no limited API yet.

Two commands are for development: build_operations (the extension of tests/operations) and build_cuda.
"""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))
from native_build import LIMITED_API, CudaLibrary, Toolchain, locked, sources  # noqa: E402

del sys.path[0]  # scripts/wheel.py must not hide the package `wheel`

# Compiler flags of each level, read from kernels/cpu/levels.def. A source that uses PS3C_CPU(name) (kernels/cpu/cpu.h)
# is compiled once per level.
LEVEL = re.compile(r'^ +PS3C_LEVEL_(\w+)\(LEVEL, op, (\w+),[^"]*"([^"]*)"', re.MULTILINE)
MACHINE = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
LEVELS = {
    name: flags.split()
    for architecture, name, flags in LEVEL.findall((ROOT / "kernels/cpu/levels.def").read_text())
    if architecture in ("any", MACHINE)
}

COMMENTS = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
PER_LEVEL = re.compile(r"\bPS3C_CPU\(")


def is_per_level(source):
    return bool(PER_LEVEL.search(COMMENTS.sub("", (ROOT / source).read_text())))


class BuildCore(build_ext):
    """Compiles each source with its flags, in parallel, and links the module."""

    def build_extension(self, ext):
        cuda = CudaLibrary()  # created first: it raises an error if an environment variable is wrong
        toolchain = Toolchain(self.objects_folder(), self.jobs())
        target = Path(self.get_ext_fullpath(ext.name))
        with locked(toolchain.folder):
            tasks = self.compilations(ext.sources, toolchain)
            toolchain.run(tasks)
            self.remove_others(target)
            toolchain.link(tasks, target)
            cuda.build(toolchain.folder / "cuda", target.parent / CudaLibrary.NAME, self.jobs())

    @staticmethod
    def remove_others(target):
        """Removes modules of the same name with another build's tag, which Python might import instead."""
        for other in target.parent.glob(f"{target.name.split('.')[0]}.*.so"):
            if other.name != target.name:
                other.unlink()

    def copy_extensions_to_source(self):
        """For builds in place (also `pip install -e`): copies the CUDA library into the module's folder."""
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

    def objects_folder(self):
        # pip gives an editable build a temporary folder. Objects are kept in build/, and the next build reuses them.
        lasting = f"build/temp.{self.plat_name}-{sys.implementation.cache_tag}"
        return os.environ.get("PS3C_OBJECTS") or (lasting if self.editable_mode else self.build_temp)

    @staticmethod
    def compilations(names, toolchain):
        engine, kernel, binding = toolchain.engine_flags(), toolchain.kernel_flags(), toolchain.python_flags()
        tasks = []
        for source in names:
            if source.startswith(("csrc/binding/", "tests/")):
                tasks.append(toolchain.compilation(source, binding))
            elif source.startswith("csrc/"):
                tasks.append(toolchain.compilation(source, engine))
            elif is_per_level(source):
                for level, flags in LEVELS.items():
                    tasks.append(toolchain.compilation(source, [*kernel, *flags, f"-DPS3C_LEVEL={level}"], level))
            else:
                tasks.append(toolchain.compilation(source, kernel))
        return tasks


class BuildOperations(BuildCore):
    """Builds the tests' extension from the objects of ps3c._core without module.c, and the C files of tests/operations.

    It is written to the folder of the objects and is not part of a wheel. The last printed line is its path.
    """

    description = "build the extension of tests/operations"

    def run(self):
        (core,) = self.extensions
        names = [name for name in core.sources if name != "csrc/binding/module.c"]
        toolchain = Toolchain(self.objects_folder(), self.jobs())
        target = toolchain.folder / "operations" / "_operations.so"
        with locked(toolchain.folder):
            names += [*sources("tests/operations"), *sources("tests/operations/shared")]
            tasks = self.compilations(names, toolchain)
            toolchain.run(tasks)
            toolchain.link(tasks, target)
        print(target.resolve())


class BuildCuda(BuildCore):
    """Builds only the CUDA library, in build_lib. Its objects are in build_temp."""

    description = "build libps3c_cuda.so without ps3c._core"

    def run(self):
        target = Path(self.build_lib, "ps3c", CudaLibrary.NAME)
        target.parent.mkdir(parents=True, exist_ok=True)
        CudaLibrary().build(Path(self.objects_folder()), target, self.jobs())


FOLDERS = ("csrc/model", "csrc/run", "csrc/checkpoint", "csrc/encode", "csrc/binding", "kernels/cpu")

os.chdir(ROOT)
setup(
    ext_modules=[
        Extension(
            "ps3c._core",
            sources=[file for folder in FOLDERS for file in sources(folder)],
            py_limited_api=bool(LIMITED_API),
        )
    ],
    cmdclass={"build_ext": BuildCore, "build_operations": BuildOperations, "build_cuda": BuildCuda},
    options={"bdist_wheel": {"py_limited_api": "cp{}{}".format(*LIMITED_API)}} if LIMITED_API else {},
)

"""Rules that hold for the sources: who may include what, what engine and kernels never do, how long a file may be."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("csrc", "kernels", "examples", "tests/operations")
C = sorted(path for folder in ROOMS for path in (ROOT / folder).rglob("*.[ch]"))
CUDA = sorted(path for path in ROOT.joinpath("kernels").rglob("*.cu*"))
PYTHON = sorted(
    path
    for folder in ("ps3c", "python", "tests", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py*")
    if path.suffix in (".py", ".pyi")
)
TEXT_NAMES = (
    "README.md CHANGELOG.md CONTRIBUTING.md Makefile MANIFEST.in pyproject.toml setup.py .pre-commit-config.yaml"
)
TEXT = [ROOT / name for name in TEXT_NAMES.split()]
TEXT += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / ".ci").glob("*"))

pytestmark = pytest.mark.skipif(not C, reason="the sources are not beside the tests")

COMMENTS = re.compile(r'/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*")', re.DOTALL)
INCLUDES = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)


def room(path):
    """The part of the tree that a C file belongs to: "csrc" (public headers), "csrc/model", "kernels/cpu", ...."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[: min(2, len(parts) - 1)]) if parts[0] in ("csrc", "kernels", "tests") else parts[0]


def without_comments(path):
    """The code, with comments dropped and strings kept (they may hold //)."""
    return COMMENTS.sub(lambda match: match.group(1) or " ", path.read_text())


def without_strings(path):
    return COMMENTS.sub(lambda match: '""' if match.group(1) else " ", path.read_text())


def included(path):
    """(name, file or None) of each include; a file only for those of the tree."""
    for name in INCLUDES.findall(without_comments(path)):
        file = (path.parent / name).resolve()
        yield name, file if file.is_file() else None


def name_of(path):
    return str(path.relative_to(ROOT))


def operations():
    """(operation, the file of kernels/cuda and of tests/operations that holds it), by the one list in the contract."""
    text = (ROOT / "csrc/contract/backend.h").read_text()
    lists = re.findall(r"#define PS3C_(?:HOST_)?OPERATIONS\(OP\)((?:.*\\\n)*.*)\n", text)
    shared = {**dict.fromkeys(("from_rows", "to_rows", "copy_channels"), "rows")}
    shared |= dict.fromkeys(("resize_columns", "resize_rows"), "image_resize")
    return [(name, shared.get(name, name)) for name in re.findall(r"\bOP\((\w+)\)", "".join(lists))]


@pytest.mark.parametrize("operation, file", operations())
def test_every_operation_has_its_files(operation, file):
    """One operation, one name in every folder."""
    folder = ROOT / "tests" / "operations"
    assert re.search(rf"^PS3C_OPERATION\(\s*{operation},", (folder / f"{file}.c").read_text(), re.MULTILINE)
    assert (folder / f"test_{file}.py").is_file()
    assert file == "image_resize" or (ROOT / "kernels" / "cuda" / f"{file}.cu").is_file()


# Which rooms a file may include from, besides its own. Kernels see the contract and ps3c.h of the engine, nothing else.
DOWNWARD = {
    "csrc": set(),
    "csrc/contract": {"csrc"},
    "csrc/run": {"csrc", "csrc/contract"},
    "csrc/model": {"csrc", "csrc/contract", "csrc/run"},
    "csrc/checkpoint": {"csrc", "csrc/contract", "csrc/run"},
    "csrc/encode": {"csrc", "csrc/contract"},
    "csrc/program": {"csrc"},
    "csrc/binding": {"csrc", "csrc/contract", "csrc/run", "csrc/checkpoint"},
    "kernels/cpu": {"csrc", "csrc/contract"},
    "kernels/cuda": {"csrc", "csrc/contract"},
    "examples": {"csrc"},
    "tests/operations": {"csrc", "csrc/contract", "csrc/run", "csrc/binding"},
}
# The one file of the tests' extension that knows how a backend lays out its activations.
LAYOUTS = ROOT / "tests/operations/shared/layouts.c"
ENGINE = ("csrc/contract", "csrc/run", "csrc/model", "csrc/checkpoint", "csrc/encode")


@pytest.mark.parametrize("path", C + CUDA, ids=name_of)
def test_includes_point_downward(path):
    for name, file in included(path):
        if file is not None:
            below = DOWNWARD[room(path)] | ({"kernels/cpu"} if path == LAYOUTS else set())
            assert room(file) == room(path) or room(file) in below, name


@pytest.mark.parametrize("path", [p for p in C if room(p) in ENGINE], ids=name_of)
def test_engine_names_no_backend(path):
    """Backends are registered by the binding or a program; the engine calls nothing in kernels/."""
    found = re.search(r"\bps3c_cpu_source\b|\bps3c_\w+_(cpu|naive|portable)\b", without_strings(path))
    assert not found, found.group()


@pytest.mark.parametrize("path", C + CUDA, ids=name_of)
def test_python_and_cuda_stay_in_their_rooms(path):
    for name, file in included(path):
        if room(path) not in ("csrc/binding", "tests/operations"):
            assert not re.match(r"(Python|structmember)\.h|numpy/", name), name
        if room(path) != "kernels/cuda":
            assert file or not re.match(r"cuda|cublas|nv|curand", name), name
        assert not re.match(r"(torch|ATen|c10)/", name), name
        if room(path) in ENGINE:
            assert not re.match(r".*intrin\.h", name), name


FORBIDDEN = re.compile(r"\b(exit|_exit|abort|assert|printf|fprintf|puts|perror|sprintf|strcpy|strcat|system)\s*\(")


PROGRAMS = ("csrc/program", "examples", "tests/operations")


@pytest.mark.parametrize("path", [p for p in C + CUDA if room(p) not in PROGRAMS], ids=name_of)
def test_engine_and_kernels_never_stop_or_print(path):
    found = FORBIDDEN.search(without_strings(path))
    assert not found, found.group()


# getenv: the level (context.c) and the binding's switches.
ALLOCATION = re.compile(r"\b(malloc|calloc|realloc|aligned_alloc|posix_memalign|alloca|free|getenv)\s*\(")


@pytest.mark.parametrize("path", [p for p in C if room(p) == "kernels/cpu"], ids=name_of)
def test_kernels_do_not_allocate(path):
    found = ALLOCATION.findall(without_strings(path))
    # The pool allocates a team of threads in begin(), before the operations of a run (tests/c/test_counts.c).
    assert found == (["aligned_alloc"] if path.name == "threads.c" else [])


GLOBALS = re.compile(
    r"^(?!.*\b(?:const|typedef|inline|extern|_Thread_local|_Static_assert)\b)(?:static )?"
    r"[a-z_][\w ]*[\w*] \**\w+(?:\[[^\]]*\])*\s*(?:=[^=].*|;)$",
    re.MULTILINE,
)


# The process's idle threads, and the lock that guards them.
POOL = ["static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;", "static team *free_teams;"]


def top_level(path):
    """The code outside every pair of braces."""
    depth, kept = 0, []
    for piece in re.split(r"([{}])", re.sub(r"(\\\n|[^\n])*\\\n[^\n]*", "", without_strings(path))):
        if piece in ("{", "}"):
            depth += 1 if piece == "{" else -1
            kept.append(piece * (depth == (piece == "{")))
        elif depth == 0:
            kept.append(piece)
    return "".join(kept)


@pytest.mark.parametrize(
    "path", [p for p in C if p.suffix == ".c" and room(p) in (*ENGINE, "kernels/cpu")], ids=name_of
)
def test_no_mutable_globals(path):
    code = re.sub(r"^\s*#.*$", "", top_level(path), flags=re.MULTILINE)
    found = [line for line in GLOBALS.findall(code) if "(" not in line]
    assert found == (POOL if path.name == "threads.c" else [])


def test_the_global_rule_can_fail(tmp_path):
    code = "static int count;\nint table[3] = {1};\nstatic const int fine = 3;\ntypedef int other;\nint f(void);\n"
    path = tmp_path / "x.c"
    path.write_text(code)
    assert len(GLOBALS.findall(code)) == 2 and FORBIDDEN.search("  exit (1)") and ALLOCATION.search("x = malloc(3)")
    assert without_comments(path) == code


@pytest.mark.parametrize("path", C + CUDA + PYTHON, ids=name_of)
def test_length(path):
    assert len(path.read_text().splitlines()) <= 650


# Written in pieces, so that this file passes.
PRIVATE = re.compile("|".join([r"(?<![\w.])/tm" + r"p/\w", r"(?<![\w.])/wor" + r"k/", r"/roo" + r"t/", r"/home/\w"]))


@pytest.mark.parametrize("path", [p for p in C + CUDA + PYTHON + TEXT if p.is_file()], ids=name_of)
def test_no_paths_of_a_machine(path):
    found = PRIVATE.search(path.read_text())
    assert not found, found.group()


@pytest.mark.parametrize("path", [p for p in PYTHON if p.relative_to(ROOT).parts[0] in ("ps3c", "python")], ids=name_of)
def test_package_imports_no_framework_but_torch(path):
    found = re.search(r"^\s*(?:import|from)\s+(timm|einops|torchvision|scipy|cv2)\b", path.read_text(), re.M)
    assert not found, found.group()


def test_extras_are_imported_when_they_are_used():
    """`import ps3c` finds neither what the extras bring nor what comes with that."""
    extras = "matplotlib", "pyarrow", "gradio", "rich"
    program = f"import sys, ps3c, ps3; print([name for name in {extras} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


# ---- the built module ------------------------------------------------------------------------------------------------


def test_exports_one_symbol():
    from ps3c import _core

    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("sanitizers export symbols of their own")
    names = subprocess.run(["nm", "-D", "--defined-only", _core.__file__], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in names.stdout.splitlines()] == ["PyInit__core"]


def test_is_hardened():
    """Tables of functions are read-only after loading (full RELRO), no stack is executable, buffers have guards."""
    from ps3c import _core

    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizers' build has checks of its own")

    def shown(*command):
        return subprocess.run([*command, _core.__file__], capture_output=True, text=True, check=True).stdout

    segments = {line.split()[0]: line for line in shown("readelf", "-lW").splitlines() if "GNU_" in line}
    assert "GNU_RELRO" in segments and " RW " in segments["GNU_STACK"]
    assert re.search(r"FLAGS.*\bNOW\b|BIND_NOW", shown("readelf", "-dW"))
    assert "__stack_chk_fail" in shown("nm", "-D", "--undefined-only")


def test_module_holds_no_test_code():
    """Single operations and TensorView belong to the tests' extension."""
    from ps3c import _core

    assert not [name for name in dir(_core) if name.startswith("op_") or name in ("TensorView", "seconds")]
    assert not set(re.findall(rb"ps3c_operation_\w+|\bop_[a-z0-9_]+|TensorView", Path(_core.__file__).read_bytes()))


def test_no_openmp_runtime():
    """The module has threads of its own, and needs no libgomp, libomp or libiomp5."""
    from ps3c import _core

    needed = re.findall(
        rb"lib\w*omp\w*\.so[\w.]*|\bGOMP_\w+|\bomp_get_\w+|__kmpc_\w+", Path(_core.__file__).read_bytes()
    )
    assert not needed
    names = [
        path
        for folder in ("csrc", "kernels/cpu", "scripts", "examples", "tests/c")
        for path in (ROOT / folder).rglob("*")
    ]
    assert not [
        path
        for path in names
        if path.suffix in (".c", ".h", ".py", "")
        and path.is_file()
        and re.search(r"fopenmp|pragma omp|omp\.h", path.read_text(errors="replace"))
    ]


def test_stub_names_what_the_module_has():
    from ps3c import _core

    stub = (ROOT / "ps3c" / "_core.pyi").read_text()
    named = set(re.findall(r"^(?:class|def) (\w+)", stub, re.MULTILINE)) - {"__getattr__"}
    assert named == {name for name in vars(_core) if not name.startswith("_")}
    for name in named:
        thing = getattr(_core, name)
        if isinstance(thing, type):
            body = re.search(rf"^class {name}:\n((?:    .*\n|\n)+)", stub, re.MULTILINE).group(1)
            members = set(re.findall(r"^    def (\w+)", body, re.MULTILINE)) - {"__new__"}
            assert members == {member for member in vars(thing) if not member.startswith("_")}, name

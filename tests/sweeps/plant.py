"""Plants mistakes in a copy of the sources, one at a time, and sees that the sweep meant for each catches it.

planted/*.toml lists the mistakes:

    [[mistake]]
    what = "the deleter of a refused capsule is not called"
    file = "csrc/binding/dlpack.c"
    old = '''...'''              # occurs exactly once in the file
    new = '''...'''
    test = "tests/sweeps/test_dlpack.py -k refused"

`make planted` runs all of them in two copies of the sources side by side, `make planted ARGS=words` those whose
description or test has the words. A mistake is caught when the tests run and at least one fails or crashes. Each test
must pass first without a mistake. ARGS=--write also writes the results into the table of tests/README.md.
"""

import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIES = [ROOT / "build" / "planted" / name for name in ("first", "second")]
BEGIN, END = "<!-- planted: begin -->\n", "<!-- planted: end -->\n"


def mistakes() -> list[dict]:
    """All planted mistakes, in the order of the files' names."""
    found = []
    for file in sorted(HERE.glob("planted/*.toml")):
        found += tomllib.loads(file.read_text())["mistake"]
    return found


class Copy:
    """A copy of the sources as they stand here. It is built in place, so that only a changed file is compiled."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name in listed.stdout.splitlines():
            source, target = ROOT / name, folder / name
            if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        for name in (".venv", ".cache"):
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)

    def build(self) -> str:
        """Builds the copy. Returns the compiler's message if that fails: such a mistake is no mistake of this list."""
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PS3C_CUDA": "0"},
        )
        return done.stdout + done.stderr if done.returncode else ""

    def run(self, test: str) -> tuple[int, str]:
        """Runs pytest in the copy: its exit code (0 passed, 1 failed) and its output."""
        folders = os.pathsep.join([str(self.folder), str(self.folder / "python")])
        environment = {**os.environ, "PYTHONPATH": folders, "PS3C_CUDA": "0"}
        environment.pop("PS3C_OPERATIONS", None)
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command = [sys.executable, "-m", "pytest", *options, *shlex.split(test)]
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, env=environment, timeout=900
            )
        except subprocess.TimeoutExpired:
            return -1, "not ended after 900 s"
        return done.returncode, done.stdout + done.stderr

    def plant(self, mistake: dict) -> str:
        """Plants one mistake, runs its test and takes the mistake out. Returns "caught", or what happened instead."""
        file = self.folder / mistake["file"]
        text = file.read_text()
        file.write_text(text.replace(mistake["old"], mistake["new"]))
        try:
            message = self.build()
            if message:
                return "does not compile: " + message[-400:]
            code, output = self.run(mistake["test"])
            if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT):
                return "caught: a crash"
            return {1: "caught", 0: "NOT CAUGHT"}.get(code, f"pytest ended with {code}: {output[-400:]}")
        finally:
            file.write_text(text)

    def plant_each(self, test: str, chosen: list[dict]) -> list[tuple[dict, str]]:
        """Plants the mistakes that one test is meant for, each by itself: (mistake, what happened)."""
        start = time.time()
        message = self.build()  # takes the last mistake out
        code, output = (1, message) if message else self.run(test)
        rows = []
        for mistake in chosen:
            result = self.plant(mistake) if code == 0 else f"fails without the mistake: {output[-2000:]}"
            rows.append((mistake, result))
            seconds, start = time.time() - start, time.time()
            print(f"{result}: {mistake['what']} ({mistake['file']}; {test}; {seconds:.0f} s)", flush=True)
        return rows


def write_table(rows: list[tuple[dict, str]]):
    """Writes the results between the two marks of tests/README.md. Mistakes that were not planted keep their row."""
    readme = ROOT / "tests" / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    table, after = rest.split(END)
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}
    results = {mistake["what"]: result.splitlines()[0][:100].replace("|", "/") for mistake, result in rows}
    lines = ["| mistake | file | test | result |", "| --- | --- | --- | --- |"]
    for mistake in mistakes():
        what, test = mistake["what"], mistake["test"].removeprefix("tests/sweeps/")
        start, before_it = f"| {what} | `{mistake['file']}` | `{test}` | ", kept.get(what, "")
        result = results.get(what, before_it.removeprefix(start).rstrip(" |") if before_it.startswith(start) else "")
        lines.append(f"{start}{result} |")
    readme.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


def main(arguments: list[str]) -> int:
    words = " ".join(argument for argument in arguments if argument != "--write")
    groups, order = defaultdict(list), mistakes()
    for mistake in order:
        if words in mistake["what"] or words in mistake["test"]:
            groups[mistake["test"]].append(mistake)
    copies = queue.SimpleQueue()
    for folder in COPIES:
        copies.put(Copy(folder))

    def plant_group(test: str) -> list[tuple[dict, str]]:
        copy = copies.get()
        try:
            return copy.plant_each(test, groups[test])
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(len(COPIES)) as pool:
        rows = [row for found in pool.map(plant_group, groups) for row in found]
    rows.sort(key=lambda row: order.index(row[0]))
    caught = sum(result.startswith("caught") for _, result in rows)
    print(f"{len(rows)} mistakes planted, {caught} caught")
    if "--write" in arguments:
        write_table(rows)
    return caught != len(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

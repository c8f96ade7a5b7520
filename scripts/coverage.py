"""Prints which lines of our C the tests reached, from the counters of gcov. `make coverage` runs it.

    python scripts/coverage.py FOLDER... [--least 97] [--table scripts/coverage.toml] [--write]

FOLDER holds the objects of builds with --coverage (.gcno, .gcda). A kernel is compiled once per instruction set, and
tests/c compiles sources again: the counts of one line are added up over all objects. A header counts like a source.

The table lists the lines that no test reaches, each with the reason:

    [[unreached]]
    file = "csrc/run/context.c"
    function = "ps3c_context_create"
    lines = ["return NULL;"]         # without indentation; all lines of the function with this text
    reason = "calloc of 1 kB fails"

The exit status is 1 if less than --least percent of the lines were reached, if an unreached line is not in the table,
or if a line of the table was reached or no longer exists. --write removes such lines from the table and adds the
missing ones with an empty reason, which must be filled in.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OURS = ("csrc/", "kernels/cpu/")


class Lines:
    """Counts of the lines and branches of all files, added up over objects."""

    def __init__(self):
        self.counts = defaultdict(dict)  # file: {line: count}
        self.functions = defaultdict(dict)  # file: {line: function}
        self.branches = defaultdict(dict)  # file: {line: [count of each branch]}

    def add(self, report):
        """Adds gcov's report of one object."""
        folder = Path(report["current_working_directory"])
        for file in report["files"]:
            try:
                name = (folder / file["file"]).resolve().relative_to(ROOT).as_posix()
            except ValueError:
                continue
            if name.startswith(OURS):
                for function in file["functions"]:
                    for number in range(function["start_line"], function["end_line"] + 1):
                        self.functions[name].setdefault(number, function["name"])
                for line in file["lines"]:
                    self.add_line(name, line)

    def add_line(self, name, line):
        number, counts = line["line_number"], [branch["count"] for branch in line["branches"]]
        self.counts[name][number] = self.counts[name].get(number, 0) + line["count"]
        known = self.branches[name].get(number, [])
        if len(known) < len(counts):  # another instruction set may compile a line to more branches
            known, counts = counts, known
        self.branches[name][number] = [count + (counts[i] if i < len(counts) else 0) for i, count in enumerate(known)]


def report_of(notes):
    """gcov's report of one object."""
    command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(notes.resolve())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def read(folders):
    lines = Lines()
    notes = sorted(path for folder in folders for path in Path(folder).rglob("*.gcno"))
    with ThreadPoolExecutor(2) as pool:
        for reports in pool.map(report_of, notes):
            for report in reports:
                lines.add(report)
    return lines


def plain(function):
    """The function's name without the instruction set that PS3C_CPU appends, and without the compiler's suffix."""
    levels = ("avx512bf16", "avx512", "avx2", "portable")
    stem = function.split(".")[0]
    return next((stem.removesuffix(f"_{level}") for level in levels if stem.endswith(f"_{level}")), stem)


def unreached(lines):
    """{(file, function): {text: [line numbers]}} of the lines that were not reached, and the texts of the others."""
    missed, texts = defaultdict(lambda: defaultdict(list)), defaultdict(set)
    for name in sorted(lines.counts):
        source = ROOT.joinpath(name).read_text().splitlines()
        for number, count in sorted(lines.counts[name].items()):
            text = source[number - 1].strip()
            key = name, plain(lines.functions[name].get(number, ""))
            texts[key].add(text)
            if count == 0:
                missed[key][text].append(number)
    return missed, texts


def check_table(lines, table):
    """Sentences about unreached lines without an entry, and about entries that do not hold."""
    missed, texts = unreached(lines)
    listed, faults = set(), []
    for entry in table:
        key = entry["file"], entry["function"]
        place = f"{key[0]}: {key[1]}: the table lists"
        if not entry["reason"]:
            faults.append(f"{place} lines without a reason")
        for text in entry["lines"]:
            listed.add((*key, text))
            if text not in texts[key]:
                faults.append(f"{place} a line that does not exist: {text}")
            elif text not in missed[key]:
                faults.append(f"{place} a line that was reached: {text}")
    for (name, function), found in missed.items():
        for text, numbers in found.items():
            if (name, function, text) not in listed:
                faults.append(f"{name}:{numbers[0]}: not reached, and not in the table: {function}: {text}")
    return faults


def write_table(lines, table, file):
    """Writes the table anew: entries that hold, and the other unreached lines without a reason."""
    missed, _ = unreached(lines)
    heading = [line for line in file.read_text().splitlines() if line.startswith("#")]
    groups = {}  # (file, function, reason): texts
    reasons = {(e["file"], e["function"], text): e["reason"] for e in table for text in e["lines"]}
    for (name, function), found in missed.items():
        for text in found:
            groups.setdefault((name, function, reasons.get((name, function, text), "")), []).append(text)
    out = "\n".join(heading) + "\n"
    for (name, function, reason), found in groups.items():
        rows = "".join(f"    {quoted(text)},\n" for text in found)
        out += f'\n[[unreached]]\nfile = "{name}"\nfunction = "{function}"\n'
        out += f"lines = [\n{rows}]\nreason = {quoted(reason)}\n"
    file.write_text(out)


def quoted(text):
    """A TOML string: literal, unless the text has an apostrophe."""
    return json.dumps(text, ensure_ascii=False) if "'" in text or not text else f"'{text}'"


def percent(part, whole):
    return 100 * part / whole if whole else 100.0


def print_files(lines):
    """The table of files; returns the number of lines, of reached ones, of branches and of taken ones."""
    total = [0, 0, 0, 0]
    print(f"{'file':44} {'lines':>6} {'reached':>8} {'%':>6} {'branches %':>11}")
    for name in sorted(lines.counts):
        count = len(lines.counts[name])
        reached = sum(number > 0 for number in lines.counts[name].values())
        branches = [taken for each in lines.branches[name].values() for taken in each]
        taken = sum(number > 0 for number in branches)
        print(f"{name:44} {count:6} {reached:8} {percent(reached, count):6.1f} {percent(taken, len(branches)):11.1f}")
        total = [a + b for a, b in zip(total, (count, reached, len(branches), taken))]
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--least", type=float, default=97.0, help="fail below this percentage of lines")
    parser.add_argument("--table", default=ROOT / "scripts" / "coverage.toml", help="the lines that no test reaches")
    parser.add_argument("--write", action="store_true", help="write the table anew; reasons are kept")
    arguments = parser.parse_args()
    lines = read(arguments.folders)
    if not lines.counts:
        sys.exit(f"{' '.join(arguments.folders)}: no counters of our sources")
    table = tomllib.loads(Path(arguments.table).read_text()).get("unreached", [])
    if arguments.write:
        write_table(lines, table, Path(arguments.table))
    count, reached, branches, taken = print_files(lines)
    faults = check_table(lines, table)
    print(f"{count} lines, {reached} reached: {percent(reached, count):.2f} %, expected {arguments.least:g} % or more")
    print(f"{branches} branches, {taken} taken: {percent(taken, branches):.2f} %")
    print("\n".join(faults))
    return 1 if faults or percent(reached, count) < arguments.least else 0


if __name__ == "__main__":
    sys.exit(main())

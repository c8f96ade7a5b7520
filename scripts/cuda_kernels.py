"""Lists registers, shared memory and spills of each CUDA kernel, read from the compiler logs of `make cuda`.

    python scripts/cuda_kernels.py LOGS [--write docs/kernels.md]
    python scripts/cuda_kernels.py LOGS --library libps3c_cuda.so --cublaslt libcublasLt.so.13

The exit status is 1 if a kernel spills registers or has a stack frame, if the library has an undefined symbol of a CUDA
library, or if cuBLASLt lacks a function that the library looks up.
"""

import argparse
import ctypes
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
LOOKED_UP = re.compile(r"\bTAKE\((cublasLt\w+)\)")


def read_logs(folder):
    """{symbol: {architecture: (registers, static shared bytes, stack bytes, spill bytes)}} and {symbol: source}."""
    kernels, source_of = defaultdict(dict), {}
    for log in sorted(Path(folder).rglob("*.log")):
        name = architecture = frame = None
        for line in log.read_text().splitlines():
            if entry := ENTRY.search(line):
                name, architecture, frame = *entry.groups(), (0, 0)
                source_of[name] = log.stem + ".cu"
            elif name and (found := FRAME.search(line)):
                frame = (int(found[1]), int(found[2]) + int(found[3]))
            elif name and (found := USED.search(line)):
                kernels[name][architecture] = (int(found[1]), int(found[2] or 0), *frame)
                name = None
    return kernels, source_of


def plain_names(symbols):
    """{symbol: demangled name without the namespace and the parameter list}."""
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    names = {}
    for symbol, name in zip(symbols, text.splitlines()):
        name = re.sub(r"^void ", "", name.replace("(anonymous namespace)::", ""))
        depth = 0
        for i, letter in enumerate(name):  # the parameters start at the first parenthesis outside <>
            depth += (letter == "<") - (letter == ">")
            if letter == "(" and depth == 0:
                name = name[:i]
                break
        names[symbol] = (
            re.sub(r"\((?:int|bool|long)\)", "", name).replace("__nv_bfloat16", "bf16").replace("__half", "half")
        )
    return names


def table(kernels, source_of, architectures):
    names = plain_names(list(kernels))
    rows = sorted((source_of[symbol], names[symbol], by) for symbol, by in kernels.items())
    lines = ["| source | kernel | " + " | ".join(architectures) + " |", "| --- | --- |" + " --- |" * len(architectures)]
    for source, name, by in rows:
        cells = []
        for architecture in architectures:
            registers, shared, stack, spills = by.get(architecture, (0, 0, 0, 0))
            cell = str(registers) if registers else "-"
            cell += f", {shared} B" if shared else ""
            cells.append(cell + (f", {stack} B stack, {spills} B spilled" if stack or spills else ""))
        lines.append(f"| {source} | `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def faults_of(kernels):
    names = plain_names(list(kernels))
    return [
        f"{names[symbol]} on {architecture}: {stack} bytes of stack, {spills} bytes spilled"
        for symbol, by in kernels.items()
        for architecture, (_, _, stack, spills) in by.items()
        if stack or spills
    ]


def unresolved(library, cublaslt):
    """Undefined symbols of CUDA libraries in the library, and looked-up functions that cuBLASLt does not have."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    wanted = [word for word in re.findall(r"\bU (\w+)", listed) if re.match(r"cu[A-Zdb]|nv", word)]
    if cublaslt:
        text = Path(__file__).resolve().parent.parent.joinpath("kernels/cuda/cublaslt.cu").read_text()
        names = LOOKED_UP.findall(text)
        real = ctypes.CDLL(cublaslt)
        wanted += [name for name in names if not hasattr(real, name)]
        print(f"{len(names)} functions of {Path(cublaslt).name} looked up")
    return wanted


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", help="folder of nvcc's logs, searched recursively")
    parser.add_argument("--write", help="Markdown file to write the table to")
    parser.add_argument("--library", help="the built library; its undefined symbols are checked")
    parser.add_argument("--cublaslt", help="the real libcublasLt; the looked-up functions must exist in it")
    arguments = parser.parse_args()
    kernels, source_of = read_logs(arguments.logs)
    if not kernels:
        sys.exit(f"{arguments.logs}: the logs contain no kernel; compile with -Xptxas -v, as `make cuda` does")
    architectures = sorted(
        {name for by in kernels.values() for name in by}, key=lambda name: int(re.sub(r"\D", "", name))
    )
    if arguments.write:
        Path(arguments.write).write_text(
            "# CUDA kernels: registers, shared memory, spills\n\n"
            f"`make cuda` writes this file from the output of ptxas (CUDA {version()}). A cell has the registers per "
            "thread, then the static shared memory if there is any. Dynamic shared memory is chosen at launch; each "
            "source file states it. `make cuda` fails if a kernel spills registers or has a stack frame.\n\n"
            + table(kernels, source_of, architectures)
            + "\n"
        )
    faults = faults_of(kernels)
    if arguments.library:
        faults += [f"unresolved: {name}" for name in unresolved(arguments.library, arguments.cublaslt)]
    print(f"{len(kernels)} kernels for {', '.join(architectures)}: {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults else 0


def version():
    found = re.search(r"release ([\d.]+)", subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    sys.exit(main())

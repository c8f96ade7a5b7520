"""What nvcc made of the CUDA kernels: registers, shared memory and spills of each, from the logs of `make cuda`.

    python scripts/cuda_kernels.py LOGS [--write docs/kernels.md]
    python scripts/cuda_kernels.py LOGS --library libps3c_cuda.so --cublaslt libcublasLt.so.13

Fails (status 1) when a kernel spills registers or keeps a stack frame, when the library wants a symbol of CUDA at load
time, or when cuBLASLt lacks a function that the library looks up.
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
    """{kernel's symbol: {architecture: (registers, static shared bytes, stack, spill bytes)}} and its source."""
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
    """Readable names: the namespace and the list of parameters dropped."""
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
    """Symbols that the library wants from CUDA when it is loaded, and those of cuBLASLt that aren't there later."""
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
    parser.add_argument("logs", help="folder of nvcc's logs, searched to its depth")
    parser.add_argument("--write", help="Markdown file to write the table to")
    parser.add_argument("--library", help="the built library, whose undefined symbols are checked")
    parser.add_argument("--cublaslt", help="the real libcublasLt, in which the names looked up are searched")
    arguments = parser.parse_args()
    kernels, source_of = read_logs(arguments.logs)
    if not kernels:
        sys.exit(f"{arguments.logs}: no kernel in any log; `make cuda` compiles with -Xptxas -v")
    architectures = sorted(
        {name for by in kernels.values() for name in by}, key=lambda name: int(re.sub(r"\D", "", name))
    )
    if arguments.write:
        Path(arguments.write).write_text(
            "# CUDA kernels: registers, shared memory, spills\n\n"
            "Written by `make cuda` from what ptxas says (CUDA "
            f"{version()}): registers a thread, then static shared memory where there is some. Dynamic shared memory is "
            "chosen at launch and stands in each source. `make cuda` fails on any spill or stack frame.\n\n"
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

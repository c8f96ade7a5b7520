"""Measures what a call leaves behind: bytes of memory, references, open files, threads.

A test file of leaks has a table: GROUPS, functions by name that return Rows. `measure` runs one group in a process of
its own, a fork of one that has imported torch and the test file. There every allocation of Python, torch and ps3c goes
through malloc, which counts bytes exactly (mallinfo2; resident memory counts pages, and holds freed memory).

A row makes CALLS calls in 20 equal parts. After each part garbage is collected and a sample is taken. A line is fitted
to the 21 samples; the upper end of the 95 % confidence interval of its slope must be at most 1 byte per call. One step,
the largest, is taken out first if that is not so: a heap, a table or a cache grows once, and a leak goes on. In
`make test` a slow function makes fewer calls (MOST_ROW_SECONDS), and all of them in `make sweep`. The fit of fewer
calls tells less: the bound is then 1 byte times CALLS / calls. Objects of the call's arguments must have as many
references as before.

Where a library that the call uses leaves something behind, the row names the same call without ps3c. That call is
measured too and shown by name with its slope, and the line is fitted to the difference. Sizes of leaked blocks differ
by where malloc finds room, so the bound is then larger by a tenth of that slope.
"""

import array
import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import ended, fork, to_file
from support import SCALE

HERE = Path(__file__).resolve().parent
CALLS = 10_000
PARTS = 20
STUDENT = 2.093  # of 19 degrees of freedom: 95 % of the distribution lie within
MOST_FAULTY = 5  # rows with faults of one group: the others are then not measured
MOST_ROW_SECONDS = 0.3  # in `make test`: for the calls of a row, of which there are hundreds
BYTES = 1.0  # most bytes that a call may leave behind, by a fit over CALLS calls
MOST_SECONDS = 6 * 3600 if SCALE > 1 else 900


# ---- a row ----------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A call and what it should do.

    calls: in `make test`. warm: calls before the first sample. library: what a library leaves behind, if it does, and
    the call of the library alone.
    """

    name: str
    function: Callable
    arguments: tuple = ()
    named: dict | None = None
    raises: Any = ()
    calls: int = CALLS
    warm: int = 60
    library: tuple[str, Callable] | None = None

    def __call__(self) -> None:
        try:
            self.function(*self.arguments, **(self.named or {}))
        except self.raises:
            return
        if self.raises:
            raise AssertionError(f"raised nothing, expected {self.raises}")

    @property
    def count(self) -> int:
        return self.calls if SCALE == 1 else max(self.calls, CALLS)


def row(name: str, function: Callable, *arguments: Any, raises: Any = (), calls: int = CALLS, **named: Any) -> Row:
    return Row(name, function, arguments, named, raises, calls, max(min(60, calls // 10), 5))


def beside(library: str, function: Callable, one: Row) -> Row:
    """The row, of which a library's own call leaves something behind."""
    one.library = (library, function)
    return one


def fewer(calls: int, rows: Iterable[Row]) -> list[Row]:
    """The rows with fewer calls in `make test`."""
    rows = list(rows)
    for one in rows:
        one.calls = calls
    return rows


# ---- samples --------------------------------------------------------------------------------------------------------

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def malloc_counter() -> Callable[[], int] | None:
    """A function that returns the bytes in use of malloc, on all heaps and in mapped blocks. None: not this libc."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    mallinfo.restype = _Mallinfo

    def in_use() -> int:
        info = mallinfo()
        return info.uordblks + info.hblkhd

    return in_use


# Objects that any call may use. Their references may come and go with caches, so these are fitted.
SHARED = [None, True, False, Ellipsis, NotImplemented, (), "", b"", 0, 1, 2, 3, 4, "cpu", "all", type, object]


def parts_of(value: Any, depth: int = 3) -> Iterator[Any]:
    yield value
    if isinstance(value, dict) and depth:
        for key, item in value.items():
            yield key
            yield from parts_of(item, depth - 1)
    elif isinstance(value, (list, tuple)) and depth:
        for item in value:
            yield from parts_of(item, depth - 1)
    elif inspect.isfunction(value) and depth:
        yield from parts_of(value.__defaults__ or (), 2)


class Watched:
    """References of a row's arguments, of what its function belongs to, and of the shared objects."""

    def __init__(self, one: Row, shared: list[Any]):
        found = list(parts_of([one.arguments, one.named or {}, getattr(one.function, "__self__", None)]))[1:]
        self.objects = list({id(item): item for item in [*shared, *found]}.values())
        self.shared = len({id(item) for item in shared})
        self.counts = [array.array("q", [0] * (PARTS + 1)) for _ in self.objects]

    def sample(self, part: int) -> None:
        for counts, item in zip(self.counts, self.objects):
            counts[part] = sys.getrefcount(item)

    def faults(self, places: list[int], library: "Watched | None") -> list[str]:
        lines = []
        for number, (item, counts) in enumerate(zip(self.objects, self.counts)):
            common = number < self.shared
            if common and library:
                counts = [ours - theirs for ours, theirs in zip(counts, library.counts[number])]
            changed = counts[-1] - counts[0]
            loose = common or isinstance(item, (int, float, str, bytes, type))
            if changed > 10 and fit(places, counts)[1] > 0.01 if loose else changed:
                lines.append(f"{changed:+} references of {type(item).__name__} {short(item)}")
        return lines


def bound(one: Row) -> float:
    """Most bytes that a call of the row may leave behind."""
    return BYTES * CALLS / one.count


def short(value: Any) -> str:
    try:
        return repr(value)[:60].replace("\n", " ")
    except Exception:
        return "?"


def fit(places: list[int], values: list[int]) -> tuple[float, float]:
    """Slope of a line through the points by least squares, and the upper end of its 95 % confidence interval."""
    count = len(places)
    x, y = sum(places) / count, sum(values) / count
    spread = sum((place - x) ** 2 for place in places)
    slope = sum((place - x) * (value - y) for place, value in zip(places, values)) / spread
    rest = sum((value - y - slope * (place - x)) ** 2 for place, value in zip(places, values))
    return slope, slope + STUDENT * (rest / (count - 2) / spread) ** 0.5


def without_largest_step(values: Iterable[int]) -> list[int]:
    """The values without the largest difference between two neighbours."""
    values = list(values)
    steps = [after - before for before, after in zip(values, values[1:])]
    steps[steps.index(max(steps))] = 0
    return [values[0] + sum(steps[:number]) for number in range(len(values))]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def least(in_use: Callable[[], int], wanted: int) -> int:
    """The least of a few readings, while they are above `wanted`: other threads may be about to free memory."""
    value = in_use()
    for seconds in (0.001, 0.001, 0.005):
        if value <= wanted:
            break
        time.sleep(seconds)
        value = min(value, in_use())
    return value


def settle() -> None:
    """Collects garbage, and empties the cache of attributes of types, which holds up to 4,096 names of calls."""
    gc.collect()
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()


def sampled(one: Row, size: int, in_use: Callable[[], int], shared: list[Any]) -> tuple[Any, Watched, list[str]]:
    """Makes the calls of a row. Returns the bytes in use at each sample, the references, and other faults."""
    memory = array.array("q", [0] * (PARTS + 1))
    for _ in range(one.warm):
        one()
    watched = Watched(one, shared)
    files = threads_before = 0
    settle()
    gc.freeze()  # a collection then looks at new objects only
    for part in range(PARTS + 1):
        for _ in range(size if part else 0):
            one()
        settle()
        watched.sample(part)
        # Memory up to a fifth of the bound cannot change the verdict, so nobody waits for it to be freed.
        memory[part] = least(in_use, memory[0] + int(bound(one) * part * size / 5))
        if part == 0:
            files, threads_before = open_files(), threads()
    faults = []
    if open_files() > files:
        faults.append(f"{open_files() - files} more open files")
    if least(threads, threads_before) > threads_before:
        faults.append(f"{threads() - threads_before} more threads")
    return memory, watched, faults


def examine(one: Row, in_use: Callable[[], int], shared: list[Any]) -> dict[str, Any]:
    """The figures and the faults of a row. A row with faults is measured again: a leak grows again, a cache is full."""
    result = examine_once(one, in_use, shared)
    return examine_once(one, in_use, shared) if result["faults"] else result


def examine_once(one: Row, in_use: Callable[[], int], shared: list[Any]) -> dict[str, Any]:
    size, begin, named, library = max(one.count // PARTS, 1), time.process_time(), None, None
    most = bound(one)
    places = [part * size for part in range(PARTS + 1)]
    memory, watched, faults = sampled(one, size, in_use, shared)
    if one.library:
        name, function = one.library
        theirs, library, _ = sampled(row(name, function), size, in_use, shared)
        named = f"{name}: {fit(places, theirs)[0]:.0f} bytes per call"
        memory = [a - b for a, b in zip(memory, theirs)]
        most += abs(fit(places, theirs)[0]) / 10
    slope, upper = fit(places, memory)
    if upper > most:
        slope, upper = fit(places, without_largest_step(memory))
    faults += watched.faults(places, library)
    if upper > most:
        steps = " ".join(f"{after - before}" for before, after in zip(memory, memory[1:]))
        faults.append(f"{slope:.2f} bytes per call (at most {upper:.2f}); by part of {size} calls: {steps}")
    return {
        "calls": size * PARTS,
        "slope": slope,
        "upper": upper,
        "most": most,
        "faults": faults,
        "library": named,
        "seconds": time.process_time() - begin,
    }


def limit_calls(one: Row) -> None:
    """In `make test`: as many calls as fit into MOST_ROW_SECONDS, 100 or more."""
    if SCALE > 1 or "in a new thread" in one.name:  # a thread's memory comes in steps, which few calls do not average
        return
    begin = time.process_time()
    for _ in range(5):
        one()
    seconds = max(time.process_time() - begin, 1e-5) / 5
    one.calls = min(one.calls, max(int(MOST_ROW_SECONDS / seconds), 100) // PARTS * PARTS)


# ---- the process of a group -----------------------------------------------------------------------------------------


def examine_group(file: str, group: str, out: Path, log: Path, words: str) -> None:
    """Examines the rows of one group and writes a line of JSON for each to `out`; what is printed goes to `log`."""
    import torch

    from ps3c import _core

    to_file(log)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent
    tempfile.tempdir = str(out.parent)
    in_use = malloc_counter()
    assert in_use is not None
    torch_objects = [torch.float32, torch.float16, torch.int64, torch.uint8, torch.strided, torch.Tensor, torch.Size]
    core_types = [value for value in vars(_core).values() if isinstance(value, type)]
    shared = SHARED + torch_objects + core_types
    rows = importlib.import_module(file).GROUPS[group]()
    faulty = 0
    with out.open("w") as lines:
        for one in rows:
            if words not in one.name or faulty == MOST_FAULTY:
                continue
            try:
                limit_calls(one)
                result = examine(one, in_use, shared)
            except KeyboardInterrupt:
                raise
            except BaseException:
                result = {"calls": 0, "faults": [traceback.format_exc(limit=-4)]}
            faulty += bool(result["faults"])
            print(json.dumps({"name": one.name, **result}), file=lines, flush=True)


def serve(file: str) -> None:
    """Reads lines [group, out, log, words], examines each group in a child, and answers with the child's status."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    sys.path.insert(0, str(HERE.parent / "user"))
    sys.path.insert(0, str(HERE.parent))
    import torch

    torch.set_num_threads(1)
    importlib.import_module(file)
    for line in sys.stdin:
        group, out, log, words = json.loads(line)
        child = fork(examine_group, file, group, Path(out), Path(log), words, seconds=MOST_SECONDS)
        print(ended(child), file=answers, flush=True)


# ---- in the test -----------------------------------------------------------------------------------------------------


_servers: dict[str, subprocess.Popen] = {}  # by test file: the last one


def server(file: str) -> subprocess.Popen:
    """The process that forks the groups of a test file. Its Python allocates by malloc."""
    if file not in _servers:
        stop_servers()
        _servers[file] = start_server(file)
    return _servers[file]


@atexit.register
def stop_servers() -> None:
    """They have no work now, or must not go on with it."""
    for process in _servers.values():
        process.kill()
        process.communicate()
    _servers.clear()


def start_server(file: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONMALLOC": "malloc",
        # malloc counts freed blocks in a thread's cache as in use.
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.Popen(
        [sys.executable, __file__, file], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def measure(file: str, group: str, figures, tmp_path: Path, words: str = "") -> None:
    """Runs a group of a test file in a process of its own, and counts its rows in figures."""
    out, log = tmp_path / "rows.jsonl", tmp_path / "log"
    process, status = server(Path(file).stem), "no answer"
    try:
        print(json.dumps([group, str(out), str(log), words]), file=process.stdin, flush=True)
        if select.select([process.stdout], [], [], MOST_SECONDS + 60)[0]:
            status = process.stdout.readline().strip() or "the end of the process that forks it"
    finally:
        if status not in ("0", "1"):
            stop_servers()  # the next group gets a new one
    said = log.read_text()[-4000:] if log.exists() else ""
    assert status == "0", f"the process of the group ended with {status}: {said}"
    for path in tmp_path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        for fault in line["faults"]:
            figures.failures.append(f"{line['name']}: {fault}")
        figures.passed()
    good = [line for line in lines if line["calls"]]
    least, most = (function(line["calls"] for line in good) for function in (min, max)) if good else (0, 0)
    for line in sorted(good, key=lambda line: -line["seconds"]):
        print(f"{line['seconds']:6.1f} s {line['calls']:6} calls {line['upper']:8.3f} bytes  {line['name']}")
    libraries = sorted({line["library"] for line in good if line["library"]})
    figures.finish(
        **{f"not_of_ps3c_{number}": words for number, words in enumerate(libraries, 1)},
        calls_of_a_row=f"{least:,} to {most:,}",
        calls_in_all=f"{sum(line['calls'] for line in good):,}",
        largest_slope=f"{max((line['upper'] / line['most'] for line in good), default=0):.3f} of the bound",
        seconds=round(sum(line["seconds"] for line in good)),
    )


if __name__ == "__main__":
    serve(sys.argv[1])

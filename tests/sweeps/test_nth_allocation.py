"""The n-th allocation fails, once or from then on, for every n: nothing crashes, hangs, leaks or computes wrongly.

Three sweeps:

- The engine's own allocations, in C, during each operation of the API: all n.
- CPython's allocations during each call of `ps3c._core` that the operations make: up to 60 of the n. Each is tried
  several times in a row, so that a block that is left behind each time shows.
- CPython's allocations during each operation: n is sampled, for there are up to a million. Those inside native code of
  other packages do not fail (faults_memory.c).

At each point the operation raises MemoryError or gives the right result, bit for bit. The same operation in the same
process then gives the right result, from caches that the failure did not spoil.
"""

import contextlib
import functools
import gc
import hashlib
import random
import sys
import traceback
import warnings
from pathlib import Path

import faults
from support import SEED, trials

SCRIPT = Path(__file__).resolve()
TEXT, THREADS = "a red boat", 2  # threads of the engine's pool, which are made in the fork


def sweep(part, folder, figures):
    facts = faults.run(SCRIPT, "faults_memory.c", folder, figures, part)
    figures.finish(**facts)


def test_the_engines_allocations(tmp_path, figures):
    sweep("engine", tmp_path, figures)


def test_pythons_allocations_in_the_binding(tmp_path, figures):
    sweep("binding", tmp_path, figures)


def test_pythons_allocations(tmp_path, figures):
    sweep("python", tmp_path, figures)


# ---- the operations, in the prepared process ------------------------------------------------------------------------


class Operations:
    """What is tried, on an encoder without plans and tokenizer, and the right results. `names` lists it."""

    names = ("load", "from_pretrained", "vision", "text", "preprocess", "tokenizer", "embed_images")

    def __init__(self, folder: Path):
        import torch
        from PIL import Image

        import ps3c

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self.checkpoint, self.library = faults.checkpoint(folder), ps3c._core.__file__
        self.image = Image.linear_gradient("L").resize((200, 120)).convert("RGB")
        self.pixels = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
        self.ids = torch.arange(1, 33)[None]
        self.encoder = self.load()
        self.right = {name: fingerprint(self(name)) for name in self.names}
        self.right = {name: fingerprint(self(name)) for name in self.names}  # all that is imported late is imported
        self.encoder = self.load()
        gc.collect()
        gc.freeze()  # so that a fork's collections copy no pages of this process

    def load(self):
        import ps3c

        return ps3c.load(self.checkpoint, device="cpu", dtype="float32")

    def __call__(self, name: str):
        encoder = self.encoder
        if name == "load":
            loaded = self.load()
            return loaded.model.state_dict(), loaded.logit_scale, loaded.logit_bias, loaded.processor.image_size
        if name == "from_pretrained":
            return type(encoder.model).from_pretrained(self.checkpoint).state_dict()
        if name == "vision":
            output = encoder.model.vision_model(self.pixels, num_look_close=1, output_hidden_states=True)
            return output.last_hidden_state, output.selection_maps, output.selection_probs
        if name == "text":
            output = encoder.model.encode_text(self.ids)
            return output.pooled_output, output.prompt
        if name == "preprocess":
            return encoder.processor.preprocess(self.image)["pixel_values"]
        if name == "tokenizer":
            return encoder.tokenizer([TEXT, "Two cats."])
        features = encoder.embed_images([self.image], TEXT, looks=1, maps=True, progress=False)
        return features.pooled, features.tokens, features.positions, features.selection_maps, features.texts


def fingerprint(value) -> str:
    """A digest of tensors, arrays and plain values in lists, tuples and dicts."""
    digest = hashlib.sha256()

    def add(one):
        if isinstance(one, dict):
            add(sorted(one.items()))
        elif isinstance(one, (list, tuple)):
            for part in one:
                add(part)
        elif hasattr(one, "detach"):
            add(one.detach().numpy() if one.element_size() != 2 else one.detach().float().numpy())
        elif hasattr(one, "tobytes"):
            digest.update(f"{one.shape} {one.dtype}".encode() + one.tobytes())
        else:
            digest.update(repr(one).encode())

    add(value)
    return digest.hexdigest()


def raised_in(error: BaseException) -> str:
    """File and line of the innermost frame of Python code."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}"


def verdict(error: BaseException) -> tuple[str | None, str]:
    """(What is wrong with an exception or None, its kind). A MemoryError that another package made into an exception of
    its own is that package's."""
    if isinstance(error, MemoryError):
        return None, "memory errors"
    one = error
    while one is not None:
        inner = one.__cause__ or one.__context__
        # torch's load_state_dict keeps the text of the errors alone; a MemoryError has none.
        if isinstance(inner, MemoryError) or "an exception occurred : ()" in str(one):
            if not raised_in(one).startswith(f"{faults.ROOT}/ps3c/") or inner is None:
                return None, "errors of other packages"
            if isinstance(inner, MemoryError):
                break
        one = inner
    return f"raised {type(error).__name__}: {str(error)[:300]} ({raised_in(error)})", ""


def attempt(operations: Operations, name: str, fault) -> tuple[str | None, str]:
    """Calls an operation under a fault: (what is wrong or None, the kind of end)."""
    value = error = None
    with fault:
        try:
            value = operations(name)
        except BaseException as raised:
            error = raised
    if error is not None:
        return verdict(error)
    return (None, "right results") if fingerprint(value) == operations.right[name] else ("gave a wrong result", "")


def point(operations: Operations, memory: faults.Memory, name: str, which: int, n: int, ever: bool) -> dict:
    """One point, in a fork: the fault, then the same call without it."""
    import torch

    torch.set_num_threads(THREADS)
    trouble, kind = attempt(operations, name, memory.fault(which, n, ever))
    count, failed = memory.count, memory.failed
    after, _ = attempt(operations, name, memory.fault(which))
    if trouble is None and after is not None:
        trouble = f"the next call {after}"
    gc.collect()
    return {"trouble": trouble, "kind": kind, "count": count, "failed": failed, "live": memory.live}


def sweep_engine(operations: Operations, memory: faults.Memory, report: faults.Report):
    for name in operations.names:
        whole = faults.forked(lambda: point(operations, memory, name, faults.LIBRARY, 0, False))  # noqa: B023
        if whole.get("trouble"):
            report.add(name, whole["trouble"])
            continue
        report.count(f"allocations of {name}", whole["count"])
        for ever in (False, True):
            n, found = 1, {"failed": 1}
            while found["failed"]:  # until the operation ends before the n-th
                found = faults.forked(lambda: point(operations, memory, name, faults.LIBRARY, n, ever))  # noqa: B023
                found.setdefault("failed", n <= whole["count"])
                if found.get("trouble") is None and found["live"] > whole["live"]:
                    found["trouble"] = f"left {found['live'] - whole['live']} allocations behind"
                report.add(f"{name}, allocation {n}{' and all later' if ever else ''}", found.get("trouble"))
                report.count(found.get("kind") or "troubles")
                n += 1


def sweep_python(operations: Operations, memory: faults.Memory, report: faults.Report):
    draw = random.Random(SEED)
    for name in operations.names:
        whole = faults.forked(lambda: point(operations, memory, name, faults.PYTHON, 0, False))  # noqa: B023
        if whole.get("trouble"):
            report.add(name, whole["trouble"])
            continue
        report.count("allocations", whole["count"])
        most = trials(8 if name in ("load", "from_pretrained") else 24)
        for n in faults.points(whole["count"], most, draw):
            for ever in (False, True):
                found = faults.forked(lambda: point(operations, memory, name, faults.PYTHON, n, ever))  # noqa: B023
                if found.get("failed") == 0:
                    report.count("left to other packages")
                    continue
                report.add(f"{name}, allocation {n}{' and all later' if ever else ''}", found.get("trouble"))
                report.count(found.get("kind") or "troubles")


# ---- the calls of ps3c._core ----------------------------------------------------------------------------------------


class Calls:
    """Records the calls of ps3c._core during the block: (name, function, arguments, keywords), each name once."""

    def __init__(self):
        self.found = {}

    def recorded(self, name: str, function):
        def call(*arguments, **keywords):
            self.found.setdefault(f"{name}({', '.join(keywords)})", (function, arguments, keywords))
            return self.watched(name, function(*arguments, **keywords))

        return call

    def watched(self, name: str, thing):
        """thing; if it is an object of _core, what is called or read of it is recorded."""
        if type(thing).__module__ != "ps3c._core":
            return thing
        calls = self

        class Watched:
            def __getattr__(self, attribute):
                if callable(getattr(type(thing), attribute)):
                    return calls.recorded(f"{name}.{attribute}", getattr(thing, attribute))
                return calls.recorded(f"{name}.{attribute}", functools.partial(getattr, thing, attribute))()

        return Watched()

    @contextlib.contextmanager
    def __call__(self):
        from ps3c.engine import core

        places = [(core.VisionModel, "_KIND"), (core.TextModel, "_KIND"), (core, "Parameters"), (core, "cpu_levels")]
        places += [(core, name) for name in vars(core) if name.startswith("image_")]
        before = [getattr(place, name) for place, name in places]
        for (place, name), function in zip(places, before):
            setattr(place, name, staticmethod(self.recorded(function.__name__, function)))
        try:
            yield
        finally:
            for (place, name), function in zip(places, before):
                setattr(place, name, function)


ATTRIBUTES = ("weights", "takes", "steps", "grids", "image_sizes", "workspace_bytes", "looks", "hidden_states")
REPEATS = 4  # of each failing call, to see what is left behind


def state(result, keywords: dict) -> str:
    """What a call gave: its result, and the tensors that it wrote."""
    if type(result).__name__ == "Parameters":
        result = [id(one) for one in result.collect()]
    elif type(result).__module__ == "ps3c._core":
        result = [getattr(result, name, None) for name in ATTRIBUTES]
    elif isinstance(result, list):
        result = [id(one) if hasattr(one, "detach") else one for one in result]
    written = {name: value for name, value in keywords.items() if name not in ("workspace", "threads")}
    return fingerprint([result, written])


def leaks(call, arguments: list) -> bool:
    """Does each call leave a block of Python's memory, or a reference to an argument, behind?"""

    def now():
        gc.collect()
        return sys.getallocatedblocks(), sum(map(sys.getrefcount, arguments))

    # The interpreter keeps blocks too, fewer and fewer. What is left behind each time is left behind in all rounds.
    for repeats in (REPEATS, *[10 * REPEATS] * 7):
        blocks, references = now()
        for _ in range(repeats):
            call()
        after = now()
        if max(after[0] - blocks, after[1] - references) < repeats:
            return False
    return True


def flat(value) -> list:
    """The objects in nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    return [one for part in value for one in flat(part)] if isinstance(value, (list, tuple)) else [value]


def watching(count: int) -> tuple:
    """Arguments of Parameters whose check, a function of C, names so many attributes to watch: their list grows."""
    from torch import nn

    module = nn.Module()
    module.child = nn.Linear(2, 2)
    return module, ["child.weight"], {"child": (({"key": 1}, "key"),) * count}.get


def replay(memory: faults.Memory, function, arguments, keywords) -> dict:
    """Points of one call of ps3c._core, in one process.

    A check of Parameters is Python code. The interpreter leaves blocks behind where that fails, so leaks are looked for
    in the same call without a check.
    """
    is_c = not any(type(one).__name__ == "LayerCheck" for one in arguments)
    right = [state(function(*arguments, **keywords), keywords) for _ in range(2)][1]

    def trial(n, ever) -> str | None:
        result = error = None
        memory.arm(faults.PYTHON, n, ever)
        try:
            result = function(*arguments, **keywords)
        except MemoryError:
            memory.disarm()
            return None
        except BaseException as raised:
            error = raised
        memory.disarm()
        if error is not None:
            return f"raised {type(error).__name__}: {str(error)[:300]}"
        return None if state(result, keywords) == right else "gave a wrong result"

    for _ in range(10):  # the interpreter adapts its code, and keeps blocks for that
        trial(1, False)
    trial(0, False)
    total, troubles, passed, given = memory.count, [], 0, flat([arguments, keywords])
    for n in faults.points(total, trials(60), random.Random(SEED)):
        for ever in (False, True):
            trouble = trial(n, ever)
            if trouble is None and state(function(*arguments, **keywords), keywords) != right:
                trouble = "the next call gave a wrong result"
            if trouble is None and is_c and leaks(lambda: trial(n, ever), given):  # noqa: B023
                trouble = "leaves blocks or references behind each time"
            if trouble is None:
                passed += 1
            else:
                troubles.append(f"allocation {n}{' and all later' if ever else ''}: {trouble}")
    return {"passed": passed, "troubles": troubles, "count": total}


def sweep_binding(operations: Operations, memory: faults.Memory, report: faults.Report):
    calls = Calls()
    with calls():
        operations.encoder = operations.load()
        for name in ("vision", "text", "preprocess", "embed_images"):
            operations(name)
        operations.encoder.model.vision_model(
            operations.pixels, num_look_close="all", only_select_first_n_scale=[1], output_hidden_states=True
        )
    name = next(name for name in calls.found if name.startswith("Parameters("))
    function, arguments, _ = calls.found[name]
    calls.found[f"{name} without a check"] = (function, arguments[:2], {})
    calls.found["Parameters that watch much"] = (function, watching(70), {})
    report.count("calls", len(calls.found))
    for name, (function, arguments, keywords) in calls.found.items():
        found = faults.forked(lambda: replay(memory, function, arguments, keywords))  # noqa: B023
        if "trouble" in found:
            report.add(name, found["trouble"])
            continue
        report.count("allocations", found["count"])
        report.passed += found["passed"]
        report.failures += [f"{name}, {trouble}" for trouble in found["troubles"]]


def main(folder: str, part: str, *names: str):
    """names: of the operations; none: all."""
    Operations.names = names or Operations.names
    warnings.simplefilter("ignore", DeprecationWarning)  # fork of a process with threads
    report, operations = faults.Report(), Operations(Path(folder))
    memory = faults.Memory(operations.library)
    {"engine": sweep_engine, "binding": sweep_binding, "python": sweep_python}[part](operations, memory, report)
    report.print()


if __name__ == "__main__":
    main(*sys.argv[1:])

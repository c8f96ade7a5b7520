"""Calls of ps3c with hostile arguments. A process of its own: `python [-O] hostile.py COUNT SEED [ONLY]` prints JSON.

A set is a call with valid arguments of which none to three are replaced by hostile values (hostile_values.py). What
must hold is in `judge`. Set number n of a seed is always the same; ONLY runs one set and shows it.
"""

import contextlib
import faulthandler
import io
import json
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hostile_targets
import torch
from hostile_values import ANSWER, UNCOPIED

LONGEST = 400  # characters of a message
MEMORY = 6 << 30  # bytes of address space beyond those in use at the start: what needs more is a MemoryError
SECONDS = 120  # of fifty sets, far more than they need: a hang ends the process with all stacks
REFUSALS = (TypeError, ValueError, NotImplementedError, MemoryError, RuntimeError)


@contextlib.contextmanager
def on_meta():
    """New tensors are on the device meta unless the code names another one."""
    with torch.no_grad(), torch.device("meta"):
        yield


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "gradients": contextlib.nullcontext,
    "default device meta": on_meta,
}


def make_set(targets: list, seed: int, number: int):
    """(target, arguments, plan): plan lists (field, row's name, allowed) of the hostile fields."""
    chance = random.Random(f"{seed}/{number}")
    target = chance.choices(targets, [one.weight for one in targets])[0]
    arguments = target.valid(chance)
    plan = []
    fields = [name for name in target.tables if name in arguments]
    for name in chance.sample(fields, min(len(fields), chance.choice((0, 1, 1, 1, 1, 1, 2, 2, 3)))):
        row, make, allowed = chance.choice(target.tables[name])
        if arguments[name] is not None or name in target.nullable:
            try:
                arguments[name] = make(arguments[name], chance)
            except (RuntimeError, IndexError):
                continue  # torch makes no such tensor from this valid one, such as a nested one of scalars
            plan.append((name, row, allowed))
    return target, arguments, plan, chance.choices(list(CONTEXTS), (12, 2, 2, 1))[0]


def is_allowed(error: Exception, names: set, allowed: set) -> str:
    """Why the exception is none that the set may raise; "" if it is one."""
    message = str(error)
    if not isinstance(error, REFUSALS):
        return "not a documented kind"
    if not any(isinstance(error, kind) for kind in allowed if isinstance(kind, type)):
        return f"expected {sorted(getattr(one, '__name__', one) for one in allowed)}"
    if len(message) > LONGEST:
        return f"a message of {len(message)} characters"
    if not any(name in message for name in names) and not message.startswith("no memory for "):
        return f"names none of {sorted(names)}"
    return ""


def judge(target, arguments: dict, plan: list, context: str) -> str:
    """What is wrong with the outcome of a call; "" if nothing is."""
    by_answer = all(ANSWER in allowed or UNCOPIED in allowed for _, _, allowed in plan)
    allowed = {one for _, _, row in plan for one in row}
    if context == "gradients" and any(getattr(value, "requires_grad", False) is True for value in arguments.values()):
        by_answer, allowed = False, allowed | {NotImplementedError}
    names = {word for name, _, _ in plan for word in target.words(name)}
    try:
        with CONTEXTS[context]():
            outputs = target.call(**arguments)
    except Exception as error:
        if not plan:
            return f"a plain set raised {type(error).__name__}: {str(error)[:300]}"
        wrong = is_allowed(error, names, allowed)
        return wrong and f"{wrong}: {type(error).__name__}: {str(error)[:600]}"
    if not by_answer:
        return f"was accepted, expected one of {sorted(getattr(one, '__name__', one) for one in allowed)}"
    wrong = target.check(arguments, outputs)
    if wrong or not plan or any(UNCOPIED in row for _, _, row in plan):
        return wrong
    with torch.no_grad():
        copies = target.call(**target.canonical(arguments))
    return "" if target.bits(copies) == target.bits(outputs) else "other bits than those of the plain copy"


def run(count: int, seed: int, only: int | None = None) -> dict:
    targets = hostile_targets.targets()
    soft = resource.getrlimit(resource.RLIMIT_AS)[1]
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, soft))
    failures, outcomes, longest = [], {}, 0.0
    rows = {(one.name, name, row) for one in targets for name, table in one.tables.items() for row, _, _ in table}
    for number in range(count) if only is None else [only]:
        if number % 50 == 0:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
        target, arguments, plan, context = make_set(targets, seed, number)
        start = time.perf_counter()
        wrong = judge(target, arguments, plan, context)
        longest = max(longest, time.perf_counter() - start)
        if not wrong and not target.still_right():
            wrong = "the next plain call gave other bits"
        rows -= {(target.name, name, row) for name, row, _ in plan}
        outcomes[target.name] = outcomes.get(target.name, 0) + 1
        if wrong:
            told = "; ".join(f"{name} = {row}" for name, row, _ in plan)
            failures.append(f"set {number} ({context}): {target.name}({told}): {wrong}")
    faulthandler.cancel_dump_traceback_later()
    return {
        "tried": sum(outcomes.values()),
        "targets": outcomes,
        "failures": failures,
        "longest": longest,
        "never": sorted(map(" ".join, rows)),
        "optimised": sys.flags.optimize,
    }


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    numbers = [int(argument) for argument in sys.argv[1:]]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            report = run(*numbers)
        except BaseException:
            traceback.print_exc()
            sys.exit(1)
    print(json.dumps(report))

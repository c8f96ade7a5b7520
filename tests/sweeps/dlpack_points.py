"""The points of test_dlpack.py: each tensor argument of each run, lent by a producer that counts.

Arguments: the route by which ps3c borrows ("exchange", "managed" or "capsule"); the compiled producer.
"""

import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import apart
import dlpack_forms
import dlpack_loans as loans
import dlpack_owners
import support
import torch
from dlpack_loans import ROUTE
from dlpack_subjects import Subject, refusal, subjects, trial

KEPT: list = []  # until the interpreter has ended


def form(subject: Subject, path: tuple, name: str, change, expected: str):
    """The argument with a change: the result is right, or it is refused."""

    def act(arguments, loan):
        if change(loan) is False:  # it is no change of this tensor
            return ""
        error = subject.call(arguments, {path: loan})
        if expected == "any" or (error is None and expected != "refused"):
            return loan.problem(1)
        if expected == "right":
            return repr(error)
        return refusal(subject, path, error) or loan.problem(1)

    trial(subject, path, name, act)


def forms(core):
    generator = random.Random(support.SEED)
    for subject in subjects(core):
        for path in subject.paths(generator, subject.arguments(subject.planned)):
            for name, change, expected in dlpack_forms.forms(generator, path[0]):
                form(subject, path, name, change, expected)
        if subject.call(subject.arguments(subject.planned)):
            apart.failed(f"{ROUTE} {subject.name}: other bits after the refusals")


def at_exit(core):
    """The interpreter ends during a run on loans. The producer checks its counts when the process ends."""
    subject = Subject(core, "long text", False, torch.float32, 4000)
    arguments = subject.arguments(subject.planned)
    lent = {path: subject.lend(arguments, path) for path in [("weights", 0), ("ids", None), ("workspace", None)]}
    for loan in lent.values():
        loan.offer.protect_after = loans.STAYS
    given, started = subject.given(arguments, lent), threading.Event()
    given.update(level="naive", threads=2)
    lent["workspace", None].hook(started.set)
    KEPT.append((core, subject, lent, given))
    threading.Thread(target=subject.run, args=(subject.planned, given), daemon=True).start()
    started.wait()
    time.sleep(0.02)
    apart.passed()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        module = loans.core_of_route()
        for part in (dlpack_owners.owners, forms, at_exit):
            part(module)

"""The runs whose arguments dlpack_points.py lends, and one point: a run with a loan, and what became of the loan."""

import random

import apart
import support
import tiny_core
import torch
from dlpack_loans import ROUTE, Capsules, Loan, producer

WEIGHTS = 3  # weights of a tower that are lent in turn


class Subject(tiny_core.Pass):
    """A pass whose arguments are lent one at a time. expected: the bytes of each output."""

    def __init__(self, core, name: str, vision: bool, dtype: torch.dtype, batch: int, **request):
        super().__init__(core, name, vision, dtype, batch, **request)
        self.planned, self.expected = self.plan(), []
        self.call(self.arguments(self.planned))
        own = self.arguments(self.planned)
        self.order, self.absent = [*own, "threads", "level"], {name for name in own if own[name] == []}
        self.names = [name for name, _ in self.model.weights]

    def given(self, arguments: dict, lent: dict) -> dict:
        """The arguments, some of them replaced by loans, by path."""
        given = {name: list(value) if isinstance(value, list) else value for name, value in arguments.items()}
        for (name, index), loan in lent.items():
            if index is None:
                given[name] = loan.object
            else:
                given[name][index] = loan.object
        return given

    def call(self, arguments: dict, lent: dict | None = None, given: dict | None = None):
        """Runs with loans. Returns the exception; None if all outputs are right."""
        lent = lent or {}
        try:
            self.run(self.planned, given or self.given(arguments, lent))
        except Exception as error:
            return error.with_traceback(None)
        written = {id(loan.like): loan for loan in lent.values() if loan.output}
        got = [
            written[id(tensor)].content() if id(tensor) in written else tensor.view(torch.uint8).numpy().tobytes()
            for tensor in self.outputs(arguments)
        ]
        self.expected = self.expected or got
        return None if got == self.expected else AssertionError("other bits")

    def paths(self, generator: random.Random, arguments: dict) -> list[tuple]:
        """(name, index) of every tensor argument; of the weights a few."""
        found = []
        for name, value in arguments.items():
            if not isinstance(value, list):
                found.append((name, None))
            elif name == "weights":
                found += [(name, i) for i in sorted(generator.sample(range(len(value)), support.trials(WEIGHTS)))]
            else:
                found += [(name, i) for i in range(len(value))]
        return found

    def label(self, path: tuple) -> str:
        name, index = path
        return f"weight {self.names[index]}" if name == "weights" else name if index is None else f"{name}[{index}]"

    def lend(self, arguments: dict, path: tuple) -> Loan:
        name, index = path
        tensor = arguments[name] if index is None else arguments[name][index]
        return Loan(tensor, name == "workspace" or any(tensor is output for output in self.outputs(arguments)))


def subjects(core) -> list[Subject]:
    look = dict(num_look_close=2, prompt=True, gt_maps=True)
    pretrain = dict(mode="pretrain", global_text=True, pool_gt_only=True, **look)
    return [
        Subject(core, "features", True, torch.float32, 2, hidden_states=2, **look),
        Subject(core, "pretrain", True, torch.bfloat16, 2, **pretrain),
        Subject(core, "text", False, torch.float16, 3),
    ]


def refusal(subject: Subject, path: tuple, error) -> str:
    """ "" if the error refuses the argument by its name."""
    kinds = (TypeError, ValueError, RuntimeError, MemoryError)
    if type(error) in kinds and str(error).startswith(f"{subject.label(path)}: got "):
        return ""
    return f"{error!r}, expected a refusal of {subject.label(path)}"


def trial(subject: Subject, path: tuple, what: str, act):
    """One point: act(arguments, loan) returns what is wrong."""
    what = f"{ROUTE} {subject.name} {subject.label(path)}: {what}"
    apart.at(what)
    arguments = subject.arguments(subject.planned)
    loan = subject.lend(arguments, path)
    try:
        problem = act(arguments, loan)
        if not problem and not loan.output and loan.content() != loan.before:
            problem = "an input was written to"
        apart.failed(f"{what}: {problem}") if problem else apart.passed()
    finally:
        Capsules.made.clear()
        producer.producer_add(None)
        loan.close()

"""What the sweeps share: how long they run, their seeds, and their figures.

`make test` runs each sweep for at most two minutes, with the seed 0. `make sweep` multiplies the number of trials by
SCALE (the environment variable PS3C_SWEEP) and draws another seed. PS3C_SWEEP_SEED repeats a run.
"""

import os
import random
import sys

SCALE = int(os.environ.get("PS3C_SWEEP", "1"))
SEED = int(os.environ.get("PS3C_SWEEP_SEED", "0" if SCALE == 1 else str(random.SystemRandom().randrange(2**32))))


def paths() -> list[str]:
    """sys.path for a new process, without the reference's packages, which other tests of this process put there."""
    return [path for path in sys.path if path and ".cache" not in path]


def trials(number: int) -> int:
    """How many trials a sweep makes: `number` in `make test`, SCALE times as many in `make sweep`."""
    return number * SCALE


class Figures:
    """Counts what a sweep tried and what failed. Its line stands at the end of pytest's output."""

    def __init__(self, record, name: str):
        self.record, self.name = record, name
        self.tried, self.failures, self.facts = 0, [], {}

    def passed(self, number: int = 1):
        """Counts trials that held."""
        self.tried += number

    def failed(self, what: str):
        """Counts one trial that did not hold, and keeps what it says."""
        self.tried += 1
        self.failures.append(what)

    def finish(self, **facts):
        """Records the line, then fails the test if a trial failed. facts: other figures for the line."""
        words = "".join(f", {key.replace('_', ' ')} {value}" for key, value in {**self.facts, **facts}.items())
        self.record(
            "sweep", f"{self.name}: {self.tried} tried, {len(self.failures)} failed{words}, seed {SEED}, scale {SCALE}"
        )
        shown = "\n".join(self.failures[:20])
        assert not self.failures, f"{len(self.failures)} of {self.tried} failed, seed {SEED}:\n{shown}"
        assert self.tried, "nothing was tried"

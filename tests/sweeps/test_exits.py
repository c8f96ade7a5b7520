"""Exits of the process in fifteen states: while other threads compute, after a fork, with results alive, and so on.

The exit code is the one that was asked for, nothing hangs, and no message of a crash appears.
"""

import gc
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy
from forked import HUNG, SECONDS, alone, ended, fork, photographs, prepare, to_file, write_checkpoint
from support import trials

from ps3c.engine import core

CRASH = ("Traceback", "Fatal Python error", "Segmentation", "terminate called", "Assertion", "Aborted", "corrupt")


def test_exits(figures, tmp_path):
    alone(figures, "test_exits:exits", tmp_path, trials(8), PS3C_NUM_THREADS="2")
    figures.finish()


# ---- in the prepared process -----------------------------------------------------------------------------------------

KEPT = []  # until the end of the interpreter


class State:
    """What a state of the process is made of."""

    def __init__(self, folder: Path):
        import ps3c

        self.folder, self.images = folder, photographs(folder, 3)
        self.encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")

    def forward(self):
        return self.encoder.embed_images(self.images[:1], looks=2)

    def compute(self, started: threading.Event | None = None, until: float = 1e9):
        """Calls of the engine without torch: Python 3.13 and earlier stop a daemon thread where it takes the GIL, and
        torch's C++ then aborts. A call takes longer than the interval of polling."""
        pixels, out = numpy.zeros((3000, 3000, 3), numpy.uint8), numpy.zeros((3000, 1500, 4), numpy.uint8)
        end = time.monotonic() + until
        while time.monotonic() < end:
            core.image_resize_columns(pixels, "bicubic", out, threads=2)
            if started:
                started.set()

    def threads(self, count: int, daemon: bool = True, until: float = 1e9):
        for _ in range(count):
            started = threading.Event()
            threading.Thread(target=self.compute, args=(started, until), daemon=daemon).start()
            started.wait()
            time.sleep(random.uniform(0, 0.1))


class Late:
    """Calls the engine when the interpreter clears its modules. torch cannot make tensors any more by then."""

    def __init__(self):
        self.function, self.pixels = core.image_resize_columns, numpy.zeros((600, 300, 3), numpy.uint8)
        self.out = numpy.zeros((600, 150, 4), numpy.uint8)

    def __del__(self):
        self.function(self.pixels, "bicubic", self.out, threads=2)


def after_load(state):
    return 3


def results_alive(state):
    KEPT.append(state.forward())
    KEPT.append([KEPT[0].pooled.numpy(), KEPT[0].tokens[:, :4]])
    return 4


def a_capsule_nobody_takes(state):
    import torch.utils.dlpack

    KEPT.append(torch.utils.dlpack.to_dlpack(state.forward().tokens))
    return 5


def a_daemon_thread_computes(state):
    state.threads(1)
    return 6


def four_daemon_threads_compute(state):
    state.threads(4)
    return 7


def a_thread_ends_later(state):
    state.threads(1, daemon=False, until=0.05)
    return 8


def forked_while_a_thread_computes(state):
    state.threads(1)
    return ended(fork(lambda: 9 if state.forward() else 1))


def at_exit(state):
    import atexit

    atexit.register(state.forward)
    return 10


def at_the_end_of_the_interpreter(state):
    KEPT.append(Late())
    return 11


def in_a_cycle(state):
    late = Late()
    late.state, state.itself = state, late
    late.result = state.forward()
    return 12


def a_half_used_iterator(state):
    KEPT.append(state.encoder.embed_batches(state.images, looks=1, batch_size=1))
    next(KEPT[-1])
    KEPT.append(state.encoder.looks(state.images[0]))
    next(KEPT[-1])
    return 13


def after_an_interrupt(state):
    threading.Timer(0.02, signal.raise_signal, [signal.SIGINT]).start()
    try:
        while True:
            state.forward()
    except KeyboardInterrupt:
        return 14


def os_exit_while_threads_compute(state):
    state.threads(2)
    os._exit(15)


def exit_in_a_thread(state):
    """sys.exit in another thread ends that thread alone."""
    thread = threading.Thread(target=lambda: (state.forward(), sys.exit(1)))
    thread.start()
    thread.join()
    return 16


def terminated_while_threads_compute(state):
    state.threads(2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return 1


STATES = {
    after_load: 3,
    results_alive: 4,
    a_capsule_nobody_takes: 5,
    a_daemon_thread_computes: 6,
    four_daemon_threads_compute: 7,
    a_thread_ends_later: 8,
    forked_while_a_thread_computes: 9,
    at_exit: 10,
    at_the_end_of_the_interpreter: 11,
    in_a_cycle: 12,
    a_half_used_iterator: 13,
    after_an_interrupt: 14,
    os_exit_while_threads_compute: 15,
    exit_in_a_thread: 16,
    terminated_while_threads_compute: -signal.SIGTERM,
}


def exits(tally, folder, count):
    folder = Path(folder)
    prepare(2)
    write_checkpoint(folder / "model")
    state = State(folder)
    gc.freeze()  # the end of an interpreter would search what was imported for cycles, which takes a second
    for number in range(int(count)):
        for make, wanted in STATES.items():
            log = folder / f"log {make.__name__} {number}"
            child = os.fork()
            if child == 0:
                to_file(log)
                signal.alarm(SECONDS)
                sys.exit(make(state))  # through `main`: the interpreter ends as after any program
            code = ended(child)
            said = log.read_text()
            say = f"{make.__name__}: {'hung' if code == HUNG else f'ended with {code}'}"
            good = tally.check(code == wanted, f"{say}, expected {wanted}: {said[-500:]}")
            tally.check(not any(word in said for word in CRASH), f"{make.__name__}: said {said[-1000:]}")
            if not good:  # it would hang again
                return
    tally.facts["states"] = len(STATES)

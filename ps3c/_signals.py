"""Signals during a command: they raise an exception in the main thread, at once or after a write.

The library installs no handler. The command and the server of the web page do, while they run.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived. The exit code is the shell's: 128 + the signal's number."""


class _State:
    held = False  # a signal waits for the end of the block
    waiting: BaseException | None = None


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated in the main thread during the block, so that files are removed.

    SIGINT raises KeyboardInterrupt, as without the block, but it respects `held`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt the cleaning
        _raise(Terminated(128 + number))

    def interrupt(number: int, frame: Any) -> None:
        _raise(KeyboardInterrupt())

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup, or where the caller has a handler
                before[number] = signal.SIG_DFL
                signal.signal(number, end)
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            before[signal.SIGINT] = signal.default_int_handler
            signal.signal(signal.SIGINT, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(error: BaseException) -> None:
    if _State.held and _State.waiting is None:
        _State.waiting = error
    else:  # at once, also if it is the second one during a block of `held`
        raise error


@contextmanager
def held() -> Iterator[None]:
    """The first signal during the block is raised at its end. It is dropped if the block raises an exception."""
    before, _State.held = _State.held, True
    try:
        yield
    except BaseException:
        _State.held, _State.waiting = before, None
        raise
    _State.held = before
    _raise_waiting()


@contextmanager
def released() -> Iterator[None]:
    """In a block of `held`: signals during this inner block are raised at once."""
    before, _State.held = _State.held, False
    try:
        _raise_waiting()
        yield
    finally:
        _State.held = before


def _raise_waiting() -> None:
    error, held = _State.waiting, _State.held
    if error is not None and not held:
        _State.waiting = None
        raise error

"""Signals during a command: they raise an exception in the main thread, at once or after a write.

The library installs no handler. The command and the server of the web page do, while they run.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SECONDS = 0.05  # until a signal is sent again whose exception was dropped


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived. The exit code is the shell's: 128 + the signal's number."""


class _State:
    held = False  # a signal waits for the end of the block
    waiting: BaseException | None = None
    arrived: BaseException | None = None  # the last signal of this block of ending_on_signals


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated in the main thread during the block, so that files are removed.

    SIGINT raises KeyboardInterrupt, as without the block, but it respects `held`. Python drops an exception that is
    raised while a `__del__` or a weak reference's callback runs: the signal is then sent again. Another package may
    catch it and go on: not_lost raises it again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt the cleaning
        _raise(Terminated(128 + number))

    def interrupt(number: int, frame: Any) -> None:
        _raise(KeyboardInterrupt())

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGINT: interrupt}
    before: dict[int, Any] = {}
    show = sys.unraisablehook

    def send_again(dropped: Any) -> None:
        error = dropped.exc_value
        number = int(error.code) - 128 if isinstance(error, Terminated) else signal.SIGINT
        if not isinstance(error, (KeyboardInterrupt, Terminated)) or number not in before:
            show(dropped)
            return
        signal.signal(number, handlers[number])
        timer = threading.Timer(_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    try:
        sys.unraisablehook = send_again
        for number, handler in handlers.items():
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            if signal.getsignal(number) == default:  # not under nohup, or where the caller has a handler
                before[number] = default
                signal.signal(number, handler)
        yield
    finally:
        for number, default in before.items():
            signal.signal(number, default)
        sys.unraisablehook = show
        if before:
            _State.arrived = None


def raise_lost() -> None:
    """Raises the exception of a signal that arrived in this block of ending_on_signals, if there was one.

    For places that are reached only if no signal arrived, or if another package caught its exception and went on:
    torch, pydantic and others catch every exception in some places.
    """
    if _State.arrived is not None and not _State.held:
        raise _State.arrived


@contextmanager
def not_lost() -> Iterator[None]:
    """For long calls of other packages: raise_lost at the end of the block, also if the block raises an error.

    The block must not clean up after a signal: that would look like going on.
    """
    try:
        yield
    except Exception:
        raise_lost()
        raise
    raise_lost()


def _raise(error: BaseException) -> None:
    _State.arrived = error
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

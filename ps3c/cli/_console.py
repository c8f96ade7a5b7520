"""Output: messages to stderr, results to stdout or to a file."""

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from ._errors import CommandError

_COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


def has_colour(stream: TextIO) -> bool:
    """True on a terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb is set."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and stream is not None and stream.isatty()


def painted(text: str, colour: str, stream: TextIO) -> str:
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if has_colour(stream) else text


def open_streams() -> None:
    """Opens stdin, stdout and stderr on /dev/null where the caller closed them, as `>&-` does.

    Otherwise the next file that is opened would get the number of one of them, and messages would be written to it.
    sys.stdout stays None, so that a result that nobody receives is an error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def printable(text: str) -> str:
    """text with escapes for control characters and bytes that are not UTF-8, which could change a terminal's state."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def say(message: str) -> None:
    _write(printable(message))


def _write(message: str) -> None:
    try:
        # The end of line in the text, so that there is one write: a signal's message cannot stand between.
        print(f"{message}\n", end="", file=sys.stderr, flush=True)
    except OSError:  # nobody reads messages any more, for example `2>&1 | head`: that does not end the work
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def warn(message: str) -> None:
    _write(f"ps3c: {painted('warning:', 'yellow', sys.stderr)} {printable(message)}")


def fail(message: str, error: BaseException | None = None) -> None:
    """Prints an error message in one line, after the traceback of `error` if it is given."""
    if error is not None:
        _write("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n"))
    _write(f"ps3c: {painted('error:', 'red', sys.stderr)} {printable(message)}")


@contextmanager
def short_warnings() -> Iterator[None]:
    """Prints each of Python's warnings in one line, without file name and source line."""

    def show(message, category, filename, lineno, file=None, line=None):
        warn(" ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# ---- results --------------------------------------------------------------------------------------------------------


def result(text: str = "") -> None:
    """Prints a line of a result. CommandError: stdout is closed."""
    if sys.stdout is None:
        raise CommandError("stdout is closed, so the result cannot be printed")
    print(text, file=sys.stdout)


def result_json(value: Any, indent: int | None = 2) -> None:
    """Prints value as JSON. JSON has no NaN and no infinities: they are printed as null."""
    result(json.dumps(_finite(value), indent=indent, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


def result_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table. A column is as wide as its longest entry; columns with numbers are aligned right."""
    cells = [[_shown(value) for value in row] for row in rows]
    rights = [any(_is_number(cell) for cell in column) for column in zip(*cells)] or [False] * len(columns)
    widths = [max(map(len, column)) for column in zip(columns, *cells)]

    def line(values: Sequence[str]) -> str:
        pairs = zip(values, widths, rights)
        return "  ".join(value.rjust(width) if right else value.ljust(width) for value, width, right in pairs).rstrip()

    result(painted(line(columns), "bold", sys.stdout))
    for row in cells:
        result(line(row))


def result_fields(fields: dict[str, Any]) -> None:
    """Prints one line `name  value` per field. Fields whose value is None are left out."""
    shown = {name: _shown(value) for name, value in fields.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        result(f"{painted(name.ljust(width), 'bold', sys.stdout)}  {value}".rstrip())


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else printable(str(value))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True


# ---- progress -------------------------------------------------------------------------------------------------------


class ProgressLine:
    """Shows the number of finished and failed items and the rate.

    On a terminal it is one line, which is rewritten. Elsewhere a new line is printed every minute.
    """

    EVERY = 60.0  # seconds between two lines where stderr is not a terminal

    def __init__(self, total: int, unit: str, done: int = 0):
        self.total, self.unit, self.done, self.failed = total, unit, done, 0
        self._first, self._begin, self._part = done, time.monotonic(), 0.0
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0 if self._terminal else self._begin

    def add(self, done: int, failed: int = 0) -> None:
        self.done += done
        self.failed += failed
        self._show()

    def show_part(self, done: int, total: int | None) -> None:
        """Sets the finished share of this run's work. `done` and `total` count smaller units than `add`: looks."""
        self._part = done / total if total else 0.0
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self._terminal and (now - self._shown > 0.1 or self.done == self.total):
            self._shown = now
            sys.stderr.write(f"\r\033[K{self}")
            sys.stderr.flush()
        elif not self._terminal and now - self._shown > self.EVERY:
            self._shown = now
            say(str(self))

    @property
    def rate(self) -> float:
        """Items per second. Only items that this run finished are counted."""
        return (self.done - self._first) / max(time.monotonic() - self._begin, 1e-9)

    def __str__(self) -> str:
        words: list[str] = [f"{self.done}/{self.total} {self.unit}s", f"{self.rate:.3g} {self.unit}s/s"]
        if self.failed:
            words.append(f"{self.failed} failed")
        if 0 < self._part < 1:
            spent = time.monotonic() - self._begin
            words.append(f"{100 * self._part:.0f} %, {_clock(spent / self._part - spent)} left")
        return ", ".join(words)

    def close(self) -> None:
        """Removes the line, so that another message can be printed."""
        if self._terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

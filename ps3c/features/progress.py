"""Reports the progress of long calls, with a progress bar on a terminal or by calling the caller's function."""

import sys
from collections.abc import Callable
from typing import Any

Progress = bool | Callable[[int, int | None], object] | None

QUICK = 2.0  # seconds; shorter calls show no bar


class Reporter:
    """Counts the steps of a call's items. As a context manager it closes the bar, also after an exception.

    Args:
        progress: None shows a bar if stderr is a terminal. True and False always or never show a bar. A function is
            called as function(done, total) after each step; both count steps.
        items: number of items, None if unknown.
        unit: name of a step, unless expect() sets another.
    """

    def __init__(self, progress: Progress, items: int | None, unit: str):
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress: got {progress!r}, expected None, True, False or a function (done, total)")
        self._function = progress if callable(progress) else None
        self._has_bar = progress is True or (progress is None and sys.stderr is not None and sys.stderr.isatty())
        self._delay = QUICK if progress is None else 0.0
        self._items, self._unit = items, unit
        self._bar: Any = None
        self._steps: int | None = None  # steps per item
        self._skipped = 0
        self.done = 0
        self.total: int | None = None

    def expect(self, steps: int, unit: str | None = None) -> None:
        """Sets the number of steps per item. Only the first call has an effect."""
        if self._steps is not None:
            return
        self._steps = steps
        self.total = None if self._items is None else self._items * steps
        if self._has_bar:
            from tqdm import tqdm  # transformers depends on tqdm

            self._bar = tqdm(total=self.total, unit=unit or self._unit, dynamic_ncols=True, delay=self._delay)
        if self._skipped:
            self.step(self._skipped * steps)

    def step(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        if self._function is not None:
            self._function(self.done, self.total)

    def skip(self) -> None:
        """Counts a skipped item as finished. If the steps per item are not known yet, it is counted by expect()."""
        if self._steps is None:
            self._skipped += 1
        else:
            self.step(self._steps)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

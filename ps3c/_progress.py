"""Progress of long calls: a bar on a terminal, or a function of the caller's."""

import sys
from typing import Callable, Optional, Union

Progress = Union[bool, Callable[[int, Optional[int]], object], None]


class Reporter:
    """Counts what is done. A context manager: a bar is closed at the end, whatever happened.

    Args:
        progress: None: a bar where stderr is a terminal; True, False: a bar, or none; or a function (done, total),
            called after each step.
        total: steps in all, None where nobody knows yet. unit: what a step is, such as "look".
    """

    def __init__(self, progress: Progress, total: Optional[int], unit: str):
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress: got {progress!r}, expected None, True, False or a function (done, total)")
        self.done, self.total = 0, total
        self._function = progress if callable(progress) else None
        self._bar = None
        if progress is True or (progress is None and sys.stderr is not None and sys.stderr.isatty()):
            from tqdm import tqdm  # comes with transformers

            # A call that is over in a moment shows nothing, unless a bar was asked for.
            self._bar = tqdm(total=total, unit=unit, dynamic_ncols=True, delay=0 if progress else 2)

    def set_total(self, total: Optional[int]) -> None:
        self.total = total
        if self._bar is not None and self._bar.total != total:
            self._bar.total = total
            self._bar.refresh()

    def step(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        if self._function is not None:
            self._function(self.done, self.total)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

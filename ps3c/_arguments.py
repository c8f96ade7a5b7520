"""Checks of plain arguments, shared by configurations and calls."""

import operator
from typing import Any

Looks = int | str | None  # a number, "all", or None


def index(name: str, value: Any, expected: str) -> int:
    """value as an int: Python's, NumPy's or a one-element integer tensor's, but not a bool. TypeError otherwise."""
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
    try:
        if not is_bool:
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name}: got {value!r}, a {type(value).__name__}, expected {expected}")


def positive(name: str, value: Any, least: int = 1) -> int:
    """value as an int of at least `least`."""
    number = index(name, value, f"an integer of at least {least}")
    if number < least:
        raise ValueError(f"{name}: got {number}, expected {least} or more")
    return number


def looks(name: str, value: Any) -> Looks:
    """num_look_close, num_token_look_close: None, "all", or a number from 0 on."""
    if value is None:
        return None
    if isinstance(value, str):
        if value != "all":
            raise ValueError(f"{name}: got {value!r}, expected a number, 'all' or None")
        return value
    number = index(name, value, "an integer, 'all' or None")
    if number < 0:
        raise ValueError(f"{name}: got {number}, expected 0 or more, 'all' or None")
    return number

"""Checks of plain arguments, shared by configurations and calls."""

import operator
from collections.abc import Sequence
from typing import Any

_MOST_BITS = 4096  # of an integer that a message can print
_NO_VALUE = (TypeError, ValueError, RuntimeError, NotImplementedError)  # of tensors that cannot become a number

Looks = int | str | None  # a number, "all", or None
Colour = str | Sequence[int]  # a name or code that PIL.ImageColor knows, or (r, g, b)


def index(name: str, value: Any, expected: str) -> int:
    """value as an int: Python's, NumPy's or a one-element integer tensor's, but not a bool. TypeError otherwise."""
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
    try:
        if not is_bool:
            number = operator.index(value)
            if number.bit_length() > _MOST_BITS:
                raise OverflowError
            return number
    except OverflowError:
        raise ValueError(f"{name}: got {shown(value)}, expected an integer of 64 bits") from None
    except _NO_VALUE:
        pass
    raise TypeError(f"{name}: got {shown(value)}, a {type(value).__name__}, expected {expected}")


def flag(name: str, value: Any) -> bool:
    """value's truth. TypeError: it has none, such as a tensor of two elements."""
    if isinstance(value, bool):
        return value
    try:
        return bool(value)
    except _NO_VALUE:
        pass
    raise TypeError(f"{name}: got {shown(value)}, a {type(value).__name__}, expected True or False")


def shown(value: Any) -> str:
    """value for a message: one line of at most 100 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # such as an int with more digits than Python prints
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 100 else text[:97] + "..."


def positive(name: str, value: Any, least: int = 1) -> int:
    """value as an int of at least `least`."""
    number = index(name, value, f"an integer of at least {least}")
    if number < least:
        raise ValueError(f"{name}: got {shown(number)}, expected {least} or more")
    return number


def looks(name: str, value: Any) -> Looks:
    """num_look_close, num_token_look_close: None, "all", or a number from 0 on."""
    if value is None:
        return None
    if isinstance(value, str):
        if value != "all":
            raise ValueError(f"{name}: got {shown(value)}, expected a number, 'all' or None")
        return value
    number = index(name, value, "an integer, 'all' or None")
    if number < 0:
        raise ValueError(f"{name}: got {shown(number)}, expected 0 or more, 'all' or None")
    return number


def background(value: Any) -> tuple[int, int, int]:
    """The colour behind transparent pixels as (r, g, b), each 0 to 255."""
    numbers: tuple[int, ...] = ()
    kind: type[Exception] = ValueError
    if isinstance(value, str):
        from PIL import ImageColor  # the command starts without Pillow

        try:
            numbers = ImageColor.getrgb(value)
        except ValueError:
            pass
        if len(numbers) == 4 and numbers[3] == 255:
            numbers = numbers[:3]
    elif isinstance(value, (tuple, list)):
        try:
            numbers = tuple(index("background", one, "integers") for one in value)
        except (TypeError, ValueError) as error:
            kind = type(error)
    else:
        kind = TypeError
    if len(numbers) != 3 or not all(0 <= one <= 255 for one in numbers):
        raise kind(
            f"background: got {shown(value)}, expected an opaque colour such as 'white', '#rrggbb' or (r, g, b) of 0 "
            "to 255"
        )
    red, green, blue = numbers
    return red, green, blue

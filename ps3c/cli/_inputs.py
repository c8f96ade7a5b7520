"""Turns image arguments into file names and text arguments into texts."""

import os
import sys
from collections.abc import Iterable, Iterator

from ._errors import CommandError, UsageError


def image_files(arguments: Iterable[str]) -> list[str]:
    """The file names that the arguments stand for.

    A file stands for itself. A folder stands for all files in it that have a suffix of an image format, at any depth,
    sorted; also of formats that need a plugin, such as HEIC, so that they are named and not passed over silently. "-"
    stands for the names listed on stdin. Duplicates are removed. Files are not opened here, so a missing file is not
    noticed.

    Raises:
        CommandError: a folder has no images. UsageError: there are no names.
    """
    from ..images import SUFFIXES  # here, because it imports NumPy, for which --help need not wait

    names: list[str] = []
    for argument in arguments:
        if argument == "-":
            names += _listed()
        elif os.path.isdir(argument):
            found = list(_inside(argument))
            if not found:
                raise CommandError(f"{argument}: has no images (files that end in {', '.join(SUFFIXES)})")
            names += found
        else:
            names.append(argument)
    if not names:
        raise UsageError("IMAGES: got no names, expected files, folders, or - with a list of names on stdin")
    return list(dict.fromkeys(names))


def _listed() -> Iterator[str]:
    """Names from stdin: one per line, or separated by NUL, as `find -print0` writes them."""
    if sys.stdin is None:
        raise UsageError("IMAGES: got -, but stdin is closed")
    text = os.fsdecode(sys.stdin.buffer.read()) if hasattr(sys.stdin, "buffer") else sys.stdin.read()
    for name in text.split("\0") if "\0" in text else text.splitlines():
        if name.strip():
            yield name


def _inside(folder: str) -> Iterator[str]:
    from ..images import FOREIGN_SUFFIXES, SUFFIXES

    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith((*SUFFIXES, *FOREIGN_SUFFIXES)) and not name.startswith("."):
                yield os.path.join(where, name)


def lines(arguments: Iterable[str], what: str) -> list[str]:
    """The texts. "-" stands for the lines of stdin that are not empty. UsageError: no text, or one is not UTF-8."""
    texts: list[str] = []
    for argument in arguments:
        texts += _lines_of_stdin(what) if argument == "-" else [argument]
    if not texts:
        raise UsageError(f"{what}: got no text, expected one or more")
    if not all(map(has_plain_name, texts)):
        raise UsageError(f"{what}: got bytes that are not UTF-8, expected text")
    return texts


def _lines_of_stdin(what: str) -> list[str]:
    if sys.stdin is None:
        raise UsageError(f"{what}: got -, but stdin is closed")
    try:
        text = sys.stdin.buffer.read().decode() if hasattr(sys.stdin, "buffer") else sys.stdin.read()
    except UnicodeDecodeError:
        raise UsageError(f"{what}: got bytes on stdin that are not UTF-8, expected text") from None
    return [line for line in text.splitlines() if line.strip()]


def has_plain_name(name: str) -> bool:
    """True if the name can be written as UTF-8. Linux allows file names of arbitrary bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()

"""Image arguments to names of files; texts from arguments and files."""

import os
import sys
from collections.abc import Iterable, Iterator

from ._errors import CommandError, UsageError

# Formats that Pillow opens everywhere and that hold photographs or scans.
SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_files(arguments: Iterable[str]) -> list[str]:
    """Files as named; of folders all with a known suffix, at any depth, sorted; of "-" those listed on stdin.

    A file that is named twice comes once. Whether files exist and are images is seen when they are opened.

    Raises:
        CommandError: a folder without images, or nothing named at all.
    """
    names: list[str] = []
    for argument in arguments:
        if argument == "-":
            names += _listed()
        elif os.path.isdir(argument):
            found = list(_inside(argument))
            if not found:
                raise CommandError(f"{argument}: no images in this folder (looked for {', '.join(SUFFIXES)})")
            names += found
        else:
            names.append(argument)
    if not names:
        raise UsageError("IMAGES: got none, expected files, folders, or - with a list on stdin")
    return list(dict.fromkeys(names))


def _listed() -> Iterator[str]:
    """One name a line, or separated by NUL as find -print0 does."""
    if sys.stdin is None:
        raise UsageError("-: there is no stdin to read names from")
    text = os.fsdecode(sys.stdin.buffer.read()) if hasattr(sys.stdin, "buffer") else sys.stdin.read()
    for name in text.split("\0") if "\0" in text else text.splitlines():
        if name.strip():
            yield name


def _inside(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(where, name)


def lines(arguments: Iterable[str], what: str) -> list[str]:
    """Texts as given; "-" stands for the lines of stdin."""
    texts: list[str] = []
    for argument in arguments:
        texts += [line for line in sys.stdin.read().splitlines() if line.strip()] if argument == "-" else [argument]
    if not texts:
        raise UsageError(f"{what}: got none")
    return texts


def has_plain_name(name: str) -> bool:
    """Can the name be written as UTF-8? Linux allows names of any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()

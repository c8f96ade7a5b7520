"""Sphinx extension: converts the plain-text docstrings of ps3c to reStructuredText for autodoc.

`word`, "word", words_with_underscores and indented paragraphs become code. "Args:", "Returns:" and similar headers
start sections. Lines of the form `name: words` become lists, inside and outside of sections.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

SECTIONS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Raises": "Raises",
    "Yields": "Yields",
}
NAMES = r"[A-Za-z_][\w.]*(?:, [A-Za-z_][\w.]*)*"
ITEM = re.compile(rf"(\.\.\.|{NAMES}): (.*)", re.S)
CODE = re.compile(
    r"`([^`]+)`"
    r"|(\"[^\"\n]{1,40}\"|\bps3c(?:\.\w+)+(?:\(\w*\))?|\b\w*[^\W_]_\w+(?:\.\w+)*(?:=\w+)?|\*\*\w+)"
)
HEADER = re.compile(rf"({'|'.join(SECTIONS)}):(?: (.*))?")


def to_rst(text: str) -> list[str]:
    """Converts a docstring without common indentation to lines of reStructuredText."""
    lines: list[str] = []
    for section, body in _sections(text.splitlines()):
        if section is not None:
            lines += [f"**{SECTIONS[section]}**", ""]
        for paragraph in _paragraphs(body):
            lines += [*_paragraph(paragraph, section), ""]
    return lines


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Yields (name, lines without the indentation of the section). The name is None outside of sections."""
    name: str | None = None
    body: list[str] = []
    for line in lines:
        header = HEADER.fullmatch(line)
        if header or (name is not None and line and not line.startswith(" ")):  # the section is over
            yield name, body if name is None else textwrap.dedent("\n".join(body)).splitlines()
            name, body = (header[1], [header[2]] if header[2] else []) if header else (None, [line])
        else:
            body.append(line)
    yield name, body if name is None else textwrap.dedent("\n".join(body)).splitlines()


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Yields groups of lines that are separated by blank lines."""
    run: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def _paragraph(lines: list[str], section: str | None) -> list[str]:
    if all(line.startswith("    ") for line in lines):
        return [".. code-block:: python", "", *lines]
    items = _items(lines)
    listed = section in ("Args", "Attributes", "Raises") or (len(items) > 1 and all(name for name, _ in items))
    if not listed or not any(name for name, _ in items):
        return [_inline(" ".join(line.strip() for line in lines))]
    rst: list[str] = []
    for name, words in items:
        if name is None:
            rst += ["", _inline(words), ""]
        else:
            heads = ", ".join(f"``{one}``" for one in name.split(", "))
            rst.append(f"* {heads}: {_inline(words)}")
    return rst


def _items(lines: list[str]) -> list[tuple[str | None, str]]:
    """Splits `name: words` into (names, words). Words may continue on deeper lines; a line may hold several items."""
    runs: list[str] = []
    for line in lines:
        if line.startswith(" ") and runs:
            runs[-1] += " " + line.strip()
        else:
            runs.append(line.strip())
    items: list[tuple[str | None, str]] = []
    for run in runs:
        for part in re.split(rf"(?<=[.)]) (?!None: |True: |False: )(?=(?:{NAMES}): )", run):
            match = ITEM.fullmatch(part)
            items.append((match[1], match[2]) if match else (None, part))
    return items


def _inline(text: str) -> str:
    """Escapes text for reStructuredText and marks code in it."""
    pieces, end = [], 0
    for match in CODE.finditer(text):
        # Code needs a space or certain marks around it, or an escaped space, which is not shown.
        before = "" if re.search(r"(?:^|[\s'\"(\[{<\-/:])$", text[: match.start()]) else "\\ "
        after = "" if re.match(r"$|[\s'\")\]}>\-/:.,;!?]", text[match.end() :]) else "\\ "
        pieces += [_escaped(text[end : match.start()]), f"{before}``{match[1] or match[2]}``{after}"]
        end = match.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*|_`])", r"\\\1", text)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(inspect.cleandoc("\n".join(lines)))


def setup(app: Any) -> dict:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""ps3c's docstrings are plain text, not reStructuredText: this turns them into it for autodoc.

`word`, "word" and words_with_underscores are code, and so are indented paragraphs. "Args:", "Returns:" and their like
begin sections; lines of `name: words`, in them or elsewhere, are lists.
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
    """Lines of reStructuredText for a docstring whose indentation is already its own."""
    lines: list[str] = []
    for section, body in _sections(text.splitlines()):
        if section is not None:
            lines += [f"**{SECTIONS[section]}**", ""]
        for paragraph in _paragraphs(body):
            lines += [*_paragraph(paragraph, section), ""]
    return lines


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    """(name, lines without the section's indentation); None for what stands outside of sections."""
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
    """Runs of lines without a blank one."""
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
    """(names, words) of `name: words`, which may go on in deeper lines; a line may hold several, as sentences."""
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
    """Words without a meaning of their own in reStructuredText, but for code."""
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

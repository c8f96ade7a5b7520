"""Sphinx extension: replaces `<!-- ps3c: ... -->` in a page with Markdown that is generated at build time.

The sources are the command line parser and the C header.
"""

from pathlib import Path
from typing import Any

import cli_markdown
import header_markdown

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "csrc" / "ps3c.h"


def _command_line() -> str:
    from ps3c.cli import build_parser

    return cli_markdown.document(build_parser())


def _header() -> str:
    return header_markdown.document(HEADER.read_text(encoding="utf-8"))


MARKS = {
    "<!-- ps3c: command line -->": (_command_line, lambda: sorted((ROOT / "ps3c" / "cli").glob("*.py"))),
    "<!-- ps3c: header -->": (_header, lambda: [HEADER]),
}


def _fill(app: Any, name: str, content: list[str]) -> None:
    for mark, (make, sources) in MARKS.items():
        if mark in content[0]:
            content[0] = content[0].replace(mark, make())
            for source in [*sources(), *Path(__file__).parent.glob("*.py")]:
                app.env.note_dependency(str(source), docname=name)


def setup(app: Any) -> dict:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

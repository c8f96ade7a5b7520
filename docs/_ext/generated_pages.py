"""Sphinx extension: replaces `<!-- ps3c: ... -->` in a page with Markdown that is generated at build time.

The sources are the command line parser and the C headers.
"""

from pathlib import Path
from typing import Any

import cli_markdown
import header_markdown

ROOT = Path(__file__).resolve().parents[2]
HEADER, MODEL_HEADER = ROOT / "csrc" / "ps3c.h", ROOT / "csrc" / "ps3c_model.h"


def _command_line() -> str:
    from ps3c.cli import build_parser

    return cli_markdown.document(build_parser())


def _header(path: Path) -> str:
    return header_markdown.document(path.read_text(encoding="utf-8"))


MARKS = {
    "<!-- ps3c: command line -->": (_command_line, lambda: sorted((ROOT / "ps3c" / "cli").glob("*.py"))),
    "<!-- ps3c: header -->": (lambda: _header(HEADER), lambda: [HEADER]),
    "<!-- ps3c: model header -->": (lambda: _header(MODEL_HEADER), lambda: [MODEL_HEADER]),
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

"""Converts a C header to Markdown: comments become text, and each declaration becomes a link target.

The header must follow these rules: a comment precedes the declaration that it describes; `/* ---- title ---- */`
starts a section; typedefs of structs and enums end with `} name;` at the start of a line; indented lines of a comment
are code.
"""

import re
import textwrap

TOKEN = re.compile(
    r"/\* -{4,} (?P<section>.*?) -+ \*/"
    r"|(?P<comment>/\*.*?\*/)"
    r"|(?P<macro>^#define \w+ [^\n]*?(?= /\*|$))"
    r"|^#[^\n]*$|^extern \"C\" \{$"
    r"|(?P<type>^typedef [^;{]*(?:\{(?:[^\n]*|.*?^)\} \w+)?;)"
    r"|(?P<function>^[a-z][^;{}]*\([^;]*\);)",
    re.S | re.M,
)
CODE = re.compile(r"`([^`]+)`|(\"\w*\")|((?:\w+_\w*|\w*_\w+)(?:\.\w+)*)")


def document(header: str) -> str:
    """Returns Markdown with level-2 sections. The first comment becomes the text before the first section."""
    kinds = _names(header)
    lines: list[str] = []
    comment: str | None = None
    macros: list[str] = []
    opening = True
    for kind, text in _tokens(header):
        if macros and kind not in ("macro", "comment"):
            lines += _fenced(macros)
            macros = []
        if kind == "section":
            lines += _prose(comment, kinds) + [f"## {text[0].upper()}{text[1:]}", ""]
            comment = None
        elif kind == "comment" and macros:  # after a macro, on the same line
            macros[-1] += f" {text}"
        elif kind == "comment":
            lines += _prose(comment, kinds)
            comment = text
            if opening:
                lines += [*_prose(comment, kinds), "## Basics", ""]
                comment, opening = None, False
        elif kind == "macro":
            lines += _prose(comment, kinds)
            comment = None
            macros.append(text)
        elif kind in ("function", "type"):
            lines += _declaration(kind, text, comment, kinds)
            comment = None
    return "\n".join(lines + _prose(comment, kinds))


def _tokens(header: str) -> list[tuple[str, str]]:
    matches = TOKEN.finditer(header)
    return [(match.lastgroup, match[match.lastgroup].strip()) for match in matches if match.lastgroup]


def _names(header: str) -> dict[str, str]:
    """Returns {name of a function or type: its Sphinx role}."""
    kinds = {}
    for kind, text in _tokens(header):
        if kind in ("function", "type"):
            kinds[_name(kind, text)] = {"function": "c:func", "type": "c:type"}[kind]
    return kinds


def _name(kind: str, text: str) -> str:
    match = re.search(r"(\w+)\s*\(", text) if kind == "function" else re.search(r"(\w+);$", text)
    assert match, text
    return match[1]


def _declaration(kind: str, text: str, comment: str | None, kinds: dict[str, str]) -> list[str]:
    if kind == "function":
        signature = " ".join(text.rstrip(";").split())
        body = []
    else:
        signature = _name(kind, text)
        body = ["```c", text, "```"] if "{" in text else ["Opaque."]
    directive = "c:function" if kind == "function" else "c:type"
    return [f"`````{{{directive}}} {signature}", *_prose(comment, kinds), *body, "`````", ""]


def _prose(comment: str | None, kinds: dict[str, str]) -> list[str]:
    """Converts the text of a comment to Markdown. Indented lines become code."""
    if comment is None:
        return []
    inside = comment[2:-2].strip()
    text = "\n".join(re.sub(r"^ \* ?", "", line) for line in inside.split("\n")).strip()
    lines: list[str] = []
    code: list[str] = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            code += [*([""] if code else []), *textwrap.dedent(paragraph).splitlines()]
            continue
        lines += [*_fenced(code), _linked(paragraph, kinds), ""]
        code = []
    return lines + _fenced(code)


def _fenced(code: list[str]) -> list[str]:
    return ["```c", *code, "```", ""] if code else []


def _linked(text: str, kinds: dict[str, str]) -> str:
    """Marks names as code, links those that the header declares, and escapes the rest for Markdown."""

    def name(match: re.Match) -> str:
        plain = match[1] or match[2] or match[3]
        return f"{{{kinds[plain]}}}`{plain}`" if plain in kinds else f"`{plain}`"

    pieces, end = [], 0
    for match in CODE.finditer(text):
        pieces += [_escaped(text[end : match.start()]), name(match)]
        end = match.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([*<\[])", r"\\\1", text)

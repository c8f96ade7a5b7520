"""Converts an argparse parser to Markdown, with one section for each subcommand."""

import argparse
import re
from collections.abc import Iterator

CODE = re.compile(
    r"`([^`]+)`"
    r"|'(all|ps3c\[\w+\])'"
    r"|(?<![\w-])(--[a-z][\w-]*|-[a-z](?![\w-])|(?:OUT)?\.[a-z]+(?:\.[a-z]+)?(?=[\s,.:;)]|$)|NO_COLOR|[A-Z]\w*_\w+)"
)


def document(parser: argparse.ArgumentParser) -> str:
    """Returns Markdown with a level-2 section for each subcommand: description, usage and arguments."""
    lines: list[str] = []
    for action in parser._subparsers._group_actions:
        for name, sub in action.choices.items():
            lines += [f"## {parser.prog} {name}", "", *_description(sub.description or ""), "", *_usage(sub)]
            for group in sub._action_groups:
                lines += _group(group)
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
    usage = re.sub(r"^usage: ", "", parser.format_usage()).rstrip()
    return ["```text", usage, "```", ""]


def _description(text: str) -> Iterator[str]:
    """Yields paragraphs unchanged, and indented paragraphs as blocks of shell commands."""
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("  "):
            yield from ("```sh", *(line.strip() for line in paragraph.splitlines()), "```", "")
        else:
            yield from (_escaped(paragraph), "")


def _group(group: argparse._ArgumentGroup) -> list[str]:
    actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
    if not actions:
        return []
    title = {"positional arguments": "Arguments"}.get(group.title, (group.title or "").capitalize())
    lines = [f"**{title}**", ""] if title else []
    for action in actions:
        lines += [f"{_names(action)}", f": {_help(action)}", ""]
    return lines


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        value = f" {action.metavar or choices}"
    return ", ".join(f"`{name}{value}`" for name in action.option_strings)


def _help(action: argparse.Action) -> str:
    words = _escaped((action.help or "").replace("%%", "%"))
    if action.required and action.option_strings:
        return f"{words}; always needed" if words else "always needed"
    return words or "see above"


def _escaped(text: str) -> str:
    """Marks `code`, options, quoted values and file endings as code, and escapes the rest for Markdown."""
    pieces, end = [], 0
    for match in CODE.finditer(text):
        pieces += [_plain(text[end : match.start()]), f"`{match[1] or match[2] or match[3]}`"]
        end = match.end()
    return "".join([*pieces, _plain(text[end:])])


def _plain(text: str) -> str:
    return re.sub(r"([*_<\[\\])", r"\\\1", text)

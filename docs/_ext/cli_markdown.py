"""An argparse parser to Markdown: a section a subcommand."""

import argparse
import re
from typing import Iterator, List


def document(parser: argparse.ArgumentParser) -> str:
    """Sections of level 2 for all subcommands of a parser, each with usage, description and arguments."""
    lines: List[str] = []
    for action in parser._subparsers._group_actions:
        for name, sub in action.choices.items():
            lines += [f"## {parser.prog} {name}", "", *_description(sub.description or ""), "", *_usage(sub)]
            for group in sub._action_groups:
                lines += _group(group)
    return "\n".join(lines)


def _usage(parser: argparse.ArgumentParser) -> List[str]:
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
    usage = re.sub(r"^usage: ", "", parser.format_usage()).rstrip()
    return ["```text", usage, "```", ""]


def _description(text: str) -> Iterator[str]:
    """Paragraphs as they are, indented lines as commands."""
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("  "):
            yield from ("```sh", *(line.strip() for line in paragraph.splitlines()), "```", "")
        else:
            yield from (_escaped(paragraph), "")


def _group(group: argparse._ArgumentGroup) -> List[str]:
    actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS]
    if not actions:
        return []
    lines = [f"**{group.title.capitalize()}**" if group.title else "", ""]
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
    words = _escaped((action.help or "(no description)").replace("%%", "%"))
    return words + (" Required." if action.required and action.option_strings else "")


def _escaped(text: str) -> str:
    """Text with its `code`, options and endings of files as code; nothing else in it is Markdown."""
    pieces = re.split(r"(`[^`]+`)", text)
    pieces[::2] = [
        re.sub(r"(?<![\w-])(--[a-z][\w-]*|-[a-z](?![\w-])|(?:OUT)?\.[a-z]+(?:\.[a-z]+)?(?=[\s,.)]|$))", r"`\1`",
               re.sub(r"([*_<\[])", r"\\\1", piece))
        for piece in pieces[::2]
    ]  # fmt: skip
    return "".join(pieces)

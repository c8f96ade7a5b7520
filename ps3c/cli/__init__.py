"""The `ps3c` command. Each subcommand is one file with HELP, add_arguments(parser) and run(arguments) -> exit code.

The docstring of the file is the first part of the subcommand's --help. Nothing here imports torch, NumPy or
transformers before a subcommand runs, so that --help is quick.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import _signals
from . import _console, _errors
from ._options import add_verbose

SUBCOMMANDS = ("models", "info", "embed", "text", "search", "look", "bench", "check", "doctor", "demo")


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args, **kwargs):
        # Abbreviated options are refused: a new option could make an abbreviation ambiguous and break a script.
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        _console.fail(f"{message} ({self.prog} --help lists the arguments)")
        raise SystemExit(_errors.USAGE)


class _Version(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        from .. import __version__

        print(f"ps3c {__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands, for main and for the documentation."""
    parser = _Parser(
        prog="ps3c",
        description="PS3 vision encoder: encodes the whole image at low resolution, then selected patches at high "
        "resolution.",
        epilog=f"{_errors.EXIT_CODES}\n`ps3c COMMAND --help` lists the arguments of a command. Results are written to "
        "stdout or to a file, messages to stderr. NO_COLOR=1 disables colours.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(verbose=False)
    add_verbose(parser)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in SUBCOMMANDS:
        module = importlib.import_module(f".{name}", __name__)
        sub = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        add_verbose(sub)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command `argv` (sys.argv[1:] when None). Returns its exit code; raises nothing."""
    arguments = None
    try:
        with _signals.ending_on_signals():
            _console.open_streams()
            try:
                arguments = build_parser().parse_args(argv)
            except SystemExit as end:  # argparse raises it after --help, --version or a usage error
                if isinstance(end, _signals.Terminated):
                    raise
                return end.code if isinstance(end.code, int) else _errors.USAGE
            with _console.short_warnings():
                code = arguments.run(arguments)
                if sys.stdout is not None:
                    sys.stdout.flush()
            return code
    except BrokenPipeError:  # the process that reads stdout has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout again at exit
        return _errors.OK  # it has read what it wanted
    except _signals.Terminated as end:
        _drop_unwritten_output()
        _console.say("ps3c: terminated")
        return end.code
    except (Exception, KeyboardInterrupt) as error:
        _drop_unwritten_output()
        verbose = arguments is not None and arguments.verbose
        if isinstance(error, KeyboardInterrupt) and not verbose:
            _console.say("ps3c: interrupted")
            return _errors.INTERRUPTED
        _console.fail(_errors.one_line(error), error if verbose else None)
        return _errors.exit_code(error)


def _drop_unwritten_output() -> None:
    # If the disk is full, stdout still holds unwritten data, and Python would report the error again at exit.
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

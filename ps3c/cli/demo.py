"""Serve a web page on this machine: drop an image, type a prompt, see where the model looks.

The page listens on 127.0.0.1 alone. Ctrl-C ends it. Needs gradio: pip install 'ps3c[demo]'."""

import importlib.util
import socket

from .. import _extras
from . import _errors, _model, _options

HELP = "a web page on this machine"


def add_arguments(parser) -> None:
    _options.add_model(parser)
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any that is free")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    _options.add_max_pixels(parser)


def run(arguments) -> int:
    # Both before the seconds that a model takes to load. gradio itself is imported by the page, which sets it up first.
    _check_port(arguments.port)
    if importlib.util.find_spec("gradio") is None:
        _extras.require("gradio", "demo", "ps3c demo")
    from ..page import serve

    serve(_model.load(arguments), arguments.port, arguments.open, max_pixels=arguments.max_pixels)
    return _errors.OK


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise _errors.UsageError(f"--port: got {port}, expected 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise _errors.CommandError(f"port {port} cannot be used: {error.strerror}; --port names another") from error

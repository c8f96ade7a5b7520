"""Serve a web page on this machine: drop an image, type a prompt, see where the model looks.

The page listens on 127.0.0.1 alone. Ctrl-C ends it. Needs gradio: pip install 'ps3c[demo]'."""

import socket

from . import _errors, _model, _options

HELP = "a web page on this machine"


def add_arguments(parser) -> None:
    _options.add_model(parser)
    parser.add_argument("--port", type=_options.positive, default=7860, metavar="N", help="default: 7860")
    parser.add_argument("--open", action="store_true", help="open it in the browser")


def run(arguments) -> int:
    _check_port(arguments.port)  # before the seconds that a model takes to load
    from ..page import serve

    serve(_model.load(arguments), port=arguments.port, open_browser=arguments.open)
    return _errors.OK


def _check_port(port: int) -> None:
    if port > 65535:
        raise _errors.UsageError(f"--port: got {port}, expected 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise _errors.CommandError(f"port {port} cannot be used: {error.strerror}; --port names another") from error

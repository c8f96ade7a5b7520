"""Serve a web page on this machine: it shows where the model looks in an image, for a prompt.

The server listens only on 127.0.0.1. Ctrl-C stops it. Requests from other web pages are refused, and so are requests
for another host name than 127.0.0.1 and localhost: --allow-host names a proxy in front of the server.
Needs gradio: type pip install '.[demo]' in ps3c's source folder."""

import importlib.util
import socket
from typing import Any

from .. import _extras
from . import _errors, _model, _options

HELP = "serve a web page on this machine"


def add_arguments(parser) -> None:
    _options.add_model(parser)
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="port (default: 7860); 0: any free port")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="also answer requests for this host name; may be given more than once",
    )
    _options.add_max_pixels(parser)
    _options.add_background(parser)


def run(arguments) -> int:
    # Both checks run before the model is loaded, which takes seconds. gradio is only looked up: ps3c.page imports it
    # after setting its environment variables.
    _check_port(arguments.port)
    if importlib.util.find_spec("gradio") is None:
        _extras.require("gradio", "demo", "ps3c demo")
    from ..page import serve
    from ..page.guard import plain_host

    for name in arguments.allow_host:
        try:
            plain_host(name)
        except ValueError as error:
            raise _errors.UsageError(f"--allow-{error}") from None
    options: dict[str, Any] = {"max_pixels": arguments.max_pixels, "background": arguments.background}
    if arguments.allow_host:
        options["hosts"] = arguments.allow_host
    serve(_model.load(arguments), arguments.port, arguments.open, **options)
    return _errors.OK


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise _errors.UsageError(f"--port: got {port}, expected 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise _errors.CommandError(
                f"port {port} cannot be used: {error.strerror}; --port N selects another one"
            ) from error

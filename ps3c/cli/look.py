"""Draw where the model looks in an image. Needs matplotlib: type pip install '.[plot]' in ps3c's source folder.

ps3c look dock.jpg -m nvidia/PS3-4K-SigLIP2 -o overlay.png --text "a red boat"
"""

import os
import time
from pathlib import Path
from typing import Any

from .._temporary import remove_stale
from . import _console, _errors, _model, _options, _outputs

HELP = "draw where the model looks"

_KINDS = {
    "heat": "selection probability as colours over the image (default)",
    "patches": "the patches that each look selected, at every scale",
    "features": "three principal components of the features as colours",
}


def add_arguments(parser) -> None:
    parser.add_argument("image", metavar="IMAGE")
    _options.add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="picture to write: .png, .pdf, .svg, ...")
    _options.add_force(parser)
    parser.add_argument("--text", metavar="TEXT", help="select patches for this text (default: salient patches)")
    parser.add_argument(
        "--kind",
        choices=tuple(_KINDS),
        default="heat",
        help="; ".join(f"{name}: {what}" for name, what in _KINDS.items()),
    )
    parser.add_argument(
        "--scale",
        type=_options.positive,
        metavar="N",
        help="with --kind heat: draw only the N-th high-resolution scale",
    )
    _options.add_looks(parser, "1")
    _options.add_max_pixels(parser)
    _options.add_background(parser)
    _options.add_json(parser)


def run(arguments) -> int:
    if arguments.scale is not None and arguments.kind != "heat":
        raise _errors.UsageError(f"--scale: got --kind {arguments.kind}, which draws every scale, expected --kind heat")
    _outputs.refuse_existing(arguments.output, arguments.force)
    plot = _plot(arguments.output)  # before the model is loaded: matplotlib may be missing
    encoder = _model.load(arguments)
    if arguments.text is not None:
        _model.need_text_tower(encoder)
    most = len(encoder.scales) - 1
    if arguments.scale is not None and arguments.scale > most:
        raise _errors.UsageError(f"--scale: got {arguments.scale}, expected 1 to {most}, a high-resolution scale")
    looks = arguments.looks
    if looks is None and arguments.num_tokens is None:
        looks = 1
    begin = time.perf_counter()
    result = encoder.embed_images(
        [arguments.image],
        arguments.text,
        looks,
        arguments.num_tokens,
        maps=True,
        max_pixels=arguments.max_pixels,
        background=arguments.background,
    )
    seconds = time.perf_counter() - begin
    from ..features.files import replacing

    remove_stale(Path(arguments.output).parent)
    with replacing(Path(arguments.output), overwrite=arguments.force) as temporary:
        _draw(plot, result, arguments).savefig(temporary)
    report = {
        "output": arguments.output,
        "image": arguments.image,
        "size": list(result.sizes[0]),
        "text": arguments.text,
        "seconds": seconds,
        "tokens": int(result.tokens.shape[1]),
        "looks": _taken(result),
    }
    if arguments.json:
        _console.result_json(report)
    for entry in report["looks"]:
        shares = ", ".join(f"{count} at {scale}" for scale, count in entry["patches"].items() if count)
        _console.say(f"look {entry['look']}: {shares} pixels")
    _console.say(f"{arguments.output}: {report['tokens']} tokens in {seconds:.2f} s")
    return _errors.OK


def _plot(output: str) -> Any:
    """The module ps3c.plot.

    Raises:
        MissingExtraError: matplotlib is not installed. UsageError: matplotlib cannot write files with this suffix.
    """
    from .. import _extras, plot

    known = _extras.require("matplotlib.backend_bases", "plot", "ps3c look").FigureCanvasBase.get_supported_filetypes()
    if os.path.splitext(output)[1].lstrip(".").lower() not in known:
        endings = ", ".join("." + name for name in known)
        raise _errors.UsageError(f"-o: got {output!r}, expected a name that ends in {endings}")
    return plot


def _draw(plot, result, arguments) -> Any:
    if arguments.kind == "patches":
        return plot.looks(None, result)
    if arguments.kind == "features":
        return plot.feature_map(result)
    return plot.overlay(None, result, scale=arguments.scale)


def _taken(result) -> list[dict[str, Any]]:
    """For each look, how many patches of each scale (in pixels) it encoded. Look 0 is the low resolution."""
    import torch

    entries = []
    for number in range(int(result.look.max()) + 1):
        counts = torch.bincount(result.positions[0, result.look[0] == number, 0], minlength=len(result.scales))
        entries.append({"look": number, "patches": dict(zip(map(str, result.scales), counts.tolist()))})
    return entries

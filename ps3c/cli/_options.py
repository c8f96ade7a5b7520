"""Arguments that several subcommands share."""

import argparse
import re

from .. import _arguments

MODEL = "checkpoint folder, or a name on the Hugging Face hub; `ps3c models` lists the published ones"


def add_verbose(parser: argparse.ArgumentParser) -> None:
    # The option may stand before or after the subcommand. SUPPRESS: the second parser does not reset it.
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="print more messages, and tracebacks"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists")


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", metavar="MODEL", required=required, help=MODEL)
    add_revision(group)
    group.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1, ...; auto is a GPU if ps3c can use one, otherwise the CPU (default: auto)",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="dtype of weights and activations; auto is the dtype of the checkpoint (default: auto)",
    )
    group.add_argument("--threads", type=positive, metavar="N", help="number of CPU threads (default: torch's)")


def add_revision(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a model on the Hugging Face hub (default: main)"
    )


def add_looks(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--looks",
        type=count_or_all,
        metavar="N",
        help="number of looks at high resolution; 'all': encode every patch; 0: low resolution only "
        f"(default: {default})",
    )
    group.add_argument(
        "--num-tokens",
        type=count_or_all,
        metavar="N",
        help="number of high-resolution patches to encode, or 'all'; replaces --looks",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="refuse images of more than N pixels (default: Pillow's limit, 89,478,485)",
    )


def add_background(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--background",
        type=background,
        default="white",
        metavar="COLOUR",
        help="the colour behind transparent pixels: a name, such as black, or '#rrggbb' (default: white)",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=positive_or_auto,
        default="auto",
        metavar="N",
        help="images or texts per batch, or 'auto', which chooses by device and memory (default: auto)",
    )


def background(text: str) -> str:
    try:
        _arguments.background(text)
    except ValueError as error:  # argparse says which argument
        raise argparse.ArgumentTypeError(str(error).removeprefix("background: ")) from None
    return text


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, cpu, cuda or cuda:N")
    return text


def positive(text: str) -> int:
    number = _integer(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
    return number


def positive_or_auto(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def count_or_all(text: str) -> int | str:
    if text == "all":
        return text
    number = _integer(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected 0 or more, or 'all'")
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer") from None

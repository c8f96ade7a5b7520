"""Arguments that several subcommands have."""

import argparse
import re


def add_verbose(parser: argparse.ArgumentParser) -> None:
    # Understood before and after the subcommand; SUPPRESS keeps the second parser from resetting what the first set.
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more; show tracebacks"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite an output that exists")


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", metavar="FOLDER", required=required, help="checkpoint folder")
    group.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="DEVICE",
        help="auto (a GPU where there is one), cpu, cuda, cuda:1, ... (default: auto)",
    )
    group.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="arithmetic (default: as the checkpoint is stored)",
    )
    group.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")


def add_looks(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--looks",
        type=count_or_all,
        metavar="N",
        help="looks at high resolution; 'all': until every patch is encoded; 0: low resolution alone "
        f"(default: {default})",
    )
    group.add_argument(
        "--num-tokens", type=count_or_all, metavar="N", help="instead: high-resolution patches, or 'all'"
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="accept images of up to N pixels (default: Pillow's limit, 89,478,485)",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=positive_or_auto,
        default="auto",
        metavar="N",
        help="how many at once (default: as memory and threads suggest)",
    )


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

"""Encode each image to one vector. With --tokens, also write the features of every encoded patch.

OUT ends in .parquet (names, sizes and one vector per image), .safetensors or .npz (all results). A name without a
suffix is a folder of .safetensors files, for results larger than memory. Results are written about once per minute.
After Ctrl-C, a full disk or a crash, --resume encodes the images that are missing in OUT.

  ps3c embed photos/ -m nvidia/PS3-4K-SigLIP2 -o photos.parquet
  find . -name '*.jpg' -print0 | ps3c embed - -m nvidia/PS3-4K-SigLIP2 -o photos.parquet --resume
  ps3c embed dock.jpg -m nvidia/PS3-4K-SigLIP2 -o dock.safetensors --tokens --looks 2 --text "a red boat"
"""

import dataclasses
import time
from typing import Any

from .. import _signals
from . import _console, _errors, _inputs, _model, _options, _outputs

HELP = "encode images to vectors and features"


def add_arguments(parser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders (searched at any depth), or - to read names from stdin",
    )
    _options.add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="file or folder to write")
    parser.add_argument("--resume", action="store_true", help="keep the results in OUT and add the missing images")
    _options.add_force(parser)
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="also write the features of every token, with its scale, row and column (not in .parquet)",
    )
    parser.add_argument(
        "--maps",
        action="store_true",
        help="also write the selection probability of each patch and the selected patches (not in .parquet)",
    )
    _options.add_looks(parser, "0")
    parser.add_argument("--text", metavar="TEXT", help="select patches for this text (default: salient patches)")
    parser.add_argument("--no-normalize", action="store_true", help="do not scale the vectors to length 1")
    parser.add_argument(
        "--on-error",
        choices=("skip", "stop"),
        default="skip",
        help="if an image cannot be used: list it and continue, or stop (default: skip)",
    )
    _options.add_max_pixels(parser)
    _options.add_background(parser)
    _options.add_batch_size(parser)
    _options.add_json(parser)


def run(arguments) -> int:
    _check(arguments)
    files = _inputs.image_files(arguments.images)
    with _outputs.exclusive_output(arguments.output, arguments.force, arguments.resume) as output:
        return _run(arguments, files, output)


def _run(arguments, files: list[str], output) -> int:
    encoder = _model.load(arguments)
    if arguments.text is not None:
        _model.need_text_tower(encoder)
    if arguments.resume:
        output.resume(_kind(encoder, arguments), arguments.looks, arguments.num_tokens)
    failures = _outputs.Failures(arguments.output)
    done = len(output.names.intersection(files))
    progress = _console.ProgressLine(len(files), "image", done)
    begin = time.monotonic()
    missing = [name for name in files if name not in output.names]
    with _signals.held():  # Ctrl-C interrupts the encoding, but not what keeps its results
        try:
            with _signals.released():
                _embed(encoder, arguments, missing, output, failures, progress)
        finally:  # also after Ctrl-C or an error, so that finished results are written
            progress.close()
            output.write()
            report = {
                "output": arguments.output,
                "images": progress.done - progress.failed,
                "failed": failures.count,
                "found_there": done,
                "of": len(files),
                "seconds": time.monotonic() - begin,
                "images_per_second": progress.rate,
                "errors": str(failures.path) if failures.count else None,
            }
            _tell(report, arguments)
    return _errors.SOME_FAILED if failures.count else _errors.OK


def _check(arguments) -> None:
    looks = arguments.looks is not None or arguments.num_tokens is not None
    if arguments.resume and arguments.force:
        raise _errors.UsageError(
            "--resume, --force: got both, expected one (--resume keeps OUT, --force overwrites it)"
        )
    if (arguments.tokens or arguments.maps) and arguments.output.lower().endswith(".parquet"):
        raise _errors.UsageError(
            "-o: got a .parquet file, expected .safetensors, .npz or a folder with --tokens or --maps; a .parquet file "
            "has only one vector per image"
        )
    if (looks or arguments.text is not None) and not (arguments.tokens or arguments.maps):
        raise _errors.UsageError(
            "--looks, --num-tokens, --text: got them without --tokens or --maps, expected one of the two; they select "
            "patches and do not change the image's vector"
        )


def _embed(encoder, arguments, names: list[str], output, failures, progress) -> None:
    """Encodes the images of `names` and adds each batch to the output."""
    for name in names:
        if not _inputs.has_plain_name(name):  # no output format can store it
            _failed(arguments, failures, _inputs.printable(name), "the name is not UTF-8")
            progress.add(1, failed=1)
    names = [name for name in names if _inputs.has_plain_name(name)]
    if not names:
        return
    looks = 0 if arguments.tokens and arguments.looks is None and arguments.num_tokens is None else arguments.looks
    batches = encoder.embed_batches(
        names,
        arguments.text,
        looks,
        arguments.num_tokens,
        arguments.maps,
        normalize=not arguments.no_normalize,
        batch_size=arguments.batch_size,
        progress=progress.show_part,
        on_error="skip",
        max_pixels=arguments.max_pixels,
        background=arguments.background,
    )
    for features in batches:
        if not arguments.tokens:
            features = dataclasses.replace(features, tokens=None)
        with _signals.held():
            if len(features):
                output.add(dataclasses.replace(features, errors=[]))
            progress.add(len(features) + len(features.errors), failed=len(features.errors))
        _signals.raise_lost()  # before an image is called unreadable that a signal interrupted
        for error in features.errors:
            progress.close()
            _failed(arguments, failures, error.name, error.reason)


def _failed(arguments, failures, name: str, reason: str) -> None:
    failures.add(name, reason)
    if arguments.on_error == "stop":
        message = f"{name}: {reason} (stopped, because of --on-error stop)"
        raise _errors.CommandError(message, _errors.SOME_FAILED)


def _kind(encoder, arguments) -> dict[str, Any]:
    """The properties of this run's features, which --resume compares with those of the file."""
    return {
        "channels": _model.channels(encoder),
        "scales": list(encoder.scales),
        "tokens": arguments.tokens,
        "maps": arguments.maps,
        "texts": [str(arguments.text)],
    }


def _tell(report: dict[str, Any], arguments) -> None:
    words = [f"{report['images']} of {report['of']} images"]
    if report["found_there"]:
        words.append(f"{report['found_there']} of them from an earlier run")
    if report["images"] > report["found_there"]:
        words.append(f"{report['images_per_second']:.3g} images/s")
    if report["images"] + report["failed"] < report["of"]:
        words.append("--resume encodes the missing ones")
    if report["failed"]:
        words.append(f"{report['failed']} failed, listed in {report['errors']}")
    _console.say(f"{arguments.output}: {', '.join(words)}")
    if arguments.json:
        _console.result_json(report)

"""Compare this machine's kernels with the plain C kernels, and with ps3-torch if it is installed.

Small random models run in every mode, with each instruction set that the processor has, and on the GPU if there is one.
With -m, the low-resolution result of your model is also compared between the instruction sets."""

from typing import Any

from . import _console, _errors, _model, _options

HELP = "compare this machine's kernels with plain C"


def add_arguments(parser) -> None:
    _options.add_model(parser, required=False)
    parser.add_argument(
        "--reference",
        metavar="FOLDER",
        help="folder that has ps3-torch's package ps3 (default: the folder PS3C_REFERENCE, otherwise the installed "
        "package); ps3-torch needs timm and einops",
    )
    _options.add_json(parser)


def run(arguments) -> int:
    if arguments.revision is not None and arguments.model is None:
        raise _errors.UsageError(f"--revision: got {arguments.revision!r} without -m")
    import torch

    from ..engine import core
    from . import _reference

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    levels = [level for level in core.cpu_levels() if level != "naive"]
    if torch.cuda.is_available() and core.cuda_error() is None:
        levels.append("cuda")
    results: list[dict[str, Any]] = []
    with torch.inference_mode():
        _compare_small_models(levels, results)
        encoder = None if arguments.model is None else _model.load(arguments)
        if encoder is not None:
            _compare_levels(encoder, results)
        reference, note = _reference.find(arguments.reference)
        if reference is not None:
            for what, worst in _reference.compare(reference, encoder):
                what = f"ps3-torch: {what}"
                results.append({"what": what, "dtype": "float32", "level": core.cpu_level(), "worst": worst})
    failed = [result for result in results if not result["worst"] <= 1]
    report = {"level": core.cpu_level(), "levels": levels, "reference": note, "passed": not failed, "results": results}
    if arguments.json:
        _console.result_json(report)
    else:
        _print(levels, results, arguments.verbose)
    _console.say(f"ps3-torch: {note}")
    if failed:
        worst = failed[0]
        raise _errors.CommandError(
            f"{len(failed)} of {len(results)} comparisons failed; the first is {worst['what']}, "
            f"{worst['dtype']}, {worst['level']}"
        )
    _console.say(f"{len(results)} comparisons, all within their tolerance")
    return _errors.OK


def _compare_small_models(levels: list[str], results: list[dict[str, Any]]) -> None:
    from . import _selftest

    for what in _selftest.CASES:
        for dtype in _selftest.DTYPES:
            for level in levels:
                worst = _selftest.compare(what, dtype, level)
                results.append({"what": what, "dtype": dtype, "level": level, "worst": worst})


def _compare_levels(encoder, results: list[dict[str, Any]]) -> None:
    from . import _selftest

    dtype = str(encoder.dtype).removeprefix("torch.")
    for level, worst in _selftest.compare_checkpoint(encoder):
        results.append({"what": "the model, low resolution", "dtype": dtype, "level": level, "worst": worst})


def _print(levels: list[str], results: list[dict[str, Any]], verbose: bool) -> None:
    """Prints a table of error / tolerance: one row per comparison (and per dtype with -v), one column per level."""
    rows: dict[Any, dict[str, float]] = {}
    for result in results:
        row = rows.setdefault((result["what"], result["dtype"] if verbose else "all"), {})
        before = row.get(result["level"], 0.0)
        row[result["level"]] = before if before >= result["worst"] else result["worst"]  # keeps a NaN

    def cell(worst: float | None) -> str:
        return "" if worst is None else f"{worst:.2f}" if worst <= 1 else f"{worst:.3g} failed"

    _console.result_table(
        ("error / tolerance", "dtype", *levels),
        ([what, dtype, *(cell(row.get(level)) for level in levels)] for (what, dtype), row in rows.items()),
    )

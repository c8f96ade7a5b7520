"""List the models that NVIDIA publishes on the Hugging Face hub, and which of them the local cache has.

No request is made. `-m NAME` downloads a model that the cache does not have. A dash stands for a value that ps3c does
not know: the page of a model, such as https://huggingface.co/nvidia/PS3-4K-SigLIP2, states its licence."""

from pathlib import Path
from typing import Any

from . import _console, _errors, _options

HELP = "list the published models"

_COLUMNS = ("name", "largest image", "million parameters", "licence", "in the cache")


def add_arguments(parser) -> None:
    _options.add_json(parser)


def run(arguments) -> int:
    report = describe()
    if arguments.json:
        _console.result_json(report)
        return _errors.OK
    rows = [
        (model["name"], model["side"], model["million_parameters"], model["licence"], _shown(model)) for model in report
    ]
    _console.result_table(_COLUMNS, rows)
    return _errors.OK


def describe() -> list[dict[str, Any]]:
    """What `ps3c models --json` prints."""
    from ..features import hub

    report = []
    for model in hub.PUBLISHED:
        folder = hub.cached_folder(model.name)
        report.append(
            {
                "name": model.name,
                "side": model.side,
                "million_parameters": model.parameters,
                "licence": model.licence,
                "cached": folder is not None and not hub.lacks(folder, all_files=True),
                "folder": None if folder is None else str(folder),
                "bytes": None if folder is None else _bytes(folder),
            }
        )
    return report


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _shown(model: dict[str, Any]) -> str:
    if model["folder"] is None:
        return "no"
    return f"{model['bytes'] / 1e9:.2f} GB" if model["cached"] else "incomplete"

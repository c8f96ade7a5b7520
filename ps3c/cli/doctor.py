"""Report versions, the kernels that this machine can run, and missing packages."""

import importlib
import importlib.util
import os
import platform
import sys
from importlib import metadata
from typing import Any

from .. import _extras
from . import _console, _errors, _options

HELP = "report versions, instruction set, threads, CUDA, extras"

_NEEDED = ("torch", "transformers", "numpy", "pillow", "safetensors", "ftfy")
_EXTRAS = {"matplotlib": "plot", "pyarrow": "parquet", "gradio": "demo", "tqdm": None}
_OF_A_TENSOR = "device: got a CUDA tensor, but "


def add_arguments(parser) -> None:
    _options.add_json(parser)


def run(arguments) -> int:
    report = {**_environment(), **_engine()}
    if arguments.json:
        _console.result_json(report)
    else:
        shown = {name.replace("_", " "): value for name, value in report.items() if name not in ("packages", "extras")}
        for name, version in report["packages"].items():
            shown[name] = version or "missing"
        for name, version in report["extras"].items():
            extra = _EXTRAS[name]
            shown[name] = version or ("missing" + (f": {_extras.command(extra)}" if extra else ""))
        _console.result_fields(shown)
    missing = [name for name, version in report["packages"].items() if version is None]
    if missing or report["engine_error"]:
        reason = report["engine_error"] or f"{', '.join(missing)}: not installed"
        raise _errors.CommandError(f"ps3c cannot run here: {reason}")
    return _errors.OK


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _environment() -> dict[str, Any]:
    import ps3c

    return {
        "ps3c": ps3c.__version__,
        "folder": os.path.dirname(ps3c.__file__),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in _NEEDED},
        "extras": {name: _version(name) for name in _EXTRAS},
        "import_ps3": _owner_of_ps3(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("PS3C_")} or None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _owner_of_ps3() -> str:
    """The project whose package `import ps3` imports: ps3-torch and ps3c both install a package ps3."""
    spec = importlib.util.find_spec("ps3")
    if spec is None or spec.origin is None:
        return "nothing"
    try:
        with open(spec.origin, encoding="utf-8", errors="replace") as file:
            return "ps3c" if "ps3c" in file.read() else f"another package, {os.path.dirname(spec.origin)}"
    except OSError:
        return spec.origin


def _engine() -> dict[str, Any]:
    """What the compiled module reports, or the reason why it cannot be loaded."""
    names = ("level", "levels", "threads", "gpu", "cuda_library", "cuda", "engine_error")
    report: dict[str, Any] = dict.fromkeys(names)
    try:
        torch = importlib.import_module("torch")
        core = importlib.import_module("ps3c.engine.core")
        report.update(level=core.cpu_level(), levels=core.cpu_levels(), threads=torch.get_num_threads())
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        report["engine_error"] = _errors.one_line(error)
        return report
    library = os.environ.get("PS3C_CUDA_LIBRARY") or os.path.join(core.FOLDER, "libps3c_cuda.so")
    report["cuda_library"] = library if os.path.exists(library) else f"none ({library} does not exist)"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        report["gpu"] = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"
    else:
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        report["gpu"] = f"none ({why})"
    reason = core.cuda_error()
    # The engine's message is about a tensor that was passed; here there is none.
    report["cuda"] = "usable" if reason is None else f"not usable: {reason.removeprefix(_OF_A_TENSOR)}"
    return report

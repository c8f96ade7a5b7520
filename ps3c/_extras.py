"""Imports optional packages, which the extras of ps3c install."""

import importlib
from types import ModuleType

from .errors import MissingExtraError


def command(extra: str) -> str:
    """What a user types to install an extra."""
    here, index = f"pip install '.[{extra}]'", f"pip install 'ps3c[{extra}]'"
    return f"{here} in ps3c's source folder, or {index} if your package index has ps3c"


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports `module`, such as "pyarrow.parquet".

    Args:
        extra: the extra of ps3c that installs the package. purpose: the feature that needs it, for the message.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise  # the package is installed, but a package that it imports is missing
        raise MissingExtraError(
            f"{package}: not installed, needed for {purpose}; type {command(extra)}", name=package
        ) from error

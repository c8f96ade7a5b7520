"""Optional packages, which the extras of ps3c install."""

import importlib
from types import ModuleType

from .errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports `module`, such as "pyarrow.parquet".

    Args:
        extra: the extra of ps3c that installs it. purpose: what needs it, for the message.

    Raises:
        MissingExtraError: its package is not installed.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise  # installed, but one of its own imports is missing
        raise MissingExtraError(
            f"{package} is needed for {purpose}: pip install 'ps3c[{extra}]'", name=package
        ) from error

"""Packages that ps3c needs for some things only, and that its extras bring."""

import importlib
from types import ModuleType

from .errors import MissingExtraError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports `module`, such as "pyarrow.parquet".

    Args:
        extra: the extra of ps3c that brings it. purpose: what needs it, for the message.

    Raises:
        MissingExtraError: its package is not installed.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise  # it is there, and lacks something of its own
        raise MissingExtraError(
            f"{package} is needed for {purpose}: pip install 'ps3c[{extra}]'", name=package
        ) from error

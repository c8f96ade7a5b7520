"""The exceptions of ps3c's own. Each is also one of Python's, so that a general handler catches it."""

import os

__all__ = ["CheckpointError", "ImageError", "MissingExtraError"]


class CheckpointError(ValueError):
    """A folder that cannot be used as a checkpoint. The message is one line: the folder and the reason."""

    def __init__(self, folder, reason: str):
        super().__init__(f"{folder}: {reason}")
        self.folder = str(folder)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.folder, self.reason)


class ImageError(ValueError):
    """An image that cannot be used: `name` of it, and `reason`."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.name, self.reason)


class MissingExtraError(ImportError):
    """An optional package is not installed. The message says which extra of ps3c to install."""


_LONGEST = 300  # characters of another package's message


def short_reason(error: object, folder: object = None) -> str:
    """An error's message in one line of at most 300 characters, without the folder's name at its start."""
    text = " ".join(str(error).split()) or type(error).__name__
    if folder is not None:
        text = text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

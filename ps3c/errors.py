"""ps3c's exceptions. Each is a subclass of a built-in exception, so that a general handler catches it."""

import os

__all__ = ["CheckpointError", "ImageError", "MissingExtraError"]


class CheckpointError(ValueError):
    """The folder cannot be used as a checkpoint. The message is one line: the folder and the reason.

    Attributes:
        folder, reason: str.
    """

    def __init__(self, folder, reason: str):
        super().__init__(f"{folder}: {reason}")
        self.folder = str(folder)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.folder, self.reason)


class ImageError(ValueError):
    """The image cannot be used. The message is its name and the reason.

    Attributes:
        name, reason: str.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.name, self.reason)


class UnreadableImageError(ImageError, OSError):
    """Pixels that cannot be decoded. Also an OSError, as which Pillow and ps3-torch report them."""


class MissingExtraError(ImportError):
    """An optional package is not installed. The message names the package and the command that installs it."""


def raise_memory_error(error: BaseException) -> None:
    """Raises the MemoryError that `error` is or comes from: other packages make exceptions of their own of one.

    CPython itself says RuntimeError where it has no memory for a lock ("can't allocate read lock" for a file).
    """
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, MemoryError):
            raise one
        if isinstance(one, RuntimeError) and str(one).startswith("can't allocate"):
            raise MemoryError(str(one)) from error
        one = one.__cause__ or one.__context__


_LONGEST = 300  # characters; a longer message of another package is shortened


def short_reason(error: object, folder: object = None) -> str:
    """An error's message in one line of at most 300 characters. A leading folder name is removed."""
    text = " ".join(str(error).split()) or type(error).__name__
    if folder is not None:
        text = text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

"""The exceptions of ps3c's own. Each is also one of Python's, so that a general handler catches it."""


class CheckpointError(ValueError):
    """A folder that is no usable checkpoint. One line: the folder, and why."""

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
    """A package that only an extra of ps3c brings is not installed. The message says what to install."""

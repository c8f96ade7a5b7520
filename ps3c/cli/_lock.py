"""A lock on an output, so that two processes do not write it at the same time."""

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import _console
from ._errors import CommandError

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Holds the lock of an output file or folder during the block.

    The lock is an flock(2) on a file beside the output. The kernel releases it when its process ends, also after
    kill -9 or a crash. So a lock file without a living process is stale and does not refuse anybody.

    Raises:
        CommandError: another process holds the lock. OSError: the lock file cannot be created.
    """
    name = lock_file(path)
    descriptor = _acquire(name, path)
    try:
        yield
    finally:
        if descriptor is not None:
            # An error here would hide that of the block, and says nothing about the output.
            with suppress(OSError):
                os.unlink(name)  # before the lock is released: afterwards it could be another process's file
            _close(descriptor)


def lock_file(path: str) -> str:
    """The name of the lock file. It is the same for all names of one output, through whatever symbolic links.

    A file is replaced by a rename, which does not follow a link of that name; a folder is written through the link.
    """
    path = os.path.normpath(path)
    if os.path.isdir(path):
        folder, name = os.path.split(os.path.realpath(path))
    else:
        folder, name = os.path.split(os.path.abspath(path))
        folder = os.path.realpath(folder)
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]  # a long name plus a suffix could be too long
    return os.path.join(folder, f".ps3c-{digest}.lock")


def _acquire(name: str, path: str) -> int | None:
    """A descriptor that holds the lock, or None on a file system without locks."""
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OSError(error.errno, f"the lock file {name} cannot be opened: {error.strerror}", path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(descriptor)
            _close(descriptor)
            if error.errno in _UNSUPPORTED:
                _console.warn(f"{path}: this file system has no locks; do not write the output twice at a time")
                return None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(error.errno, error.strerror, path) from error
            raise CommandError(
                f"{path}: another ps3c embed{owner} is writing it; wait until it ends, or give another name"
            ) from None
        try:
            if _is_current(descriptor, name):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
                return descriptor
        except OSError as error:
            _close(descriptor)
            raise OSError(error.errno, f"the lock file {name} cannot be written: {error.strerror}", path) from error
        _close(descriptor)  # its last holder removed it between open and flock


def _close(descriptor: int) -> None:
    with suppress(OSError):  # it is closed all the same, and the reason of its caller says more
        os.close(descriptor)


def _is_current(descriptor: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str:
    try:
        process, host = os.pread(descriptor, 300, 0).decode().split()
        return f" (process {int(process)} on {host})"
    except (OSError, ValueError):
        return ""

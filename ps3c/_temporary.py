"""Hidden folders for files that are not finished.

A process holds a lock on each of its folders. The kernel releases it when the process ends, also after kill -9. So a
folder whose lock is free is stale.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.ps3c-[0-9a-f]{16}")
_LOCK = "lock"


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` that only this user may read. It is removed at the end, also after an exception."""
    while True:
        folder, lock = parent / f".ps3c-{secrets.token_hex(8)}", None
        try:
            folder.mkdir(mode=0o700)
            lock = _locked(folder)
            if lock is None:  # another process took it for stale before it was locked
                continue
            yield folder
            return
        finally:
            _remove(folder)
            if lock is not None:
                os.close(lock)


def remove_stale(parent: Path) -> None:
    """Removes temporary folders in `parent` whose processes were killed."""
    try:
        found = [parent / name for name in os.listdir(parent) if _NAME.fullmatch(name)]
    except OSError:  # the folder does not exist, or may not be listed
        return
    for folder in found:
        try:
            state = folder.lstat()
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
                continue
            lock = _locked(folder, required=True)
            if lock is not None:
                _remove(folder)
                os.close(lock)
        except OSError:  # no locks on this file system, or another process removes it at the same time
            continue


def _remove(folder: Path) -> None:
    for _ in range(2):  # twice: a system call may have been interrupted
        with suppress(OSError):  # rmtree closes folders outside of what ignore_errors covers
            shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path, required: bool = False) -> int | None:
    """A descriptor that holds the folder's lock; None if another process holds it or has removed the folder.

    OSError: the lock file cannot be made or, with `required`, the file system has no locks.
    """
    name = folder / _LOCK
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(name, follow_symlinks=False)):
            return descriptor
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            if not required:
                return descriptor
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None

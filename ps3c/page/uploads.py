"""The folder of a server's uploads: removed when the server ends, or at the next start if it was killed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "ps3c-demo-"
_LOCK = ".ps3c-lock"
_YOUNG = 60.0  # seconds; a folder without a lock may belong to a server that is starting


@contextmanager
def upload_folder() -> Iterator[str]:
    """A new folder that only this user may read. Temporary files of Python are made in it too during the block."""
    remove_stale()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        before = tempfile.tempdir
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tempfile.tempdir = folder  # gradio writes an unfinished upload to a temporary file
            yield folder
        finally:
            tempfile.tempdir = before
            os.close(lock)


def remove_stale() -> None:
    """Removes folders of servers that were killed. The system has released their locks."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            state = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or state.st_uid != os.geteuid():
                continue
            lock = folder / _LOCK
            if not lock.exists():
                if time.time() - state.st_mtime > _YOUNG:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
        except OSError:  # in use, or another server removes it at the same time
            continue

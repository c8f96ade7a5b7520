"""The folder of a server's uploads: removed when the server ends, or at the next start if it was killed."""

import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived. The exit code is the shell's: 128 + the signal's number."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated in the main thread during the block, so that files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one does not interrupt the cleaning
        raise Terminated(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup, or where the caller has a handler
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

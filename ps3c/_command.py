"""Tells whether this process is the `ps3c` command, which imports torch and transformers only when it needs them.

Python imports the package `ps3c` before `ps3c.cli`. Importing torch takes seconds, which is too long for `ps3c --help`.
Therefore ps3c/__init__.py registers the PS3 classes with transformers' AutoModel at once in every process except the
command.
"""

import os
import sys


def is_running() -> bool:
    """True in the `ps3c` script and in `python -m ps3c`."""
    if sys.argv[:1] == ["-m"]:  # Python has not found the -m module yet: it may be ps3c, or a module that imports ps3c
        arguments = sys.orig_argv
        return any(arguments[i : i + 2] == ["-m", "ps3c"] for i in range(len(arguments)))
    return bool(sys.argv) and os.path.basename(sys.argv[0]) == "ps3c"

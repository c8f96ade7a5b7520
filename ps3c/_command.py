"""Is this process the `ps3c` command? It then imports torch and transformers only when a subcommand needs them.

Python imports the package `ps3c` before `ps3c.cli`, and torch takes seconds to import: too long for `ps3c --help`. So
ps3c/__init__.py imports its names at once for everybody but the command. For library users
nothing is delayed: after `import ps3c`, transformers' AutoModel knows the PS3 classes.
"""

import os
import sys


def is_running() -> bool:
    """True in the `ps3c` script and in `python -m ps3c`."""
    if sys.argv[:1] == ["-m"]:  # Python is still looking for the module to run: this one, or one that imports ps3c
        words = sys.orig_argv
        return any(words[i : i + 2] == ["-m", "ps3c"] for i in range(len(words)))
    return bool(sys.argv) and os.path.basename(sys.argv[0]) == "ps3c"

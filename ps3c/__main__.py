"""`python -m ps3c` is the `ps3c` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

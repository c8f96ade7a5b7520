"""`ps3.tokenization_ps3` is `ps3c.tokenization_ps3`: the same module under ps3-torch's name."""

import sys

from ps3c import tokenization_ps3

sys.modules[__name__] = tokenization_ps3

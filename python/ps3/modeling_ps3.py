"""`ps3.modeling_ps3` is `ps3c.modeling_ps3`: the same module under ps3-torch's name."""

import sys

from ps3c import modeling_ps3

sys.modules[__name__] = modeling_ps3

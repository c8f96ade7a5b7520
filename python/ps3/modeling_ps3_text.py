"""`ps3.modeling_ps3_text` is `ps3c.modeling_ps3_text`: the same module under ps3-torch's name."""

import sys

from ps3c import modeling_ps3_text

sys.modules[__name__] = modeling_ps3_text

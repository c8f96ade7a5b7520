"""`ps3.utils_radio_adapter_mlp` is `ps3c.utils_radio_adapter_mlp`: the same module under ps3-torch's name."""

import sys

from ps3c import utils_radio_adapter_mlp

sys.modules[__name__] = utils_radio_adapter_mlp

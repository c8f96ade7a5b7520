"""`ps3.configuration_ps3` is `ps3c.configuration_ps3`: the same module under ps3-torch's name."""

import sys

from ps3c import configuration_ps3

sys.modules[__name__] = configuration_ps3

"""`ps3.image_processing_ps3` is `ps3c.image_processing_ps3`: the same module under ps3-torch's name."""

import sys

from ps3c import image_processing_ps3

sys.modules[__name__] = image_processing_ps3

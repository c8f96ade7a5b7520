"""ps3-torch's classes, and one forward call for vision and text. Nothing here computes: the engine does."""

import torch  # noqa: F401  # before ps3c._core, so that both share one OpenMP runtime

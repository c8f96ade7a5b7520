"""ps3c: NVIDIA's PS3 vision encoder and text tower, computed in C behind ps3-torch's Python API."""

from . import _auto
from .configuration_ps3 import PS3Config, PS3TextConfig, PS3VisionConfig
from .image_processing_ps3 import PS3ImageProcessor
from .modeling_ps3 import PS3Model, PS3TextModel, PS3VisionEncoder, PS3VisionModel
from .tokenization_ps3 import PS3Tokenizer

__version__ = "0.1.0"

__all__ = [
    "PS3Config",
    "PS3ImageProcessor",
    "PS3Model",
    "PS3TextConfig",
    "PS3TextModel",
    "PS3Tokenizer",
    "PS3VisionConfig",
    "PS3VisionEncoder",
    "PS3VisionModel",
]

_auto.register()

"""ps3c: NVIDIA's PS3 vision encoder and text tower, computed in C behind ps3-torch's Python API.

`ps3c.load(folder)` is the short way: see ps3c.encoder.Encoder. The PS3 classes are ps3-torch's.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import _command

if TYPE_CHECKING:
    from . import errors, images, plot
    from .configuration_ps3 import PS3Config, PS3TextConfig, PS3VisionConfig
    from .encoder import Encoder
    from .errors import CheckpointError, ImageError, MissingExtraError
    from .image_processing_ps3 import PS3ImageProcessor
    from .loading import load
    from .modeling_ps3 import PS3Model, PS3TextModel, PS3VisionEncoder, PS3VisionModel
    from .results import ImageFeatures, Look, TextFeatures
    from .saving import load_features
    from .tokenization_ps3 import PS3Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "PS3Config": "configuration_ps3",
    "PS3ImageProcessor": "image_processing_ps3",
    "PS3Model": "modeling_ps3",
    "PS3TextConfig": "configuration_ps3",
    "PS3TextModel": "modeling_ps3",
    "PS3Tokenizer": "tokenization_ps3",
    "PS3VisionConfig": "configuration_ps3",
    "PS3VisionEncoder": "modeling_ps3",
    "PS3VisionModel": "modeling_ps3",
    "CheckpointError": "errors",
    "Encoder": "encoder",
    "ImageError": "errors",
    "ImageFeatures": "results",
    "Look": "results",
    "MissingExtraError": "errors",
    "TextFeatures": "results",
    "load": "loading",
    "load_features": "saving",
}
_SUBMODULES = ("errors", "images", "plot")

__all__ = [
    "CheckpointError",
    "Encoder",
    "ImageError",
    "ImageFeatures",
    "Look",
    "MissingExtraError",
    "PS3Config",
    "PS3ImageProcessor",
    "PS3Model",
    "PS3TextConfig",
    "PS3TextModel",
    "PS3Tokenizer",
    "PS3VisionConfig",
    "PS3VisionEncoder",
    "PS3VisionModel",
    "TextFeatures",
    "load",
    "load_features",
]


def __getattr__(name: str) -> Any:
    """Names are imported when they are first asked for: the command line's --help must not wait for torch."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBMODULES})


if not _command.is_running():
    from . import _auto

    _auto.register()

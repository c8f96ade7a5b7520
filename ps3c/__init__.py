"""ps3c: NVIDIA's PS3 vision encoder and text tower, computed in C behind ps3-torch's Python API.

`ps3c.load(folder)` returns a ps3c.Encoder, which encodes images and texts in one call each. The PS3 classes have the
API of ps3-torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import _command, _moved

if TYPE_CHECKING:
    from . import errors as errors
    from . import images as images
    from . import plot as plot
    from .errors import CheckpointError, ImageError, MissingExtraError
    from .features.encoder import Encoder
    from .features.load import load
    from .features.results import ImageFeatures, Look, TextFeatures, load_features
    from .torch_api.configuration_ps3 import PS3Config, PS3TextConfig, PS3VisionConfig
    from .torch_api.image_processing_ps3 import PS3ImageProcessor
    from .torch_api.modeling_ps3 import PS3Model, PS3TextModel, PS3VisionEncoder, PS3VisionModel
    from .torch_api.tokenization_ps3 import PS3Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "PS3Config": "torch_api.configuration_ps3",
    "PS3ImageProcessor": "torch_api.image_processing_ps3",
    "PS3Model": "torch_api.modeling_ps3",
    "PS3TextConfig": "torch_api.configuration_ps3",
    "PS3TextModel": "torch_api.modeling_ps3",
    "PS3Tokenizer": "torch_api.tokenization_ps3",
    "PS3VisionConfig": "torch_api.configuration_ps3",
    "PS3VisionEncoder": "torch_api.modeling_ps3",
    "PS3VisionModel": "torch_api.modeling_ps3",
    "CheckpointError": "errors",
    "Encoder": "features.encoder",
    "ImageError": "errors",
    "ImageFeatures": "features.results",
    "Look": "features.results",
    "MissingExtraError": "errors",
    "TextFeatures": "features.results",
    "load": "features.load",
    "load_features": "features.results",
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
    """Imports a name when it is first used, so that the command line's --help does not wait for torch."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES or name in _moved.MOVED:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES, "__version__"})


_moved.install()
if not _command.is_running():
    from .torch_api import auto

    auto.register()

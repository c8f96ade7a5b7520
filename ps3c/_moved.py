"""Modules that have moved: their former names import the very modules of today.

Programs import ps3c.modeling_ps3 as they do ps3.modeling_ps3, and pickles of whole models name the private ones too.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec

MOVED = {
    "modeling_ps3": "torch_api.modeling_ps3",
    "modeling_ps3_text": "torch_api.modeling_ps3_text",
    "configuration_ps3": "torch_api.configuration_ps3",
    "image_processing_ps3": "torch_api.image_processing_ps3",
    "tokenization_ps3": "torch_api.tokenization_ps3",
    "utils_radio_adapter_mlp": "torch_api.utils_radio_adapter_mlp",
    "architectures": "torch_api.architectures",
    "encoder": "features.encoder",
    "loading": "features.load",
    "results": "features.results",
    "saving": "features.results",
    # Named by pickles of whole models.
    "_engine": "engine.models",
    "_modules": "torch_api.layers",
}


class Finder:
    """Finds the names in MOVED."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        return ModuleSpec(name, self) if package == __package__ and module in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # an empty one, which exec_module replaces

    def exec_module(self, module) -> None:
        former = module.__name__
        sys.modules[former] = importlib.import_module(f".{MOVED[former.rpartition('.')[2]]}", __package__)


def install() -> None:
    # First: an editable install of another version could still have files of the former names.
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]

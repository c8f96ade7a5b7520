"""Builds the tests' extension, when something changed, and loads it: `operations` is its module.

PS3C_OPERATIONS names an extension that is built already, such as a sanitized one.
"""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def build() -> Path:
    """The extension's file. RuntimeError: what the compiler said."""
    if os.environ.get("PS3C_OPERATIONS"):
        return Path(os.environ["PS3C_OPERATIONS"])
    made = subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), "-q", "build_operations"], capture_output=True, text=True
    )
    if made.returncode:
        raise RuntimeError(made.stdout + made.stderr)
    return Path(made.stdout.splitlines()[-1])


def load() -> ModuleType:
    """A new instance of the extension module, with state of its own."""
    loader = importlib.machinery.ExtensionFileLoader("_operations", FILE)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_operations", loader))
    loader.exec_module(module)
    return module


def use_installed_cuda_library() -> None:
    """With a GPU, tells the extension where the CUDA library is: beside ps3c._core, not beside the extension."""
    if os.environ.get("PS3C_CUDA_LIBRARY"):
        return
    import torch

    from ps3c import _core

    library = Path(_core.__file__).with_name("libps3c_cuda.so")
    if library.is_file() and torch.cuda.is_available():
        os.environ["PS3C_CUDA_LIBRARY"] = str(library)


FILE = str(build())
use_installed_cuda_library()
operations = load()

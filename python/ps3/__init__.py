"""ps3c under ps3-torch's name: `import ps3` gives ps3c's classes, `ps3.modeling_ps3` is `ps3c.modeling_ps3`, ...

Both packages install a folder called ps3 when ps3-torch is in the same environment; whichever was installed last is
the one that Python finds. If that is this one, importing it says so.
"""

import importlib
import importlib.metadata
import sys
import warnings

from ps3c import *  # noqa: F403
from ps3c import __all__ as __all__
from ps3c import __version__

for _name in (
    "configuration_ps3",
    "image_processing_ps3",
    "modeling_ps3",
    "modeling_ps3_text",
    "tokenization_ps3",
    "utils_radio_adapter_mlp",
):
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = importlib.import_module(f"ps3c.torch_api.{_name}")


def _warn_of_ps3_torch() -> None:
    try:
        version = importlib.metadata.version("ps3-torch")
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"`import ps3` gives ps3c {__version__}, but ps3-torch {version} is installed in the same environment under "
        "the same import name. To keep ps3c: pip uninstall ps3-torch, then pip install --force-reinstall --no-deps "
        "ps3c. To keep ps3-torch: pip uninstall ps3c, then reinstall ps3-torch. `import ps3c` is ps3c in either case.",
        stacklevel=3,
    )


_warn_of_ps3_torch()

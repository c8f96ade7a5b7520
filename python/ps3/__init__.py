"""ps3c under ps3-torch's name: `import ps3` gives ps3c's classes, `ps3.modeling_ps3` is `ps3c.modeling_ps3`, ...

Both packages install a folder called ps3 when ps3-torch is in the same environment; whichever was installed last is
the one that Python finds. If that is this one, importing it says so.
"""

import importlib.metadata
import warnings

from ps3c import *  # noqa: F403
from ps3c import __all__, __version__

from . import (
    configuration_ps3,
    image_processing_ps3,
    modeling_ps3,
    modeling_ps3_text,
    tokenization_ps3,
    utils_radio_adapter_mlp,
)


def _warn_of_ps3_torch() -> None:
    try:
        version = importlib.metadata.version("ps3-torch")
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"`import ps3` gives ps3c {__version__}, but ps3-torch {version} is installed in the same environment under the "
        "same import name. To keep ps3c: pip uninstall ps3-torch, then pip install --force-reinstall --no-deps ps3c. "
        "To keep ps3-torch: pip uninstall ps3c, then reinstall ps3-torch. `import ps3c` is ps3c in either case.",
        stacklevel=3,
    )


_warn_of_ps3_torch()

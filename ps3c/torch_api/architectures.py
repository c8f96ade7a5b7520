"""Sizes of the vision transformers that can be a PS3 trunk, by timm's names.

PS3 configs name their trunk as timm does ("vit_so400m_patch14_siglip_384"); a checkpoint does not repeat the sizes,
so they are here. A trunk is a plain pre-norm transformer without class or register tokens: patch embedding, a learned
table of positions, blocks of attention and MLP with biases, a final LayerNorm (eps 1e-6), an attention pool. Names
that timm builds in another way (layer scale, register tokens, norm before the blocks, ...) are refused with the reason.
"""

import difflib
import re
from dataclasses import dataclass

from ..engine.core import trunks


@dataclass(frozen=True)
class Architecture:
    """One trunk. `img_size` is the side, in pixels, that the table of positions is made for."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    patch: int
    img_size: int
    class_token: bool  # what timm builds unless class_token says otherwise; PS3 needs False
    gelu: str = "erf"  # or "tanh"
    norm_eps: float = 1e-6

    @property
    def mlp_hidden(self) -> int:
        return int(self.width * self.mlp_ratio)


# The table itself is the engine's (csrc/checkpoint/trunks.c), which C programs read too.
ARCHITECTURES: dict[str, Architecture] = {name: Architecture(*sizes) for name, *sizes in trunks()}

# Trunks of timm that PS3 cannot use, and why. First match counts.
_OTHERS: list[tuple[str, str]] = [
    (r"_reg\d", "it has register tokens, and PS3 takes a trunk without prefix tokens"),
    (r"_clip_", "it has a LayerNorm before its blocks"),
    (r"dinov2|plus_|18x2|36x1|medium|betwixt|little|so150m|intern", "its blocks have layer scale"),
    (r"^aimv2", "its blocks use RMSNorm and SwiGLU"),
    (r"_xp_|_rpn_|_pwee_", "its blocks are not plain pre-norm blocks"),
    (r"_miil", "its attention has no biases"),
]


def architecture_names() -> list[str]:
    """Names that `find_architecture` knows, sorted."""
    return sorted(ARCHITECTURES)


def find_architecture(name: str | None) -> Architecture:
    """The trunk of timm's name; a pretraining tag after a dot ("....webli") does not matter here.

    Raises:
        TypeError: name is not a string.
        ValueError: no such trunk, or one that PS3 cannot use. The message lists near names, or the reason.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"model_name: got {name!r}, expected the name of a timm vision transformer, such as "
            "'vit_so400m_patch14_siglip_384'"
        )
    plain = name.split(".")[0]
    found = ARCHITECTURES.get(plain)
    if found is not None:
        return found
    for pattern, reason in _OTHERS:
        if re.search(pattern, plain):
            raise ValueError(f"model_name: got {name!r}, which cannot be a PS3 trunk: {reason}")
    near = difflib.get_close_matches(plain, ARCHITECTURES, n=5, cutoff=0.5) or ["vit_so400m_patch14_siglip_384"]
    raise ValueError(
        f"model_name: got {name!r}, which is not among the known trunks; near names: {', '.join(near)}. "
        "ps3c.architectures.architecture_names() lists all of them"
    )

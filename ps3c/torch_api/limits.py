"""Upper limits of the numbers in a configuration, checked before a module is built.

They are far above every published model. Without them a damaged config.json could use all memory or build layers for
minutes before a wrong size is found.
"""

from collections.abc import Iterator
from typing import Any

_WIDTH, _SIDE = 1 << 16, 1 << 14

VISION = {
    "img_size": _SIDE,
    "ps3_scales": 1 << 16,  # of the engine
    "select_based_on_layer": 1 << 10,
    "max_select_num": (1 << 31) - 1,
    "max_select_num_each_scale": (1 << 31) - 1,
    "highres_selection_module_hidden_dim": _WIDTH,
    "highres_selection_module_out_dim": _WIDTH,
    "highres_selection_module_depth": 512,
    "highres_selection_module_kernel_size": 1 << 12,
    "radio_adapter_mlp_input_dim": _WIDTH,
    "radio_adapter_mlp_hidden_dim": _WIDTH,
    "radio_adapter_mlp_output_dim": _WIDTH,
    "radio_adapter_mlp_num_inner": 512,
}
TEXT = {
    "output_dim": _WIDTH,
    "prompt_proj_dim": _WIDTH,
    "context_length": 1 << 16,
    "vocab_size": 1 << 24,
    "width": _WIDTH,
    "heads": _WIDTH,
    "layers": 512,
    "mlp_ratio": 64.0,
}
CONTEXT_LENGTH = TEXT["context_length"]
IMAGE_SIDE = _SIDE
LONGEST_LIST = 256


def check_limits(config: Any) -> None:
    """Checks a PS3VisionConfig, a PS3TextConfig, or a PS3Config with both.

    Only numbers that are too large, or are not numbers (NaN), are found here. Other wrong values have messages of
    their own, where they are used.

    Raises:
        ValueError: the message names the field.
    """
    for part in ("vision_config", "text_config"):
        if hasattr(config, part):
            check_limits(getattr(config, part))
    table = {"ps3_vision_model": VISION, "ps3_text_model": TEXT}.get(getattr(config, "model_type", ""), {})
    for name, most in table.items():
        value = getattr(config, name, None)
        if isinstance(value, (list, tuple)) and len(value) > LONGEST_LIST:
            raise ValueError(f"{name}: got a list of {len(value)} numbers, expected at most {LONGEST_LIST}")
        for number in _numbers(value):
            if not number <= most:  # also NaN
                raise ValueError(f"{name}: got {short(number)}, expected at most {most}")


def short(number: Any) -> str:
    """A number as text. Thousands of digits do not fit into a message."""
    text = repr(number) if not isinstance(number, int) or abs(number) < 1 << 128 else f"about 2**{number.bit_length()}"
    return text if len(text) <= 100 else text[:97] + "..."


def _numbers(value: Any) -> Iterator[int | float]:
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            yield one

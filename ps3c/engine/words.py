"""The engine's field names in Python's words.

The engine's messages read "FIELD: got X, expected Y" and name fields of the structs in csrc/ps3c.h. Python has other
names for some of these fields, ps3-torch's. `translated` replaces the names in every exception that a call raises.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Fields of ps3c_vision_config and ps3c_vision_io, and their names in Python.
VISION: Mapping[str, str] = {
    "grid": "img_size // patch size",
    "scales": "ps3_scales",
    "num_scales": "ps3_scales",
    "max_select_num": "max_select_num_each_scale",
    "separate_positions": "separate_pos_emb",
    "select_layers": "select_based_on_layer",
    "num_select_layers": "select_based_on_layer",
    "highres_features": "highres_selection_feature",
    "conv_width": "highres_selection_module_hidden_dim",
    "conv_out": "highres_selection_module_out_dim",
    "conv_depth": "highres_selection_module_depth",
    "conv_kernel": "highres_selection_module_kernel_size",
    "adapter": "radio_adapter_mlp_version",
    "adapter_hidden": "radio_adapter_mlp_hidden_dim",
    "adapter_out": "radio_adapter_mlp_output_dim",
    "adapter_blocks": "radio_adapter_mlp_num_inner",
    "first_n_scales": "only_select_first_n_scale",
    "gt_maps": "gt_selection_maps",
    "smooth": "smooth_selection_prob",
    "pool_gt_only": "pool_gt_token_only",
    "global_text": "is_global_text",
    "hidden_states": "num_hidden_layers_to_return",  # the request's number; the output is hidden_states[i]
    "bottomup_probs": "bottomup_selection_probs",
    "topdown_probs": "topdown_selection_probs",
    "pooled": "pooled_output",
}

# Of a request, ps3c_vision_request: batch, height and width are the sizes of pixel_values there.
VISION_REQUEST: Mapping[str, str] = {
    **VISION,
    "batch": "pixel_values.shape[0] (batch)",
    "height": "pixel_values.shape[2] (height)",
    "width": "pixel_values.shape[3] (width)",
}

# Fields of ps3c_text_config and ps3c_text_io.
TEXT: Mapping[str, str] = {
    "depth": "layers",
    "prompt_dim": "prompt_proj_dim",
    "class_token": "embed_cls",
    "layer_scale": "ls_init_value",
    "projection_linear": "proj_bias",
    "projection_bias": "proj_bias",
    "pool": "pool_type",
    "ids": "text",
    "pooled": "pooled_output",
}

# Of ps3c_text_request.
TEXT_REQUEST: Mapping[str, str] = {**TEXT, "batch": "text.shape[0] (batch)", "length": "text.shape[1] (tokens)"}

# C's constants, wherever they stand.
_VALUES = {"true": "True", "PS3C_ALL": "'all'", "PS3C_NONE": "None"}

_DTYPE = r"(bool|u?int\d+|b?float\d+)"
_DTYPES = re.compile(rf": got {_DTYPE}, expected {_DTYPE}$")

# The names that a message starts with: "a: ...", "a, b: ...", "a[2]: ...".
_HEAD = re.compile(r"^[\w.\[\]']+(?:, [\w.\[\]']+)*")


def translate(message: str, names: Mapping[str, str]) -> str:
    """message with whole-word field names replaced.

    A name with an underscore is replaced everywhere. A name that is also an English word ("depth") is replaced only in
    the list of names that the message starts with. A message that has Python's names already stays as it is.
    """
    head = _HEAD.match(message)
    end = head.end() if head else 0
    unmistakable = {**_VALUES, **{name: other for name, other in names.items() if "_" in name}}
    translated = _replaced(message[:end], names) + _replaced(message[end:], unmistakable)
    dtypes = _DTYPES.search(translated)
    if dtypes is None:
        return translated
    name, (got, expected) = translated[: dtypes.start()], dtypes.groups()
    if name.startswith("weight "):
        return f"{name}: got torch.{got}, expected torch.{expected}"
    return f"{name}: got torch.{got}, expected torch.{expected}, the dtype of the weights"


def _replaced(text: str, names: Mapping[str, str]) -> str:
    def other(match: "re.Match[str]") -> str:
        name = match[0]
        is_output = name == "hidden_states" and text[match.end() : match.end() + 1] == "["
        return name if is_output else names.get(name, name)

    # No part of a longer name, and no part of a parameter's path such as "trunk.pos_embed".
    return re.sub(r"(?<![\w.])[a-zA-Z]\w*(?!\w|\.\w)", other, text)


@contextmanager
def translated(names: Mapping[str, str]) -> Iterator[None]:
    """Exceptions from the block leave it with their message translated: same object, type and traceback."""
    try:
        yield
    except Exception as error:
        translate_error(error, names)
        raise


def translate_error(error: Exception, names: Mapping[str, str]) -> None:
    if error.args and isinstance(error.args[0], str):
        error.args = (translate(error.args[0], names), *error.args[1:])

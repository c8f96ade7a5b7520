"""The C engine. Private to ps3c: its classes are what users call.

Tensors are torch tensors, read and written in place through DLPack, or NumPy arrays, where uint16 is bfloat16. Letters
in shapes as in csrc/ps3c.h: B images, C width, S scales above the lowest.

Keyword arguments of plan and run are the rows of tables in csrc/binding, named beside them. They are not repeated here.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_Level = str  # one of cpu_levels()

@final
class VisionModel:
    """A vision encoder's sizes: keys of config are the fields of ps3c_vision_config. Holds no weights."""

    def __new__(cls, config: dict[str, Any]) -> VisionModel: ...
    @property
    def weights(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def plan(
        self,
        batch: int,
        height: int,
        width: int,
        **request: Any,  # ps3c_vision_request_fields in csrc/binding/vision.c
    ) -> VisionPlan: ...

@final
class VisionPlan:
    """One forward pass's integers. Immutable; any number of threads may run it at once."""

    @property
    def workspace_bytes(self) -> int: ...
    @property
    def hidden_states(self) -> int: ...
    @property
    def low_res_tokens(self) -> int: ...
    @property
    def selected_tokens(self) -> int: ...
    @property
    def looks(self) -> int: ...
    @property
    def pooled_width(self) -> int: ...
    @property
    def image_sizes(self) -> list[tuple[int, int]]: ...
    @property
    def grids(self) -> list[tuple[int, int]]: ...
    @property
    def selection_maps(self) -> bool: ...
    @property
    def takes(self) -> list[list[list[int]]]: ...
    @property
    def steps(self) -> list[tuple[int, int, int, int]]: ...
    def rows(self, step: int, address: int, /) -> tuple[int, tuple[int, int, int]]: ...
    def run(
        self,
        weights: Sequence[Tensor],
        pixel_values: Tensor,
        **tensors: Any,  # ps3c_vision_run_fields in csrc/binding/vision.c
    ) -> None: ...
    def check(
        self,
        weights: Sequence[Tensor],
        pixel_values: Tensor,
        **tensors: Any,  # as run
    ) -> None: ...

@final
class TextModel:
    """A text tower's sizes: keys of config are the fields of ps3c_text_config. Holds no weights."""

    def __new__(cls, config: dict[str, Any]) -> TextModel: ...
    @property
    def weights(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def plan(
        self,
        batch: int,
        length: int,
        **request: Any,  # ps3c_text_request_fields in csrc/binding/text.c
    ) -> TextPlan: ...

@final
class TextPlan:
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def every_token(self) -> bool: ...
    @property
    def pooled_tokens(self) -> int: ...
    def run(
        self,
        weights: Sequence[Tensor],
        ids: Tensor,
        **tensors: Any,  # ps3c_text_run_fields in csrc/binding/text.c
    ) -> None: ...

@final
class Parameters:
    """Finds a torch.nn.Module's current Parameters by state_dict name, also after some were replaced.

    A name that is no Parameter is read as the module's attribute. check(path, module) is called for each module on the
    way, when it is first met or has been replaced; what it raises is passed on. It may return pairs (holder, key),
    items of dicts or attributes of other objects: when one changes, check is called for every module again.
    """

    def __new__(
        cls, module: Any, names: Sequence[str], check: Callable[[str, Any], object] | None = None
    ) -> Parameters: ...
    @property
    def module(self) -> Any: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    def collect(self) -> list[Tensor]: ...

@final
class Checkpoint:
    """A checkpoint folder (csrc/ps3c_model.h). Arrays are views of the mapped files; bfloat16 is uint16.

    ValueError: a file is missing or damaged; the message names the file and the field, and not the folder.
    """

    def __new__(cls, folder: str | os.PathLike[str], dtype: str | None = None) -> Checkpoint: ...
    @property
    def vision(self) -> dict[str, Any]: ...
    @property
    def text(self) -> dict[str, Any] | None: ...
    @property
    def preprocessing(self) -> dict[str, Any]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def vision_weights(self) -> list[NDArray[Any]]: ...
    @property
    def text_weights(self) -> list[NDArray[Any]]: ...
    def tensors(self) -> dict[str, NDArray[Any] | None]: ...
    def check(self) -> None: ...

def trunks() -> list[tuple[str, int, int, int, float, int, int, bool, str]]:
    """The known trunks: name, width, depth, heads, mlp_ratio, patch, img_size, class_token, gelu."""

def cpu_levels() -> list[_Level]:
    """Instruction sets that this processor can run, best first."""

def cpu_level() -> _Level:
    """The instruction set in use: the best, or what PS3C_CPU_LEVEL names."""

def cuda_error(index: int = 0) -> str | None:
    """Why a CUDA device cannot be used; None when it can."""

def cuda_refused_products() -> int:
    """Products so far that cuBLASLt refused and a slow kernel computed instead; RuntimeError without the library."""

def image_normalize(
    pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(pixels / 255 - mean) / std of (H, W, 3 or 4) as (3, H, W); a fourth channel is skipped."""

def image_resize_columns(
    pixels: NDArray[np.uint8],
    filter: Literal["bilinear", "bicubic"],
    out: NDArray[np.uint8],
    *,
    threads: int = 0,
    level: str | None = None,
) -> None:
    """Rows of (H, W, 3 or 4) to the width of out, (H, any, 4), whose fourth byte means nothing."""

def image_resize_rows(
    pixels: NDArray[np.uint8],
    filter: Literal["bilinear", "bicubic"],
    height: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    threads: int = 0,
    level: str | None = None,
) -> NDArray[np.float32]:
    """(H, W, 4) to another height, as (3, height, W): (v / 255 - mean) / std of each byte v."""

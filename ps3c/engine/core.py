"""ps3c._core, imported here and nowhere else: the engine's models, plans and functions. Needs no torch."""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import words

if TYPE_CHECKING:
    from .. import _core
else:
    try:  # by name: the message of `from .. import _core` would speak of a circular import
        _core = importlib.import_module("ps3c._core")
    except ImportError as error:
        raise ImportError(
            f"ps3c's compiled part, ps3c._core, cannot be loaded ({error}). If this is ps3c's source folder, start "
            "Python in another folder, or type `pip install -e .` here to build it in place"
        ) from error

FOLDER = os.path.dirname(_core.__file__)  # of the compiled part, and of the CUDA library where there is one

Checkpoint = _core.Checkpoint
Parameters = _core.Parameters
cpu_level = _core.cpu_level
cpu_levels = _core.cpu_levels
cuda_error = _core.cuda_error
image_normalize = _core.image_normalize
image_resize_columns = _core.image_resize_columns
image_resize_rows = _core.image_resize_rows
trunks = _core.trunks


class Model:
    """A model's sizes in the engine. Holds no weights. VisionModel and TextModel are its kinds.

    Args:
        config: keys are the fields of ps3c_vision_config or ps3c_text_config.

    Raises:
        ValueError, TypeError: sizes that do not go together; the message names the field in Python's words.
    """

    _KIND: Any
    _WORDS: Mapping[str, str]
    _REQUEST_WORDS: Mapping[str, str]

    def __init__(self, config: dict[str, Any]):
        with words.translated(self._WORDS):
            self._model = self._KIND(config)

    @property
    def weights(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        """Name and shape of each weight, in the order of Plan.run's `weights`."""
        return self._model.weights

    def plan(self, *sizes: int, **request: Any) -> "Plan":
        """The plan of one pass. sizes, request: as _core's `plan`, whose fields are those of the request's struct."""
        with words.translated(self._REQUEST_WORDS):
            return Plan(self._model.plan(*sizes, **request), self._WORDS)


class VisionModel(Model):
    _KIND, _WORDS, _REQUEST_WORDS = _core.VisionModel, words.VISION, words.VISION_REQUEST


class TextModel(Model):
    _KIND, _WORDS, _REQUEST_WORDS = _core.TextModel, words.TEXT, words.TEXT_REQUEST


class Plan:
    """The integers of one pass, as attributes: those of _core's VisionPlan or TextPlan. Immutable."""

    __slots__ = ("_plan", "_words")

    def __init__(self, plan: Any, names: Mapping[str, str]):
        self._plan, self._words = plan, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def run(self, *tensors: Any, **arguments: Any) -> None:
        """_core's `run`. Raises what the engine raises, with the message in Python's words."""
        try:  # without a context manager, which would cost microseconds at each call
            self._plan.run(*tensors, **arguments)
        except Exception as error:
            words.translate_error(error, self._words)
            raise

    def check(self, *tensors: Any, **arguments: Any) -> None:
        """_core's `check`: raises what run would raise for its tensors, and runs nothing."""
        with words.translated(self._words):
            self._plan.check(*tensors, **arguments)

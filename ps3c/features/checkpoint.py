"""Checks a checkpoint folder before a model is built. Each fault has its own error message."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

from ..errors import CheckpointError
from .checkpoint_config import check_config
from .checkpoint_files import TensorInfo, check_file, check_files, read_infos, read_json, read_tensors, weight_map_files
from .hub import WEIGHTS, no_folder


class Checkpoint:
    """A folder with a PS3 model's config.json and weights that can be opened and fit each other.

    Attributes:
        folder: Path. config: the content of config.json. files: paths of the weight files. tensors: the tensors in
            them, by name. names: their names.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another kind of model.
    """

    def __init__(self, folder: Union[str, "os.PathLike[str]"]):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"folder: got {type(folder).__name__}, expected a path")
        self.folder = Path(folder)
        self.config = self._read_config()
        self.files = self._find_files()
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            self.tensors.update(read_infos(self.folder, file))
        self.names = set(self.tensors)
        check_config(self)

    @property
    def has_text(self) -> bool:
        return self.config["model_type"] == "ps3" and any(name.startswith("text_model.") for name in self.tensors)

    def numbers(self, names: Iterable[str]) -> dict[str, float]:
        """Values, by name, of those tensors in `names` that the weight files have and that have one element."""
        found: dict[str, float] = {}
        wanted = self.names.intersection(names)
        for file in self.files if wanted else ():
            for name, tensor in read_tensors(self.folder, file, wanted).items():
                if tensor.numel() == 1:
                    found[name] = float(tensor)
        return found

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(self.folder, reason)

    def _read_config(self) -> dict[str, Any]:
        if not os.path.exists(self.folder):
            raise no_folder(self.folder)
        if not self.folder.is_dir():
            raise self._error("got a file, expected a checkpoint folder")
        path = self.folder / "config.json"
        if not os.path.lexists(path):
            raise self._error("has no config.json, so it is not a checkpoint folder")
        check_files(self.folder)
        config = read_json(self.folder, path)
        kind = config.get("model_type")
        if kind == "ps3_text_model":
            raise self._error(
                "config.json: got model_type 'ps3_text_model', a text tower only, expected 'ps3' or 'ps3_vision_model'"
            )
        if kind not in ("ps3", "ps3_vision_model"):
            raise self._error(f"config.json: got model_type {kind!r:.80}, expected 'ps3' or 'ps3_vision_model'")
        return config

    def _find_files(self) -> list[Path]:
        for name in WEIGHTS:
            path = self.folder / name
            if os.path.lexists(path):
                check_file(self.folder, path)
                return [path]
            index = self.folder / f"{name}.index.json"
            if os.path.lexists(index):
                return weight_map_files(self.folder, index, path.suffix)
        raise self._error(f"has no weights, expected {' or '.join(WEIGHTS)}")

"""Checks a checkpoint folder before a model is built. Each fault has its own error message."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, short_reason

# In the order in which transformers looks for them. Each is a single file, or an index that lists several files.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LFS_POINTER = b"version https://git-lfs"


class Checkpoint:
    """A folder with a PS3 model's config.json and weights that can be opened.

    Attributes:
        folder: Path. config: the content of config.json. files: paths of the weight files. names: names of the tensors
            in them.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another kind of model.
    """

    def __init__(self, folder: Union[str, "os.PathLike[str]"]):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"folder: got {type(folder).__name__}, expected a path")
        self.folder = Path(folder)
        self.config = self._read_config()
        self.files = self._find_files()
        self.names: set[str] = set()
        for file in self.files:
            self.names |= self._read_names(file)

    @property
    def has_text(self) -> bool:
        return self.config["model_type"] == "ps3" and any(name.startswith("text_model.") for name in self.names)

    def numbers(self, names: Iterable[str]) -> dict[str, float]:
        """Values, by name, of those tensors in `names` that the weight files have and that have one element."""
        found: dict[str, float] = {}
        wanted = self.names.intersection(names)
        for file in self.files if wanted else ():
            for name, tensor in _tensors(file, wanted).items():
                if tensor.numel() == 1:
                    found[name] = float(tensor)
        return found

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(self.folder, reason)

    def _read_config(self) -> dict[str, Any]:
        if not self.folder.exists():
            hint = ""
            if len(self.folder.parts) == 2 and not self.folder.is_absolute():  # such as nvidia/PS3-4K-SigLIP2
                hint = f"; to download a model of the Hugging Face hub, type: hf download {self.folder}"
            raise self._error("the folder does not exist" + hint)
        if not self.folder.is_dir():
            raise self._error("got a file, expected a checkpoint folder")
        path = self.folder / "config.json"
        if not path.exists():
            raise self._error("has no config.json, so it is not a checkpoint folder")
        config = self._read_json(path)
        kind = config.get("model_type")
        if kind == "ps3_text_model":
            raise self._error(
                "config.json: got model_type 'ps3_text_model', a text tower only, expected 'ps3' or 'ps3_vision_model'"
            )
        if kind not in ("ps3", "ps3_vision_model"):
            raise self._error(f"config.json: got model_type {kind!r}, expected 'ps3' or 'ps3_vision_model'")
        return config

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise self._error(f"{path.name} cannot be read: {short_reason(error)}") from error
        if not isinstance(content, dict):
            raise self._error(f"{path.name}: got a JSON value of type {type(content).__name__}, expected an object")
        return content

    def _find_files(self) -> list[Path]:
        for name in WEIGHTS:
            if (self.folder / name).exists():
                return [self.folder / name]
            index = self.folder / f"{name}.index.json"
            if index.exists():
                weight_map = self._read_json(index).get("weight_map")
                if not isinstance(weight_map, dict) or not weight_map:
                    raise self._error(f"{index.name} has no weight_map")
                parts = sorted(set(weight_map.values()))
                for part in parts:
                    if not (self.folder / part).exists():
                        raise self._error(f"{part} is missing, one of its {len(parts)} weight files")
                return [self.folder / part for part in parts]
        raise self._error(f"has no weights, expected {' or '.join(WEIGHTS)}")

    def _read_names(self, path: Path) -> set[str]:
        """Names of the tensors in a file. Opening the file also checks that it is complete."""
        try:
            with open(path, "rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise self._error(
                        f"{path.name} is a Git LFS pointer, not the file itself; git lfs pull downloads the file"
                    )
            return _names(path)
        except (CheckpointError, MemoryError):
            raise
        except SafetensorError as error:
            raise self._error(f"{path.name} is truncated or damaged: {short_reason(error)}") from error
        except Exception as error:  # pickle, zipfile and the operating system raise many types
            raise self._error(f"{path.name} cannot be read: {short_reason(error)}") from error


def _names(path: Path) -> set[str]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    return set(_load_pickle(path))


def _tensors(path: Path, names: set[str]) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names.intersection(file.keys())}
    state = _load_pickle(path)
    return {name: state[name] for name in names.intersection(state)}


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # torch before 1.6 wrote files that cannot be memory-mapped
        return torch.load(path, map_location="cpu", weights_only=True)

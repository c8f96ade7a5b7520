"""Reads the files of a checkpoint folder with suspicion: regular files of a sane size, no pickled objects."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, short_reason

LFS_POINTER = b"version https://git-lfs"
LARGEST_JSON = 64 << 20  # bytes; the index of a model with 100,000 tensors has about 10 MB
_READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")  # suffixes of files that may be read


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is, and what it is. dtype: torch's name, such as "bfloat16"."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def check_files(folder: Path) -> None:
    """Checks every file in the folder that transformers or ps3c could read.

    Raises:
        CheckpointError: a file is not a regular file (a pipe, a device, ...), or is a link to a place outside the
            folder that is not the Hugging Face cache.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise CheckpointError(folder, f"the folder cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.endswith(_READ) and not os.path.isdir(entry.path):
            check_file(folder, folder / entry.name)


def check_file(folder: Path, path: Path) -> None:
    """check_files for one file."""
    name = path.relative_to(folder)
    try:
        mode = path.stat().st_mode
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: Python before 3.13, of a loop of links
        if not os.path.lexists(path):
            raise CheckpointError(folder, f"{name}: the file does not exist") from error
        raise CheckpointError(folder, f"{name}: got a link that leads nowhere, expected a regular file") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(folder, f"{name}: got {_kind(mode)}, expected a regular file")
    if not inside and not _is_of_hub_cache(path.resolve()):
        raise CheckpointError(
            folder,
            f"{name}: got a link to {path.resolve()}, which is outside the folder, expected a file; copy it into the "
            "folder",
        )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _is_of_hub_cache(path: Path) -> bool:
    """True for .../models--OWNER--NAME/blobs/HASH, to which the links of a snapshot in the Hugging Face cache lead."""
    return path.parent.name == "blobs" and path.parent.parent.name.startswith("models--")


def read_json(folder: Path, path: Path) -> dict[str, Any]:
    """The JSON object in a file of the folder. CheckpointError if it is not one."""
    check_file(folder, path)
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise CheckpointError(folder, f"{path.name}: got {size} bytes, expected at most {LARGEST_JSON}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise CheckpointError(folder, f"{path.name} cannot be read: its JSON is nested too deeply") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(folder, f"{path.name} cannot be read: {short_reason(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            folder, f"{path.name}: got a JSON value of type {type(content).__name__}, expected an object"
        )
    return content


def weight_map_files(folder: Path, index: Path, suffix: str) -> list[Path]:
    """The weight files that an index lists. CheckpointError: a name leads out of the folder, or there is no file."""
    weight_map = read_json(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(folder, f"{index.name} has no weight_map")
    for tensor, part in weight_map.items():
        plain = isinstance(part, str) and part.endswith(suffix) and not {"..", "", "\0"}.intersection(part.split("/"))
        if not plain or "\0" in part or "\\" in part:
            raise CheckpointError(
                folder,
                f"{index.name}: weight_map[{tensor!r:.80}]: got {part!r:.80}, expected the name of a {suffix} file in "
                "the folder",
            )
    parts = sorted(set(weight_map.values()))
    for part in parts:
        if not os.path.lexists(folder / part):
            raise CheckpointError(folder, f"{part:.80} is missing, one of its {len(parts)} weight files")
        check_file(folder, folder / part)
    return [folder / part for part in parts]


# ---- weights -------------------------------------------------------------------------------------------------------

_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_infos(folder: Path, path: Path) -> dict[str, TensorInfo]:
    """The tensors in a weight file, by name. Opening the file also checks that it is complete.

    Raises:
        CheckpointError: the file is damaged, or has something other than tensors.
    """
    with _reading(folder, path):
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise CheckpointError(
                    folder, f"{path.name} is a Git LFS pointer, not the file itself; git lfs pull downloads the file"
                )
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: _info(path, file.get_slice(name)) for name in file.keys()}
        return {
            name: TensorInfo(path, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in _load_pickle(folder, path).items()
        }


@contextmanager
def _reading(folder: Path, path: Path) -> Iterator[None]:
    """Turns the exceptions of torch, safetensors and the operating system into a CheckpointError that names path."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except SafetensorError as error:
        raise CheckpointError(folder, f"{path.name} is truncated or damaged: {short_reason(error)}") from error
    except Exception as error:  # pickle, zipfile and the operating system raise many types
        raise CheckpointError(folder, f"{path.name} cannot be read: {_without_advice(error)}") from error


def _info(path: Path, part: Any) -> TensorInfo:
    dtype = part.get_dtype()
    return TensorInfo(path, tuple(part.get_shape()), _SAFETENSORS.get(dtype, dtype.lower()))


def read_tensors(folder: Path, path: Path, names: set[str]) -> dict[str, torch.Tensor]:
    """Those tensors in `names` that the weight file has. CheckpointError: it cannot be read."""
    with _reading(folder, path):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names.intersection(file.keys())}
        state = _load_pickle(folder, path)
        return {name: state[name] for name in names.intersection(state)}


def _load_pickle(folder: Path, path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of torch.save. Other objects are never unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # torch before 1.6 wrote files that cannot be memory-mapped
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise CheckpointError(folder, f"{path.name}: got a {type(state).__name__}, expected a dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                folder, f"{path.name}: {name!r:.80}: got a {type(value).__name__}, expected a dict of tensors by name"
            )
    return state


def _without_advice(error: Exception) -> str:
    """A reason. torch's advice to load pickled objects with weights_only=False, which runs code, is left out."""
    if isinstance(error, UnpicklingError) and "weights_only" in str(error):
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]:.80})" if found else ""
        return f"it is damaged, or has objects other than tensors{what}, which ps3c does not unpickle"
    return short_reason(error)

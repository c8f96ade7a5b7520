"""Writes tensors and metadata to files: vectors to Parquet, all tensors without loss to safetensors and .npz.

A file is written in a hidden folder beside its place and then renamed. A full disk or Ctrl-C leaves nothing of it.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._extras import require
from .._temporary import temporary_folder
from ..errors import MissingExtraError, short_reason

Tensors = dict[str, torch.Tensor]
Metadata = dict[str, Any]  # values that JSON supports; "kind" is "images" or "texts"

VERSION = 1  # version of the file format
METADATA_KEY = "ps3c"  # the key of the metadata in a file; the value is JSON
BFLOAT16 = ".bfloat16"  # suffix of the names of .npz entries that store a bfloat16 tensor's bits as uint16


def write(path: Path, tensors: Tensors, metadata: Metadata, overwrite: bool) -> None:
    """Writes a file in the format of its suffix. See ImageFeatures.save."""
    write_kind = _of_ending(path, _WRITERS)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path, overwrite) as temporary:
        write_kind(temporary, tensors, {"version": VERSION, **metadata})


def read(path: Path) -> tuple[Tensors, Metadata]:
    """Reads a file that `write` wrote. The tensors are on the CPU.

    Raises:
        FileNotFoundError: the file does not exist. ValueError: the suffix is unknown, `write` did not write the file,
            or the file is damaged. MissingExtraError: the file is Parquet and pyarrow is not installed.
    """
    read_kind = _of_ending(path, _READERS)
    if not path.exists():
        raise FileNotFoundError(f"{path}: the file does not exist")
    with reading(path):
        metadata, tensors = read_kind(path)
        if metadata is None:
            raise _Foreign("ps3c did not write it")
        if metadata["version"] != VERSION:
            raise _Foreign(f"got format version {metadata['version']}, expected {VERSION}; a newer ps3c wrote it")
        return tensors(), metadata


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the various exceptions of zipfile, JSON, safetensors and Arrow into a ValueError that names path."""
    try:
        yield
    except (MemoryError, MissingExtraError):
        raise
    except _Foreign as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        raise ValueError(f"{path}: cannot be read: {short_reason(error)}") from error


class _Foreign(Exception):
    pass


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a path with the suffix of `path`. The file is renamed to path at the end, or removed after an exception.

    It is in a folder of its own, because safetensors writes another temporary file beside it.

    Raises:
        FileExistsError: path exists before or after the block, and overwrite is False. OSError: another error; the
            message names path.
    """
    _check_target(path, overwrite)
    try:
        with temporary_folder(path.parent) as folder:
            temporary = folder / f"new{path.suffix}"
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            _check_target(path, overwrite)
            _to_disk(temporary)
            temporary.chmod(mode)  # safetensors creates a new file that only its owner may read
            (os.replace if overwrite else _rename_new)(temporary, path)
    except OSError as error:
        if error.errno is None:
            if str(path) in str(error):
                raise
            raise OSError(f"{path}: {error}") from error
        # The original error names the temporary file, or no file.
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _to_disk(path: Path) -> None:
    """fsync(2): some file systems report a full or failing disk only now, and only then would the content be lost."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_new(temporary: Path, path: Path) -> None:
    """Renames, but never over a file that another process created after the last check."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise FileExistsError(f"{path}: exists; overwrite=True (--force) replaces it") from None
    except OSError:  # a file system without hard links
        os.replace(temporary, path)


def _check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: got a folder, expected a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists; overwrite=True (--force) replaces it")


def _of_ending(path: Path, table: dict[str, Callable]) -> Callable:
    if path.suffix.lower() not in table:
        raise ValueError(f"path: got {path}, expected a name that ends in {', '.join(table)}")
    return table[path.suffix.lower()]


# ---- the file formats ----------------------------------------------------------------------------------------------
# A reader returns the metadata (None if the file has none) and a function that returns the tensors.


def _write_safetensors(path: Path, tensors: Tensors, metadata: Metadata) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt", METADATA_KEY: json.dumps(metadata)})
    except SafetensorError as error:  # only its text has the system's error number
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        raise (
            OSError(int(number[1]), "") if number else OSError(f"cannot be written: {short_reason(error)}")
        ) from error


def _read_safetensors(path: Path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
        tensors = {name: file.get_tensor(name) for name in file.keys()} if text else {}
    return text and json.loads(text), lambda: tensors


def _write_npz(path: Path, tensors: Tensors, metadata: Metadata) -> None:
    arrays = {METADATA_KEY: np.array(json.dumps(metadata))}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:
            arrays[name + BFLOAT16] = tensor.view(torch.int16).numpy().view(np.uint16)
        else:
            arrays[name] = tensor.numpy()
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _read_npz(path: Path):
    def tensor(name: str, array: np.ndarray) -> tuple[str, torch.Tensor]:
        if not name.endswith(BFLOAT16):
            return name, torch.from_numpy(array)
        return name.removesuffix(BFLOAT16), torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)

    if not zipfile.is_zipfile(path):  # np.load would take it for a pickle and advise to unpickle it
        raise _Foreign("cannot be read: it is not an .npz file, or is truncated")
    with np.load(path, allow_pickle=False) as file:
        if METADATA_KEY not in file.files:
            return None, dict
        try:
            arrays = {name: file[name] for name in file.files}
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise _Foreign("has an array of Python objects, which ps3c does not unpickle") from error
            raise
    metadata = json.loads(str(arrays.pop(METADATA_KEY)))
    return metadata, lambda: dict(tensor(name, array) for name, array in arrays.items())


def _write_parquet(path: Path, tensors: Tensors, metadata: Metadata) -> None:
    """Writes the pooled vectors and the texts and, for images, names and sizes."""
    arrow = require("pyarrow", "parquet", "Parquet files")
    parquet = require("pyarrow.parquet", "parquet", "Parquet files")
    pooled = tensors["pooled"]
    values = pooled.to(torch.float32).contiguous()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(values.flatten().numpy()), values.shape[1])
    texts = arrow.array(metadata["texts"] or [None] * len(pooled), arrow.string())
    kept = {name: metadata[name] for name in ("version", "kind", "scales", "patch_size") if name in metadata}
    kept["dtype"] = str(pooled.dtype).removeprefix("torch.")
    if metadata["kind"] == "texts":
        columns = {"text": texts, "vector": vectors}
    else:
        # Strings in Parquet must be UTF-8; file names may have arbitrary bytes.
        names = [name.encode(errors="backslashreplace").decode() for name in metadata["names"]]
        columns = {
            "name": arrow.array(names, arrow.string()),
            "width": arrow.array([width for width, _ in metadata["sizes"]], arrow.int32()),
            "height": arrow.array([height for _, height in metadata["sizes"]], arrow.int32()),
            "text": texts,
            "vector": vectors,
        }
    parquet.write_table(arrow.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(kept)}), path)


def _read_parquet(path: Path):
    parquet = require("pyarrow.parquet", "parquet", "Parquet files")
    table = parquet.read_table(path)
    metadata = json.loads((table.schema.metadata or {}).get(METADATA_KEY.encode(), b"null"))
    if metadata is None:
        return None, dict
    vectors = table["vector"]
    flat = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    dtype = getattr(torch, metadata["dtype"])
    pooled = torch.from_numpy(flat.copy()).view(len(table), vectors.type.list_size).to(dtype)
    metadata["texts"] = table["text"].to_pylist()
    if metadata["kind"] == "texts":
        return metadata, lambda: {"pooled": pooled, "prompt": pooled.new_empty(len(table), 0)}
    metadata.update(
        names=table["name"].to_pylist(),
        sizes=list(zip(table["width"].to_pylist(), table["height"].to_pylist())),
        errors=[],
        grids=[],
    )
    return metadata, lambda: {"pooled": pooled}


_WRITERS: dict[str, Callable[[Path, Tensors, Metadata], None]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
_READERS: dict[str, Callable] = {".parquet": _read_parquet, ".safetensors": _read_safetensors, ".npz": _read_npz}

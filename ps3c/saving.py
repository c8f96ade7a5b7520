"""Results to files and back: Parquet for vectors, safetensors and .npz for everything, bit for bit.

A file is written under another name beside its own and renamed at the end: a full disk or Ctrl-C leaves nothing behind.
"""

import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image

from ._checkpoint import one_line
from ._extras import require
from .errors import ImageError, MissingExtraError
from .results import ImageFeatures, TextFeatures

Result = Union[ImageFeatures, TextFeatures]

VERSION = 1  # of what the files hold
WORDS = "ps3c"  # where a file keeps, as JSON, what is not a tensor
BFLOAT16 = ".bfloat16"  # ends the names of .npz entries that hold a bfloat16 tensor's bits as uint16


def save(result: Result, path: Union[str, "os.PathLike[str]"], overwrite: bool = False) -> None:
    """See ImageFeatures.save."""
    path = Path(path)
    write = _of_ending(path, _WRITERS)
    with replacing(path, overwrite) as temporary:
        write(result, temporary)


def load_features(path: Union[str, "os.PathLike[str]"]) -> Result:
    """What save wrote: ImageFeatures or TextFeatures, on the CPU.

    Raises:
        FileNotFoundError: no such file. ValueError: another ending, or a file that save did not write or that is damaged.
        MissingExtraError: a Parquet file, without pyarrow.
    """
    path = Path(path)
    read = _of_ending(path, _READERS)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        words, tensors = read(path)
        if words is None:
            raise _Foreign("ps3c did not write it")
        if words["version"] != VERSION:
            raise _Foreign(f"is of version {words['version']}, expected {VERSION}: a newer ps3c wrote it")
        return _join(tensors(), words)
    except (MemoryError, MissingExtraError):
        raise
    except _Foreign as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # of zip, JSON, safetensors and Arrow, all of which differ
        raise ValueError(f"{path}: cannot be read: {one_line(error)}") from error


class _Foreign(Exception):
    pass


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside path, which becomes path when the block ends well, and is removed when it does not.

    Raises:
        FileExistsError: path exists, before or after, and is not to be overwritten. OSError: it names path.
    """
    _check_target(path, overwrite)
    try:
        temporary = path.with_name(f".ps3c-{secrets.token_hex(8)}{path.suffix}")
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            yield temporary
            _check_target(path, overwrite)
            temporary.chmod(mode)  # safetensors makes a file of its own, which nobody else may read
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None:
            raise
        # The original one names the temporary file, or none.
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists; overwrite=True (--force) replaces it")


def _of_ending(path: Path, table: dict[str, Callable]) -> Callable:
    if path.suffix.lower() not in table:
        raise ValueError(f"path: got {path}, expected an ending of {', '.join(table)}")
    return table[path.suffix.lower()]


# ---- a result as tensors and words -----------------------------------------------------------------------------------


def _split(result: Result) -> tuple[dict[str, torch.Tensor], str]:
    """A result's tensors by name, contiguous on the CPU, and the rest as JSON."""
    tensors: dict[str, torch.Tensor] = {"pooled": result.pooled}
    words: dict[str, Any] = {"version": VERSION}
    if isinstance(result, TextFeatures):
        tensors["prompt"] = result.prompt
        words.update(kind="texts", texts=result.texts)
    else:
        for name in ("tokens", "positions", "look"):
            if getattr(result, name) is not None:
                tensors[name] = getattr(result, name)
        for name in ("selection_maps", "selection_probs"):
            for scale, values in enumerate(getattr(result, name) or (), start=1):
                tensors[f"{name}.{scale}"] = values
        for index, image in enumerate(result.thumbnails):
            tensors[f"thumbnails.{index}"] = _png(image)
        for name in ("names", "sizes", "texts", "scales", "patch_size", "grids"):
            words[name] = getattr(result, name)
        words.update(kind="images", errors=[[error.name, error.reason] for error in result.errors])
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, json.dumps(words)


def _join(tensors: dict[str, torch.Tensor], words: dict[str, Any]) -> Result:
    if words["kind"] == "texts":
        return TextFeatures(words["texts"], tensors["pooled"], tensors["prompt"])

    def numbered(name: str, first: int) -> list[torch.Tensor]:
        count = sum(other.startswith(f"{name}.") for other in tensors)
        return [tensors[f"{name}.{number}"] for number in range(first, first + count)]

    return ImageFeatures(
        names=words["names"],
        sizes=[tuple(size) for size in words["sizes"]],
        pooled=tensors["pooled"],
        tokens=tensors.get("tokens"),
        positions=tensors.get("positions"),
        look=tensors.get("look"),
        selection_maps=numbered("selection_maps", 1) or None,
        selection_probs=numbered("selection_probs", 1) or None,
        texts=words["texts"],
        scales=words["scales"],
        patch_size=words["patch_size"],
        errors=[ImageError(*error) for error in words["errors"]],
        thumbnails=[_from_png(data) for data in numbered("thumbnails", 0)],
        grids=[tuple(grid) for grid in words["grids"]],
    )


def _png(image: Image.Image) -> torch.Tensor:
    """An image's PNG file as (bytes,) uint8."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_png(data: torch.Tensor) -> Image.Image:
    with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
        return image.convert("RGB")


# ---- the kinds of files: each reader gives the words, None where there are none, and a function for the tensors --------


def _write_safetensors(result: Result, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors, words = _split(result)
    try:
        save_file(tensors, path, metadata={"format": "pt", WORDS: words})
    except SafetensorError as error:  # hides the system's error in its text
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        raise (OSError(int(number[1]), "") if number else OSError(f"cannot be written: {one_line(error)}")) from error


def _read_safetensors(path: Path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        words = (file.metadata() or {}).get(WORDS)
        tensors = {name: file.get_tensor(name) for name in file.keys()} if words else {}
    return words and json.loads(words), lambda: tensors


def _write_npz(result: Result, path: Path) -> None:
    tensors, words = _split(result)
    arrays = {WORDS: np.array(words)}
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

    with np.load(path, allow_pickle=False) as file:
        if WORDS not in file.files:
            return None, dict
        arrays = {name: file[name] for name in file.files}
    words = json.loads(str(arrays.pop(WORDS)))
    return words, lambda: dict(tensor(name, array) for name, array in arrays.items())


def _write_parquet(result: Result, path: Path) -> None:
    arrow = require("pyarrow", "parquet", "Parquet files")
    parquet = require("pyarrow.parquet", "parquet", "Parquet files")
    values = result.pooled.detach().to("cpu", torch.float32).contiguous()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(values.flatten().numpy()), values.shape[1])
    texts = arrow.array(result.texts or [None] * len(result), arrow.string())
    words: dict[str, Any] = {"version": VERSION, "dtype": str(result.pooled.dtype).removeprefix("torch.")}
    if isinstance(result, TextFeatures):
        words["kind"] = "texts"
        columns = {"text": texts, "vector": vectors}
    else:
        words.update(kind="images", scales=result.scales, patch_size=result.patch_size)
        # Parquet's strings are UTF-8, names on a disk need not be.
        names = [name.encode(errors="backslashreplace").decode() for name in result.names]
        columns = {
            "name": arrow.array(names, arrow.string()),
            "width": arrow.array([width for width, _ in result.sizes], arrow.int32()),
            "height": arrow.array([height for _, height in result.sizes], arrow.int32()),
            "text": texts,
            "vector": vectors,
        }
    parquet.write_table(arrow.table(columns).replace_schema_metadata({WORDS: json.dumps(words)}), path)


def _read_parquet(path: Path):
    parquet = require("pyarrow.parquet", "parquet", "Parquet files")
    table = parquet.read_table(path)
    words = json.loads((table.schema.metadata or {}).get(WORDS.encode(), b"null"))
    if words is None:
        return None, dict
    vectors = table["vector"]
    flat = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    pooled = torch.from_numpy(flat.copy()).view(len(table), vectors.type.list_size).to(getattr(torch, words["dtype"]))
    words["texts"] = table["text"].to_pylist()
    if words["kind"] == "texts":
        return words, lambda: {"pooled": pooled, "prompt": pooled.new_empty(len(table), 0)}
    words.update(
        names=table["name"].to_pylist(),
        sizes=list(zip(table["width"].to_pylist(), table["height"].to_pylist())),
        errors=[],
        grids=[],
    )
    return words, lambda: {"pooled": pooled}


_WRITERS: dict[str, Callable[[Result, Path], None]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
_READERS: dict[str, Callable] = {".parquet": _read_parquet, ".safetensors": _read_safetensors, ".npz": _read_npz}

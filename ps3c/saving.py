"""Results to files and back: Parquet for vectors, safetensors and .npz for everything.

A file is written under a temporary name beside its own and renamed at the end: a full disk leaves nothing behind.
"""

import io
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple, Union

import numpy as np
import torch
from PIL import Image

from . import _extras
from .errors import ImageError
from .results import ImageFeatures, TextFeatures

Result = Union[ImageFeatures, TextFeatures]
VERSION = 1


def save(result: Result, path: Union[str, "os.PathLike[str]"], overwrite: bool) -> None:
    """See ImageFeatures.save."""
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"path: got {path}, expected an ending of {', '.join(_WRITERS)}")
    with replacing(path, overwrite) as temporary:
        write(result, temporary)


def load_features(path: Union[str, "os.PathLike[str]"]) -> Result:
    """What save() wrote.

    Raises:
        FileNotFoundError: no such file. ValueError: another ending, or a file that save() did not write.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"path: got {path}, expected an ending of {', '.join(_READERS)}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    return read(path)


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside path, which becomes path when the block ends well, and is removed when it does not."""
    if not overwrite and path.exists():
        raise FileExistsError(f"{path}: exists; overwrite=True (--force) replaces it")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # as open() would have made it
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- tensors and words -------------------------------------------------------------------------------------------


def _split(result: Result) -> Tuple[Dict[str, torch.Tensor], Dict[str, Any]]:
    """A result's tensors by name, and the rest, which JSON can hold."""
    if isinstance(result, TextFeatures):
        return {"pooled": result.pooled, "prompt": result.prompt}, {"kind": "texts", "texts": result.texts}
    tensors = {"pooled": result.pooled}
    for name in ("tokens", "positions", "look"):
        if getattr(result, name) is not None:
            tensors[name] = getattr(result, name)
    for name in ("selection_maps", "selection_probs"):
        for scale, values in enumerate(getattr(result, name) or (), 1):
            tensors[f"{name}.{scale}"] = values
    for index, image in enumerate(result.thumbnails):
        tensors[f"thumbnails.{index}"] = _png_bytes(image)
    words = {
        "kind": "images",
        "names": result.names,
        "sizes": result.sizes,
        "texts": result.texts,
        "scales": result.scales,
        "patch_size": result.patch_size,
        "grids": result.grids,
        "errors": [[error.name, error.reason] for error in result.errors],
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, words


def _join(tensors: Dict[str, torch.Tensor], words: Dict[str, Any]) -> Result:
    if words["kind"] == "texts":
        return TextFeatures(words["texts"], tensors["pooled"], tensors["prompt"])

    def numbered(name: str, first: int):
        values = []
        while f"{name}.{first + len(values)}" in tensors:
            values.append(tensors[f"{name}.{first + len(values)}"])
        return values

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


def _png_bytes(image: Image.Image) -> torch.Tensor:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_png(data: torch.Tensor) -> Image.Image:
    image = Image.open(io.BytesIO(data.numpy().tobytes()))
    image.load()
    return image.copy()


# ---- safetensors -------------------------------------------------------------------------------------------------


def _write_safetensors(result: Result, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors, words = _split(result)
    metadata = {"format": "pt", "ps3c": json.dumps({"version": VERSION, **words})}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written: {error}") from error


def _read_safetensors(path: Path) -> Result:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            words = (file.metadata() or {}).get("ps3c")
            if words is None:
                raise ValueError(f"{path}: has no ps3c metadata, so ps3c did not write it")
            return _join({name: file.get_tensor(name) for name in file.keys()}, json.loads(words))
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


# ---- npz ---------------------------------------------------------------------------------------------------------


def _write_npz(result: Result, path: Path) -> None:
    tensors, words = _split(result)
    arrays = {"ps3c": np.array(json.dumps({"version": VERSION, **words}))}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bfloat16:  # which NumPy lacks
            arrays[f"{name}.bfloat16"] = tensor.view(torch.int16).numpy().view(np.uint16)
        else:
            arrays[name] = tensor.numpy()
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _read_npz(path: Path) -> Result:
    with np.load(path, allow_pickle=False) as arrays:
        if "ps3c" not in arrays:
            raise ValueError(f"{path}: has no entry ps3c, so ps3c did not write it")
        tensors = {}
        for name in arrays.files:
            if name.endswith(".bfloat16"):
                bits = torch.from_numpy(arrays[name].view(np.int16))
                tensors[name[: -len(".bfloat16")]] = bits.view(torch.bfloat16)
            elif name != "ps3c":
                tensors[name] = torch.from_numpy(arrays[name])
        return _join(tensors, json.loads(str(arrays["ps3c"])))


# ---- Parquet -----------------------------------------------------------------------------------------------------


def _write_parquet(result: Result, path: Path) -> None:
    arrow = _extras.require("pyarrow", "parquet", "Parquet files")
    parquet = _extras.require("pyarrow.parquet", "parquet", "Parquet files")
    values = result.pooled.detach().to("cpu", torch.float32).contiguous()
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(values.numpy().reshape(-1)), values.shape[1])
    words: Dict[str, Any] = {"version": VERSION, "dtype": str(result.pooled.dtype)[len("torch."):]}
    if isinstance(result, TextFeatures):
        columns = {"text": arrow.array(result.texts, arrow.string()), "vector": vectors}
        words["kind"] = "texts"
    else:
        columns = {
            "name": arrow.array(result.names, arrow.string()),
            "width": arrow.array([width for width, _ in result.sizes], arrow.int32()),
            "height": arrow.array([height for _, height in result.sizes], arrow.int32()),
            "text": arrow.array(result.texts, arrow.string()),
            "vector": vectors,
        }
        words.update(kind="images", scales=result.scales, patch_size=result.patch_size)
    table = arrow.table(columns).replace_schema_metadata({"ps3c": json.dumps(words)})
    parquet.write_table(table, path)


def _read_parquet(path: Path) -> Result:
    parquet = _extras.require("pyarrow.parquet", "parquet", "Parquet files")
    table = parquet.read_table(path)
    words = json.loads((table.schema.metadata or {}).get(b"ps3c", b"null"))
    if words is None:
        raise ValueError(f"{path}: has no ps3c metadata, so ps3c did not write it")
    vector = table.column("vector")
    flat = vector.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    pooled = torch.from_numpy(np.array(flat)).reshape(len(table), vector.type.list_size)
    pooled = pooled.to(getattr(torch, words["dtype"]))
    texts = table.column("text").to_pylist()
    if words["kind"] == "texts":
        return TextFeatures(texts, pooled, pooled.new_empty(len(texts), 0))
    sizes = list(zip(table.column("width").to_pylist(), table.column("height").to_pylist()))
    return ImageFeatures(
        table.column("name").to_pylist(), sizes, pooled, texts=texts, scales=words["scales"],
        patch_size=words["patch_size"],
    )  # fmt: skip


_WRITERS: Dict[str, Callable[[Result, Path], None]] = {
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
_READERS: Dict[str, Callable[[Path], Result]] = {
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}

"""Reads and writes features, in one file or in a folder of files. Refuses to overwrite a file without --force."""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _extras
from .._arguments import Looks
from .._temporary import remove_stale
from . import _console
from ._errors import CommandError, UsageError, one_line
from ._lock import locked

SUFFIXES = (".parquet", ".safetensors", ".npz")
_SHARD = re.compile(r"\d{5,}\.safetensors")


def check_suffix(path: str) -> None:
    """Checks the suffix of a file name.

    Raises:
        UsageError: the suffix is unknown. MissingExtraError: the format needs a package that is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"-o: got {path!r}, expected a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        _extras.require("pyarrow.parquet", "parquet", "Parquet files")


def refuse_existing(path: str, force: bool, hint: str = "") -> None:
    """Raises CommandError if path exists and force is False, or if its folder does not exist or is read-only.

    Called before the model is loaded, so that no work is lost.
    """
    if os.path.isdir(path):
        raise CommandError(f"{path}: got a folder, expected a file name")
    if os.path.exists(path) and not force:
        raise CommandError(f"{path}: exists; --force overwrites it{hint}")
    _check_folder(path)


def _check_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise CommandError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path}: the folder {folder} cannot be written to")


# ---- reading --------------------------------------------------------------------------------------------------------


def read_vectors(path: str) -> tuple[list[str], Any]:
    """Names and pooled vectors (N, C) of images, from one file or from all shards of a folder."""
    import torch

    files = _shards(Path(path)) if os.path.isdir(path) else [Path(path)]
    if not files:
        raise CommandError(f"{path}: has no feature files (named 00000.safetensors, 00001.safetensors, ...)")
    names: list[str] = []
    vectors = []
    for file in files:
        features = _load(file)
        names += features.names
        vectors.append(features.pooled)
    return names, torch.cat(vectors)


def _load(path: Path) -> Any:
    """The ImageFeatures in a file. CommandError if it has none."""
    from ..features.results import ImageFeatures, load_features

    try:
        features = load_features(path)
    except (ValueError, KeyError, EOFError) as error:  # may come from the file format's library, without the file name
        message = one_line(error)
        raise CommandError(
            message if str(path) in message else f"{path}: cannot be read as features: {message}"
        ) from error
    if not isinstance(features, ImageFeatures):
        raise CommandError(f"{path}: got vectors of texts, expected vectors of images")
    return features


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


# ---- writing as results come ----------------------------------------------------------------------------------------


class Output:
    """Collects ImageFeatures and writes them to the disk from time to time, so that an interrupted run loses little.

    A single file is written again as a whole, under a temporary name first. A folder gets one more file each time.
    `resume` reads the results of an earlier run. `names` are the images that the output has.
    """

    # Seconds between two writes. It is 20 times the duration of the last write if that is longer.
    EVERY = 60.0
    # Most bytes of parts that are joined. Thousands of small parts would lie between the freed buffers of the images,
    # and the heap could not shrink.
    PART_BYTES = 1 << 24

    def __init__(self, path: str):
        self.path = Path(path)
        self.names: set[str] = set()
        self.parts: list[Any] = []
        self._tokens: int | None = None  # per image; None without tokens
        self._changed, self._next = False, time.monotonic() + self.EVERY

    def add(self, features: Any) -> None:
        """Adds ImageFeatures of one or more images. CommandError if their number of tokens differs from the earlier."""
        tokens = _token_count(features)
        if self.names and tokens != self._tokens:
            raise CommandError(
                f"{self.path}: --resume: got {self._tokens} tokens per image in the file, expected {tokens} as in this "
                "run; --force starts again"
            )
        self._tokens = tokens
        self.parts.append(features.to("cpu"))
        self._changed = True
        self._merge()
        self.names.update(features.names)
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Writes new parts to the disk. OSError if that fails; files that were already written remain."""
        if not self._changed:
            return
        begin = time.monotonic()
        self._write()
        self._changed = False
        now = time.monotonic()
        self._next = now + max(self.EVERY, 20 * (now - begin))

    def _merge(self) -> None:
        """Joins the last parts while they are small, each time with one of about its size."""
        from ..features.results import ImageFeatures

        while len(self.parts) > 1 and len(self.parts[-2]) <= len(self.parts[-1]):
            if _bytes(self.parts[-2]) + _bytes(self.parts[-1]) > self.PART_BYTES:
                return
            self.parts[-2:] = [ImageFeatures.concatenate(self.parts[-2:])]

    @property
    def folder(self) -> Path:
        """The folder in which files are written; it may not exist yet."""
        return self.path.parent

    def _write(self) -> None:
        raise NotImplementedError

    def resume(self, like: dict, looks: Looks, num_tokens: Looks) -> None:
        """Reads the results of an earlier run. CommandError if their kind differs from `like`, or the looks differ."""
        raise NotImplementedError


class FileOutput(Output):
    def __init__(self, path: str, replace: bool):
        super().__init__(path)
        self._replace = replace  # False until the first write: the file is new then

    def _write(self) -> None:
        from ..features.results import ImageFeatures

        self.parts = [ImageFeatures.concatenate(self.parts)]
        self.parts[0].save(self.path, overwrite=self._replace)
        self._replace = True

    def resume(self, like: dict, looks: Looks, num_tokens: Looks) -> None:
        if self.path.exists():
            features = _read(self.path, like, looks, num_tokens)
            self.parts = [features]
            self.names, self._tokens = set(features.names), _token_count(features)


class FolderOutput(Output):
    """A folder of files 00000.safetensors, 00001.safetensors, ... Memory holds the content of one file at a time."""

    IMAGES, BYTES = 1024, 1 << 29

    def __init__(self, path: str, replace: bool):
        super().__init__(path)
        self._number, self._replace = 0, replace

    @property
    def folder(self) -> Path:
        return self.path

    def add(self, features: Any) -> None:
        super().add(features)
        size = sum(map(_bytes, self.parts))
        if size >= self.BYTES or sum(map(len, self.parts)) >= self.IMAGES:
            self.write()

    def _write(self) -> None:
        from ..features.results import ImageFeatures

        self.path.mkdir(exist_ok=True)
        for shard in _shards(self.path) if self._replace else ():  # only now: the run could have failed before
            shard.unlink()
        self._replace = False
        ImageFeatures.concatenate(self.parts).save(self.path / f"{self._number:05}.safetensors")
        self._number += 1
        self.parts = []

    def resume(self, like: dict, looks: Looks, num_tokens: Looks) -> None:
        for shard in _shards(self.path) if self.path.is_dir() else []:
            features = _read(shard, like, looks, num_tokens)
            self.names.update(features.names)
            self._tokens, self._number = _token_count(features), int(shard.stem) + 1


@contextmanager
def exclusive_output(path: str, force: bool, resume: bool) -> Iterator[Output]:
    """open_output, with the lock of the path held during the block. CommandError if another process holds it."""
    open_output(path, force, resume)  # these errors come first: without its folder there is no lock
    with locked(path):
        output = open_output(path, force, resume)  # again: another process may have just finished
        remove_stale(output.folder)
        yield output


def open_output(path: str, force: bool, resume: bool) -> Output:
    """The Output of a path: a file if it has a suffix of SUFFIXES, otherwise a folder. CommandError if it exists."""
    if Path(path).suffix.lower() in SUFFIXES:
        check_suffix(path)
        refuse_existing(path, force or resume, "; --resume adds to it")
        return FileOutput(path, replace=force or resume)
    if Path(path).suffix and not os.path.isdir(path):
        raise UsageError(
            f"-o: got {path!r}, expected a name that ends in {', '.join(SUFFIXES)}, or a name without a suffix for a "
            "folder of .safetensors files"
        )
    if os.path.exists(path) and not os.path.isdir(path):
        raise CommandError(f"{path}: got a file, expected a folder or a new name")
    _check_folder(os.path.normpath(path))
    if os.path.isdir(path) and _shards(Path(path)) and not (force or resume):
        raise CommandError(f"{path}: has features; --force overwrites them; --resume adds to them")
    return FolderOutput(path, replace=force)


def _read(path: Path, like: dict, looks: Looks, num_tokens: Looks) -> Any:
    """Reads the features of an earlier run and checks that they are of the same kind as this run's."""
    features = _load(path)
    there = {
        "channels": features.pooled.shape[1],
        "scales": list(features.scales),
        "tokens": features.tokens is not None,
        "maps": features.selection_probs is not None,
        "texts": sorted({str(text) for text in features.texts}),
    }
    for name, value in like.items():
        if len(features) and there[name] != value:
            raise CommandError(
                f"{path}: --resume: got {name} {there[name]} in the file, expected {value} as in this run; "
                "--force starts again"
            )
    if len(features) and features.tokens is not None:
        _check_looks(path, features, looks, num_tokens)
    return features


def _check_looks(path: Path, features: Any, looks: Looks, num_tokens: Looks) -> None:
    """Raises CommandError if the number of looks or patches in the file differs from this run's.

    Numbers larger than the number of patches are clamped, as in the model.
    """
    patches = [rows * columns for rows, columns in features.grids]
    low, every = patches[0], sum(patches)
    tokens = features.tokens.shape[1]
    if num_tokens is None:
        there, wanted, word = int(features.look.max()), looks or 0, "looks"
    else:
        there, wanted, word = tokens - low, num_tokens, "patches"
    enough = tokens == every and (not isinstance(wanted, int) or wanted >= there)
    if there != wanted and not enough:
        raise CommandError(
            f"{path}: --resume: got {there} {word} per image in the file, expected {wanted} as in this run; "
            "--force starts again"
        )


def _token_count(features: Any) -> int | None:
    return None if features.tokens is None else features.tokens.shape[1]


def _bytes(features: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(features))


def _tensors(features: Any) -> Iterator[Any]:
    for field in dataclasses.fields(features):
        value = getattr(features, field.name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(one, "element_size"):
                yield one


# ---- images that failed ---------------------------------------------------------------------------------------------


class Failures:
    """OUT.errors.jsonl: one line of JSON for each image that could not be used. No such image: no file."""

    SHOWN = 20  # on the terminal; the file has all of them

    def __init__(self, output: str):
        self.path = Path(output.rstrip("/") + ".errors.jsonl")
        self.count = 0
        self.path.unlink(missing_ok=True)

    def add(self, name: str, reason: str) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:  # written at once: the run may be interrupted
                file.write(json.dumps({"name": name, "error": reason}) + "\n")
        except OSError as error:  # of a write, without the name
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.count += 1
        if self.count <= self.SHOWN:
            _console.warn(f"{name if len(name) <= 300 else name[:300] + '...'}: {reason}")
        if self.count == self.SHOWN:
            _console.warn(f"more images that fail are only listed in {self.path}")

"""Files that subcommands write and read: what is refused, and features in one file or in a folder of files."""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import _extras
from .._arguments import Looks
from . import _console
from ._errors import CommandError, UsageError, one_line

SUFFIXES = (".parquet", ".safetensors", ".npz")
_SHARD = re.compile(r"\d{5,}\.safetensors")


def check_suffix(path: str) -> None:
    """UsageError for a name without a known ending. MissingExtraError: the format needs a package."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"-o: got {path!r}, expected a name that ends in {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        _extras.require("pyarrow.parquet", "parquet", "Parquet files")


def refuse_existing(path: str, force: bool, hint: str = "") -> None:
    """CommandError where path exists, or its folder does not; before any work is done."""
    if os.path.isdir(path):
        raise CommandError(f"{path}: is a folder, expected the name of a file")
    if os.path.exists(path) and not force:
        raise CommandError(f"{path}: exists; --force overwrites it{hint}")
    _check_folder(path)


def _check_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise CommandError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path}: the folder {folder} cannot be written to")


# ---- reading --------------------------------------------------------------------------------------------------------


def read_vectors(path: str) -> tuple[list[str], Any]:
    """Names and pooled vectors (N, C) of images, from one file or all shards of a folder."""
    import torch

    files = _shards(Path(path)) if os.path.isdir(path) else [Path(path)]
    if not files:
        raise CommandError(f"{path}: holds no features (files such as 00000.safetensors)")
    names: list[str] = []
    vectors = []
    for file in files:
        features = _load(file)
        names += features.names
        vectors.append(features.pooled)
    return names, torch.cat(vectors)


def _load(path: Path) -> Any:
    """ImageFeatures of a file. CommandError: it holds none."""
    from ..features.results import ImageFeatures, load_features

    try:
        features = load_features(path)
    except (ValueError, KeyError, EOFError) as error:  # which may be of the format's own reader, without the name
        message = one_line(error)
        raise CommandError(message if str(path) in message else f"{path}: holds no features: {message}") from error
    if not isinstance(features, ImageFeatures):
        raise CommandError(f"{path}: holds vectors of texts, expected images'")
    return features


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


# ---- writing as results come ----------------------------------------------------------------------------------------


class Output:
    """Collects ImageFeatures and keeps them on the disk, so that an end at any time leaves what was done.

    One file is written whole, under another name first, every minute or so and at the end; a folder gets one more file
    for each part. What `resume` found there is kept, and `names` are the images in it.
    """

    EVERY = 60.0  # seconds between two writings; twenty times as long as the last one took where that is longer

    def __init__(self, path: str):
        self.path = Path(path)
        self.names: set[str] = set()
        self.parts: list[Any] = []
        self._tokens: int | None = None  # of each image, where there are any
        self._written, self._next = 0, time.monotonic() + self.EVERY

    def add(self, features: Any) -> None:
        """features: ImageFeatures of one image or more. CommandError: with other numbers of tokens than before."""
        tokens = _token_count(features)
        if self.names and tokens != self._tokens:
            raise CommandError(
                f"{self.path}: --resume: got {self._tokens} tokens an image in it, but now there are "
                f"{tokens}; --force starts anew"
            )
        self._tokens = tokens
        self.parts.append(features.to("cpu"))
        self.names.update(features.names)
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Writes new parts to the disk. OSError: a full disk, say; what was written before stays."""
        if self._written == len(self.parts):
            return
        begin = time.monotonic()
        self._write()
        self._written = len(self.parts)
        now = time.monotonic()
        self._next = now + max(self.EVERY, 20 * (now - begin))

    def _write(self) -> None:
        raise NotImplementedError

    def resume(self, like: dict, looks: Looks, num_tokens: Looks) -> None:
        """Takes over what is there. CommandError: it is of another kind than `like` says, or of other looks."""
        raise NotImplementedError


class FileOutput(Output):
    def _write(self) -> None:
        from ..features.results import ImageFeatures

        self.parts = [ImageFeatures.concatenate(self.parts)]
        self.parts[0].save(self.path, overwrite=True)

    def resume(self, like: dict, looks: Looks, num_tokens: Looks) -> None:
        if self.path.exists():
            features = _read(self.path, like, looks, num_tokens)
            self.parts, self._written = [features], 1
            self.names, self._tokens = set(features.names), _token_count(features)


class FolderOutput(Output):
    """`path` is a folder of 00000.safetensors, 00001.safetensors, ...; memory holds one of them at a time."""

    IMAGES, BYTES = 1024, 1 << 29

    def __init__(self, path: str, replace: bool):
        super().__init__(path)
        self._number, self._replace = 0, replace

    def add(self, features: Any) -> None:
        super().add(features)
        size = sum(tensor.numel() * tensor.element_size() for part in self.parts for tensor in _tensors(part))
        if size >= self.BYTES or sum(map(len, self.parts)) >= self.IMAGES:
            self.write()

    def _write(self) -> None:
        from ..features.results import ImageFeatures

        self.path.mkdir(exist_ok=True)
        for shard in _shards(self.path) if self._replace else ():  # not earlier: until now the run might have failed
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


def open_output(path: str, force: bool, resume: bool) -> Output:
    """The Output of a name: one file where it ends as files do, else a folder. CommandError where it exists already."""
    if Path(path).suffix.lower() in SUFFIXES:
        check_suffix(path)
        refuse_existing(path, force or resume, "; --resume goes on with it")
        return FileOutput(path)
    if Path(path).suffix and not os.path.isdir(path):
        raise UsageError(
            f"-o: got {path!r}, expected a name that ends in {', '.join(SUFFIXES)}, or without an ending, "
            "for a folder of .safetensors files"
        )
    if os.path.exists(path) and not os.path.isdir(path):
        raise CommandError(f"{path}: exists, and is no folder")
    _check_folder(os.path.normpath(path))
    if os.path.isdir(path) and _shards(Path(path)) and not (force or resume):
        raise CommandError(f"{path}: holds features; --force overwrites them; --resume goes on with them")
    return FolderOutput(path, replace=force)


def _read(path: Path, like: dict, looks: Looks, num_tokens: Looks) -> Any:
    """Features of an earlier run, which must be of the kind that this one makes."""
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
                f"{path}: --resume: got {name} {there[name]} in it, expected {value} as now asked for; "
                "--force starts anew"
            )
    if len(features) and features.tokens is not None:
        _check_looks(path, features, looks, num_tokens)
    return features


def _check_looks(path: Path, features: Any, looks: Looks, num_tokens: Looks) -> None:
    """CommandError: the tokens are of another number of looks than now asked for. Larger numbers are clamped."""
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
            f"{path}: --resume: got {there} {word} an image in it, expected {wanted} as now asked for; "
            "--force starts anew"
        )


def _token_count(features: Any) -> int | None:
    return None if features.tokens is None else features.tokens.shape[1]


def _tensors(features: Any) -> Iterator[Any]:
    for field in dataclasses.fields(features):
        value = getattr(features, field.name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(one, "element_size"):
                yield one


# ---- images that failed ---------------------------------------------------------------------------------------------


class Failures:
    """OUT.errors.jsonl: a line of JSON for each image that could not be used; no file where there is none."""

    def __init__(self, output: str):
        self.path = Path(output.rstrip("/") + ".errors.jsonl")
        self.count = 0
        self.path.unlink(missing_ok=True)

    def add(self, name: str, reason: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:  # at once: the run may end at any time
            file.write(json.dumps({"name": name, "error": reason}) + "\n")
        self.count += 1
        _console.warn(f"{name}: {reason}")

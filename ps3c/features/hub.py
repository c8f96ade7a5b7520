"""Models by name: finds OWNER/NAME of the Hugging Face hub in the local cache, or downloads it.

Neither torch nor huggingface_hub is imported before a name is looked for, so that `ps3c models` is quick.
"""

import difflib
import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from ..errors import CheckpointError, raise_memory_error, short_reason

# In the order in which transformers looks for them. Each is a single file, or an index that lists several files.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_CONFIG, _PROCESSOR, _TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer_config.json"
_VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
# Patterns of all files but the weights. A tokenizer may be in a subfolder.
_SMALL = (
    _CONFIG,
    _PROCESSOR,
    *(f"{name}.index.json" for name in WEIGHTS),
    *(place + name for name in (_TOKENIZER, *_VOCABULARY) for place in ("", "*/")),
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # such as nvidia/PS3-4K-SigLIP2
_PATIENCE = 5  # seconds that the hub has to answer; without a limit of its own, the system waits for minutes

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class PublishedModel:
    """A model that NVIDIA publishes. side: of the largest image, in pixels. parameters: millions. None: not known."""

    name: str
    side: int
    parameters: int | None = None
    licence: str | None = None


PUBLISHED = (
    PublishedModel("nvidia/PS3-1.5K-SigLIP", 1512, 938),
    PublishedModel("nvidia/PS3-4K-SigLIP", 3780, 1028, "NVIDIA"),
    PublishedModel("nvidia/PS3-1.5K-SigLIP2", 1512, 1196),
    PublishedModel("nvidia/PS3-4K-SigLIP2", 3780, 1286),
    PublishedModel("nvidia/PS3_Lang-1.5K-SigLIP2", 1512),
    PublishedModel("nvidia/PS3_Lang-4K-SigLIP2", 3780),
)


# ---- finding -------------------------------------------------------------------------------------------------------


def find_model(
    name_or_folder: PathLike,
    *,
    revision: str | None = None,
    cache_dir: PathLike | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: a path that exists, or the snapshot of OWNER/NAME in the cache of the Hugging Face hub.

    A complete snapshot in the cache is used without a request, so it works without a network. Otherwise the missing
    files are downloaded. HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE have the effect that huggingface_hub
    describes.

    Args:
        name_or_folder: a name is a str. A folder of that name comes first.
        revision: branch, tag or commit of a name. cache_dir: instead of the default cache. local_files_only: never
            download.

    Raises:
        CheckpointError: neither a folder, nor in the cache, nor can it be downloaded. ValueError: one of the three
            other arguments was given with a folder.
    """
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise TypeError(f"folder: got {type(name_or_folder).__name__}, expected a path")
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"revision: got {type(revision).__name__}, expected a string")
    given = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only or None}
    given = {argument: value for argument, value in given.items() if value is not None}
    folder = Path(name_or_folder)
    if os.path.exists(folder):
        for argument, value in given.items():
            raise ValueError(
                f"{argument}: got {str(value)!r:.80} with the folder {folder}, expected it only with a name on the "
                "Hugging Face hub"
            )
        return folder
    if not isinstance(name_or_folder, str) or not _is_name(name_or_folder, bool(given)):
        raise no_folder(name_or_folder)
    return _find(name_or_folder, revision, None if cache_dir is None else os.path.abspath(cache_dir), local_files_only)


def _is_name(text: str, explicit: bool) -> bool:
    """True if the hub may have a model of this name.

    If its first part is a folder here, as in tests/nowhere, a path was meant: unless `explicit`, or NVIDIA publishes
    such a model.
    """
    if not _NAME.fullmatch(text):
        return False
    if os.path.exists(text.partition("/")[0]) and not explicit and text not in _names():
        return False
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def _find(name: str, revision: str | None, cache_dir: str | None, local_files_only: bool) -> Path:
    cached = cached_folder(name, revision, cache_dir)
    if cached is not None and not lacks(cached, all_files=True):
        return cached
    failure = "the folder does not exist; " + (
        "the model is not in the local cache"
        if cached is None
        else f"the model is not complete in the local cache, which lacks {lacks(cached) or _TOKENIZER}"
    )
    try:
        if local_files_only:
            raise _NoDownload
        files = _files_of_hub(name, revision)
        failure = "the download stopped"
        return _download(name, files, revision, cache_dir)
    except CheckpointError:
        raise
    except Exception as error:  # huggingface_hub, its HTTP library and the operating system raise many types
        raise_memory_error(error)
        if cached is not None and not lacks(cached):
            return cached
        raise CheckpointError(name, _reason(error, name, revision, failure)) from error


class _NoDownload(Exception):
    """local_files_only forbids one."""


# ---- the local cache -----------------------------------------------------------------------------------------------


def cached_folder(name: str, revision: str | None = None, cache_dir: str | None = None) -> Path | None:
    """The snapshot folder of a name in the local cache, which may be incomplete. None: it has no config.json there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, _CONFIG, cache_dir=cache_dir, revision=revision)
    return Path(found).parent if isinstance(found, str) and os.path.exists(found) else None


def lacks(folder: Path, all_files: bool = False) -> str | None:
    """The name of a file that a snapshot folder lacks. None: images can be encoded, or everything if all_files."""
    for name in (_CONFIG, _PROCESSOR):
        if not os.path.exists(folder / name):
            return name
    if all_files and _model_type(folder) == "ps3" and not os.path.exists(folder / _TOKENIZER):
        return _TOKENIZER
    for name in WEIGHTS:
        if os.path.exists(folder / name):
            return None
        if os.path.exists(folder / f"{name}.index.json"):
            parts = _parts(folder / f"{name}.index.json")
            return next((part for part in parts if not os.path.exists(folder / part)), None)
    return WEIGHTS[0]


def name_of(folder: Path) -> str:
    """The name of a model for people: OWNER/NAME of a snapshot folder in the cache, else the name of the folder."""
    parts = folder.resolve().parts
    if len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1]


def _parts(index: Path) -> list[str]:
    """The weight files that an index lists. None of a damaged index: reading the checkpoint reports it."""
    weight_map = _read(index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    return sorted({name for name in names if isinstance(name, str)})


def _model_type(folder: Path) -> Any:
    return _read(folder / _CONFIG).get("model_type")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


# ---- the hub -------------------------------------------------------------------------------------------------------


def _files_of_hub(name: str, revision: str | None) -> list[str]:
    """The names of a model's files on the hub: one request, which is not repeated."""
    from huggingface_hub import HfApi, constants

    # HF_HUB_ETAG_TIMEOUT is how long the user lets huggingface_hub wait for such an answer.
    patience = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else _PATIENCE
    info = HfApi().model_info(name, revision=revision, timeout=patience)
    files = [file.rfilename for file in info.siblings or ()]
    if _CONFIG not in files:
        raise CheckpointError(name, f"has no {_CONFIG} on the Hugging Face hub, so it is not a model for ps3c")
    return files


def _download(name: str, files: list[str], revision: str | None, cache_dir: str | None) -> Path:
    """Downloads into the cache what is missing there. The weights come last: they are large.

    In this thread, one after the other: Ctrl-C would have to wait for the threads of snapshot_download.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, allow_patterns=list(_SMALL)))
    # Of another model, nothing more is downloaded: reading the checkpoint refuses it.
    if _model_type(folder) in ("ps3", "ps3_vision_model"):
        for file in _weight_files(folder, files):
            hf_hub_download(name, file, revision=folder.name, cache_dir=cache_dir)
    return folder


def _weight_files(folder: Path, files: list[str]) -> list[str]:
    """The weights to download: no pickled ones if there are others."""
    for name in WEIGHTS:
        if name in files:
            return [name]
        if f"{name}.index.json" in files:
            return [part for part in _parts(folder / f"{name}.index.json") if part in files]
    return []


# ---- messages ------------------------------------------------------------------------------------------------------


def no_folder(folder: PathLike) -> CheckpointError:
    """The error for a folder that does not exist, with what the user may have meant."""
    return CheckpointError(Path(folder), "the folder does not exist" + _hint(folder))


def _hint(folder: PathLike) -> str:
    text = os.fspath(folder)
    if text.startswith("~"):
        return f"; only a shell replaces ~ by the home folder, expected a path such as {Path.home() / 'models'}"
    if not isinstance(folder, str) and _NAME.fullmatch(text):
        return "; a name on the Hugging Face hub must be a string"
    return _suggestion(text)


def _suggestion(text: str) -> str:
    """The published model that the user may have meant, if any."""
    known = {variant.lower(): name for name in _names() for variant in (name, name.partition("/")[2])}
    close = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.9) if len(text) < 80 else []
    return f"; the Hugging Face hub has a model {known[close[0]]}" if close and known[close[0]] != text else ""


def _names() -> list[str]:
    return [model.name for model in PUBLISHED]


def _reason(error: Exception, name: str, revision: str | None, failure: str) -> str:
    """Why a model cannot be downloaded, in one line. failure: what to say of an error without a meaning of its own."""
    chain = list(_chain(error))
    # By name: the classes are in other modules in other versions of huggingface_hub.
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    codes = (getattr(getattr(one, "response", None), "status_code", None) for one in chain)
    status = next((code for code in codes if code is not None), None)
    login = "set HF_TOKEN or type: hf auth login"
    if "_NoDownload" in kinds or "OfflineModeIsEnabled" in kinds:
        forbids = "local_files_only=True" if "_NoDownload" in kinds else "HF_HUB_OFFLINE=1"
        options = f" --revision {revision}" if revision else ""
        return (
            f"{failure}, and {forbids} forbids a download; where there is a network, type: hf download {name}{options}"
        )
    if any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in chain):
        return f"{failure}: no space left on the disk"
    if "RevisionNotFoundError" in kinds:
        return f"revision: got {revision!r:.80}, expected a branch, a tag or a commit of the model"
    if "GatedRepoError" in kinds or status == 403:
        return f"the model is private or gated ({status}): ask for access on its page, then {login}"
    if status == 401:
        return (
            "the Hugging Face hub gives no access (401); the name is wrong, or the model is private or gated: for such "
            f"a model, {login}{_suggestion(name)}"
        )
    if status == 404 or "RepositoryNotFoundError" in kinds:
        return f"neither a folder nor a model of the Hugging Face hub (404){_suggestion(name)}"
    if failure.startswith("the folder"):
        return f"{failure}, and the Hugging Face hub does not answer ({_detail(chain, status)})"
    return f"{failure} ({_detail(chain, status)}); start it again to continue"


def _detail(chain: list[BaseException], status: int | None) -> str:
    """The first cause: the status of the answer, or the operating system's reason, or a message."""
    if status is not None:
        return f"status {status}"
    for one in reversed(chain):
        if isinstance(one, OSError) and one.errno is not None and one.strerror:
            return one.strerror if one.filename is None else f"{one.strerror}: {one.filename}"
    return short_reason(chain[-1])[:120]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__

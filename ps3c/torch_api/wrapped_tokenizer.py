"""Loads the Hugging Face tokenizer that a PS3Tokenizer wraps: from a folder, the local cache, or the hub."""

import json
import os
from typing import Any

import huggingface_hub
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file

from ..errors import raise_memory_error, short_reason
from .pretrained import check_folder

CONFIG_FILE = "tokenizer_config.json"

_PATIENCE = 5  # seconds that the hub has to answer


def load_wrapped(name: str, **where: Any) -> Any:
    """The tokenizer of a folder or repository. A repository in the local cache is loaded without a request.

    Args:
        where: cache_dir, token, local_files_only, as in transformers.

    Raises:
        OSError: neither a folder nor in the cache, and it cannot be downloaded. ValueError: the folder is a PS3
            checkpoint, or the tokenizer needs code of its own.
    """
    check_folder(name)
    if os.path.isdir(name):
        if _is_ps3(name):
            raise ValueError(
                f"tokenizer_name: got {str(name)!r}, whose {CONFIG_FILE} names a tokenizer itself, expected the folder "
                "of a Hugging Face tokenizer"
            )
        return _with_prefix_space_of_its_file(_load(name), name, where)
    try:
        tokenizer = _load(name, **{**where, "local_files_only": True})
    except _NeedsCode:
        raise
    except Exception as error:  # transformers raises many types for a file that is not in the cache
        raise_memory_error(error)
        if where.get("local_files_only"):
            raise _unavailable(name, error) from error
        tokenizer = _download(name, where)
    return _with_prefix_space_of_its_file(tokenizer, name, where)


class _NeedsCode(ValueError):
    """A tokenizer whose class is Python code beside its files."""


def _load(name: str, **where: Any) -> Any:
    """transformers' tokenizer. It asks on the terminal whether it may run a folder's code, unless it is told not to."""
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **where)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise _NeedsCode(
            f"tokenizer_name: got {name!r}, whose tokenizer is Python code of its own, which ps3c does not run; "
            "expected a tokenizer of transformers"
        ) from None


def _download(name: str, where: dict[str, Any]) -> Any:
    try:
        _check_reachable(name)
        return _load(name, **where)
    except _NeedsCode:
        raise
    except Exception as error:
        raise_memory_error(error)
        raise _unavailable(name, error) from error


def _check_reachable(name: str) -> None:
    """An exception if the hub gives no answer to one request. Without it, transformers retries for 46 seconds."""
    session = getattr(huggingface_hub, "get_session", None) or getattr(huggingface_hub.utils, "get_session", None)
    if session is not None:
        session().head(huggingface_hub.hf_hub_url(name, CONFIG_FILE), timeout=_PATIENCE)


def _unavailable(name: str, error: Exception) -> OSError:
    return OSError(
        f"tokenizer_name: got {name!r}, which is no folder and not in the local cache, and cannot be downloaded; where "
        f"there is a network, type: hf download {name} --local-dir FOLDER, and let tokenizer_name be that folder "
        f"({short_reason(error)[:80]})"
    )


def _is_ps3(folder: str) -> bool:
    try:
        with open(os.path.join(folder, CONFIG_FILE), encoding="utf-8") as file:
            return "tokenizer_name" in json.load(file)
    except (OSError, ValueError, TypeError):
        return False


def _with_prefix_space_of_its_file(tokenizer: Any, name: str, where: dict[str, Any]) -> Any:
    """The tokenizer, with add_prefix_space as its files have it.

    For a tokenizer of no model's own class, transformers 4 replaces the value of tokenizer.json by False, and
    transformers 5 does not. So ids of one folder would differ. A value in tokenizer_config.json comes first.
    """
    before = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    if type(tokenizer) is not PreTrainedTokenizerFast or not hasattr(before, "add_prefix_space"):
        return tokenizer
    wanted = tokenizer.init_kwargs.get("add_prefix_space")
    if wanted is None:
        place = {key: value for key, value in where.items() if key == "cache_dir"}
        with open(cached_file(name, "tokenizer.json", local_files_only=True, **place), encoding="utf-8") as file:
            wanted = json.load(file)["pre_tokenizer"].get("add_prefix_space")
    if wanted is not None and bool(wanted) != before.add_prefix_space:
        before.add_prefix_space = bool(wanted)
        tokenizer.add_prefix_space = bool(wanted)
    return tokenizer

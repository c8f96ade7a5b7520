"""From text to token ids: cleaning, then a Hugging Face tokenizer, padded and cut to the context length."""

import html
import inspect
import json
import operator
import os
import shutil
import string
import threading
import warnings
from collections.abc import Callable
from typing import Any

import ftfy
import torch
from transformers import PreTrainedTokenizer
from transformers.utils import cached_file

from .pretrained import check_folder
from .wrapped_tokenizer import CONFIG_FILE, load_wrapped

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DEFAULT_CONTEXT_LENGTH = 77
_MOST_TOKENS = 1 << 20  # of a text; a tokenizer aborts the process when it cannot allocate what it pads

# Arguments of from_pretrained that say where the file is, and those of AutoTokenizer that have no meaning here.
_WHERE = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
_WITHOUT_MEANING = ("_commit_hash", "_from_auto", "config", "resume_download", "trust_remote_code", "use_fast")

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def basic_clean(text: str) -> str:
    """Repairs broken Unicode and (doubly) escaped HTML."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def whitespace_clean(text: str) -> str:
    return " ".join(text.split())


def canonicalize_text(text: str) -> str:
    """Lower case, no punctuation, single spaces, as SigLIP was trained."""
    return whitespace_clean(text.replace("_", " ").translate(_NO_PUNCTUATION).lower())


# Named functions, not lambdas: a tokenizer holds one and can be pickled.
def _clean_canonicalize(text: str) -> str:
    return canonicalize_text(basic_clean(text))


def _clean_lower(text: str) -> str:
    return whitespace_clean(basic_clean(text)).lower()


def _clean_whitespace(text: str) -> str:
    return whitespace_clean(basic_clean(text))


_CLEAN = {"canonicalize": _clean_canonicalize, "lower": _clean_lower, "whitespace": _clean_whitespace}


def get_clean_fn(clean: str) -> Callable[[str], str]:
    """The cleaning function "canonicalize", "lower" or "whitespace"."""
    if clean not in _CLEAN:
        raise ValueError(f"clean: got {clean!r}, expected one of {', '.join(_CLEAN)}")
    return _CLEAN[clean]


# Setting a fast tokenizer's length while another thread uses it raises "Already borrowed".
_using = threading.RLock()


def _after_fork() -> None:
    global _using
    _using = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class PS3Tokenizer(PreTrainedTokenizer):
    """Texts to ids. Wraps `self.tokenizer`, the Hugging Face tokenizer of `tokenizer_name`.

    Attributes and methods of transformers' tokenizers (pad_token_id, vocab_size, pad, convert_ids_to_tokens, ...) are
    those of the wrapped one. Several threads may use one tokenizer.

    Args:
        tokenizer_name: repository or folder of that tokenizer. A repository is looked for in the local cache first.
        context_length: tokens of every text, padded or cut.
        clean: "whitespace", "lower" or "canonicalize".
        strip_sep_token: replace the separator token by 0.
        language: source language, for tokenizers that have one.
    """

    def __init__(
        self,
        tokenizer_name: str,
        context_length: int | None = DEFAULT_CONTEXT_LENGTH,
        clean: str = "whitespace",
        strip_sep_token: bool = False,
        language: str | None = None,
        **kwargs,
    ):
        # The base class is for isinstance: its own vocabulary is never used, so it is not initialised.
        self.clean = clean
        self.clean_fn = get_clean_fn(clean)
        self.context_length = None if context_length is None else _length(context_length, least=None)
        self.strip_sep_token = strip_sep_token
        self.tokenizer = load_wrapped(tokenizer_name, **kwargs.pop("_where", {}))
        self.init_kwargs = {
            "tokenizer_name": tokenizer_name,
            "context_length": context_length,
            "clean": clean,
            "strip_sep_token": strip_sep_token,
            "language": language,
            **kwargs,
        }
        if language is not None:
            self.set_language(language)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *_, **kwargs) -> "PS3Tokenizer":
        """Loads tokenizer_config.json of a folder or repository; keyword arguments override what stands there.

        A tokenizer_name that is a folder inside that folder means this folder, whatever the working directory.

        Raises:
            OSError: no such file, or its tokenizer is neither in the local cache nor can be downloaded. ValueError: it
                names no tokenizer.
        """
        where = {name: kwargs.pop(name) for name in _WHERE if name in kwargs}
        kwargs = {name: value for name, value in kwargs.items() if name not in _WITHOUT_MEANING}
        check_folder(pretrained_model_name_or_path)
        path = cached_file(pretrained_model_name_or_path, CONFIG_FILE, **where)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        if not isinstance(config, dict) or not isinstance({**config, **kwargs}.get("tokenizer_name"), str):
            raise ValueError(f"{path}: has no tokenizer_name, so it is not a PS3 tokenizer's")
        config.update(kwargs)
        given = config["tokenizer_name"]
        config["tokenizer_name"] = _inside(os.path.dirname(path), given) or given
        shared = {name: where[name] for name in ("cache_dir", "local_files_only", "token") if name in where}
        tokenizer = cls(**config, _where=shared)
        if config["tokenizer_name"] != given:
            tokenizer._name_in_folder = given
        return tokenizer

    def save_pretrained(self, save_directory, **kwargs):
        """Writes tokenizer_config.json, which names the tokenizer.

        The vocabulary is not copied, except that of a tokenizer inside the folder that this one was loaded from.
        """
        os.makedirs(save_directory, exist_ok=True)
        settings = dict(self.init_kwargs)
        name = self.__dict__.get("_name_in_folder")
        if name is not None:
            source, target = settings["tokenizer_name"], os.path.join(save_directory, name)
            if not (os.path.exists(target) and os.path.samefile(source, target)):
                shutil.copytree(source, target, dirs_exist_ok=True)
            settings["tokenizer_name"] = name
        path = os.path.join(save_directory, CONFIG_FILE)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=2, default=str)
        return (path,)

    def __call__(self, texts: str | list[str], context_length: int | None = None, **options: Any) -> Any:
        """Texts to ids (B, context_length), int64.

        With any of the options of transformers' tokenizers (padding, truncation, max_length, return_tensors, ...), the
        result is the wrapped tokenizer's: a BatchEncoding. Without padding, truncation or max_length among them, texts
        are padded and cut to the context length.

        Raises:
            TypeError: not a string or a list of strings. ValueError: no text, or no context length.
        """
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, (list, tuple)):
            raise TypeError(f"texts: got {type(texts).__name__}, expected a string or a list of strings")
        for i, text in enumerate(several):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}]: got {type(text).__name__}, expected a string")
        if not several:
            raise ValueError("texts: got an empty list, expected one text or more")
        length = _length(options.get("max_length") or context_length or self.context_length)
        cleaned = [self.clean_fn(text) for text in several]
        settings = {"padding": "max_length", "truncation": True, "max_length": length, **options}
        if not options:
            settings["return_tensors"] = "pt"
        with _using:
            encoding = self.tokenizer(cleaned[0] if options and isinstance(texts, str) else cleaned, **settings)
        separator = self.tokenizer.sep_token_id if self.strip_sep_token else None
        if separator is not None:
            encoding["input_ids"] = _without(encoding["input_ids"], separator)
        return encoding if options else encoding["input_ids"]

    def encode(self, text: str, *arguments: Any, **options: Any) -> Any:
        """The ids of a text, which is cleaned first, by the wrapped tokenizer: neither padded nor cut unless asked."""
        with _using:
            return self.tokenizer.encode(self.clean_fn(text), *arguments, **options)

    def tokenize(self, text: str, *arguments: Any, **options: Any) -> list[str]:
        """The tokens of a text, which is cleaned first, by the wrapped tokenizer."""
        with _using:
            return self.tokenizer.tokenize(self.clean_fn(text), *arguments, **options)

    def set_language(self, src_lang: str) -> None:
        """Sets the source language where the tokenizer knows languages, else warns."""
        set_tokens = getattr(self.tokenizer, "set_src_lang_special_tokens", None)
        if callable(set_tokens):
            set_tokens(src_lang)
        else:
            warnings.warn(
                f"language: {type(self.tokenizer).__name__} has no languages; {src_lang!r} is ignored", stacklevel=2
            )

    def decode(self, token_ids, skip_special_tokens: bool = False, **kwargs):
        """Ids to text, by the wrapped tokenizer."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, sequences, skip_special_tokens: bool = False, **kwargs) -> list[str]:
        """Lists of ids to texts, by the wrapped tokenizer."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens=skip_special_tokens, **kwargs)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.init_kwargs.items())
        return f"PS3Tokenizer({fields})"

    def __getattr__(self, name: str) -> Any:
        # Until "tokenizer" is set, as while it is unpickled, nothing is forwarded.
        if name.startswith("__") or "tokenizer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        wrapped = self.__dict__.get("tokenizer")
        if wrapped is None or name in self.__dict__ or name == "init_kwargs" or not hasattr(wrapped, name):
            self.__dict__[name] = value
        else:
            setattr(wrapped, name, value)


def _forwarded(name: str) -> property:
    return property(lambda self: self.__getattr__(name))


# What the base class defines is the wrapped tokenizer's, except what loads and saves.
for _name in dir(PreTrainedTokenizer):
    _kind = inspect.getattr_static(PreTrainedTokenizer, _name)
    if not (_name.startswith("_") or _name in vars(PS3Tokenizer) or _name == "push_to_hub"):
        if not isinstance(_kind, (classmethod, staticmethod)):
            setattr(PS3Tokenizer, _name, _forwarded(_name))


def _length(value: Any, least: int | None = 1) -> int:
    """A context length. ValueError if it is below `least`, or more than a tokenizer can pad to."""
    expected = f"a positive integer up to {_MOST_TOKENS}, here or in the tokenizer"
    try:
        length = operator.index(value)
    except TypeError:
        if value is None:
            raise ValueError(f"context_length: got None, expected {expected}") from None
        raise TypeError(f"context_length: got {value!r}, a {type(value).__name__}, expected {expected}") from None
    if isinstance(value, bool) or length > _MOST_TOKENS or (least is not None and length < least):
        raise ValueError(f"context_length: got {value!r}, expected {expected}")
    return length


def _inside(folder: str, name: str) -> str | None:
    """The path of a folder `name` inside `folder`; None if there is none."""
    base = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(base, name))
    is_inside = not os.path.isabs(name) and path.startswith(base + os.sep)
    return path if is_inside and os.path.isdir(path) else None


def _without(ids: Any, separator: int) -> Any:
    """ids with the separator replaced by 0: a tensor, an array, or lists."""
    if isinstance(ids, torch.Tensor):
        return torch.where(ids == separator, torch.zeros_like(ids), ids)
    if isinstance(ids, list):
        return [_without(one, separator) if isinstance(one, list) else 0 if one == separator else one for one in ids]
    return ids * (ids != separator)

"""From text to token ids: cleaning, then a Hugging Face tokenizer, padded and cut to the context length."""

import html
import json
import os
import string
import warnings
from collections.abc import Callable

import ftfy
import torch
from transformers import AutoTokenizer, PreTrainedTokenizer
from transformers.utils import cached_file

from .pretrained import check_folder

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DEFAULT_CONTEXT_LENGTH = 77
CONFIG_FILE = "tokenizer_config.json"

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


class PS3Tokenizer(PreTrainedTokenizer):
    """Texts to ids. Wraps `self.tokenizer`, the Hugging Face tokenizer of `tokenizer_name`.

    Args:
        tokenizer_name: repository or folder of that tokenizer.
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
        self.init_kwargs = {
            "tokenizer_name": tokenizer_name,
            "context_length": context_length,
            "clean": clean,
            "strip_sep_token": strip_sep_token,
            "language": language,
            **kwargs,
        }
        self.clean = clean
        self.clean_fn = get_clean_fn(clean)
        self.context_length = context_length
        self.strip_sep_token = strip_sep_token
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
        if language is not None:
            self.set_language(language)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "PS3Tokenizer":
        """Loads tokenizer_config.json of a folder or repository; keyword arguments override what stands there.

        Raises:
            OSError: no such file. ValueError: it names no tokenizer.
        """
        names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        where = {name: kwargs.pop(name) for name in names if name in kwargs}
        check_folder(pretrained_model_name_or_path)
        path = cached_file(pretrained_model_name_or_path, CONFIG_FILE, **where)
        with open(path, encoding="utf-8") as file:
            config = {**json.load(file), **kwargs}
        if "tokenizer_name" not in config:
            raise ValueError(f"{path}: has no tokenizer_name, so it is not a PS3 tokenizer's")
        return cls(**config)

    def save_pretrained(self, save_directory, **kwargs):
        """Writes tokenizer_config.json, which names the tokenizer; the vocabulary is not copied."""
        os.makedirs(save_directory, exist_ok=True)
        path = os.path.join(save_directory, CONFIG_FILE)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.init_kwargs, file, indent=2, default=str)
        return (path,)

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> torch.Tensor:
        """Texts to ids (B, context_length), int64.

        Raises:
            TypeError: not a string or a list of strings. ValueError: no text, or no context length.
        """
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, (list, tuple)):
            raise TypeError(f"texts: got {type(texts).__name__}, expected a string or a list of strings")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}]: got {type(text).__name__}, expected a string")
        if not texts:
            raise ValueError("texts: got an empty list, expected one text or more")
        length = context_length or self.context_length
        if not length or length < 1:
            raise ValueError(f"context_length: got {length!r}, expected a positive integer, here or in the tokenizer")
        ids = self.tokenizer(
            [self.clean_fn(text) for text in texts],
            return_tensors="pt",
            max_length=length,
            padding="max_length",
            truncation=True,
        ).input_ids
        separator = self.tokenizer.sep_token_id if self.strip_sep_token else None
        return ids if separator is None else torch.where(ids == separator, torch.zeros_like(ids), ids)

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

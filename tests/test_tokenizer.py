"""The tokenizer against ps3-torch's, on small tokenizers made here."""

import copy
import json
import pickle
import warnings

import pytest
import reference
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

import ps3c
from ps3c.torch_api.tokenization_ps3 import canonicalize_text, get_clean_fn

TEXTS = [
    "A photo of a cat.",
    "  two\n words\t",
    "",
    "don't STOP_now!!! (really)",
    "caf\u00c3\u00a9 &amp;amp; cr\u00e8me &lt;b&gt;",
    "\u201cquotes\u201d \u2026 na\u00efve \ufb01ne",
    "1234567890 " * 5,
    "\u732b\u3068\u72ac",
    "_under_score_",
    "e\u0301 vs \u00e9",
]
LETTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'()&<>_\u00e9\u00e8\u00ef\u201c\u201d\u2026"
)


def make(folder, separator: bool) -> str:
    """A tokenizer by letters with a few words, saved to folder; with [SEP] at the end of each text if asked."""
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[SEP]", *LETTERS])}
    for word in ("cat", "photo", "of"):
        for end in range(2, len(word) + 1):
            vocabulary.setdefault(word[:end], len(vocabulary))
    merges = [(word[:end], word[end]) for word in ("cat", "photo", "of") for end in range(1, len(word))]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if separator:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 2)])
    special = {"sep_token": "[SEP]"} if separator else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", **special
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make(tmp_path_factory.mktemp("plain"), False)


@pytest.fixture(scope="module")
def separated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("separated"), True)


def with_reference(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ps3c.PS3Tokenizer(**settings), reference.load().PS3Tokenizer(**settings)


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
@pytest.mark.parametrize("length", [1, 12, 64])
@pytest.mark.parametrize("strip", [False, True])
def test_ids(separated, clean, length, strip):
    settings = dict(tokenizer_name=separated, context_length=length, clean=clean, strip_sep_token=strip)
    ours, theirs = with_reference(**settings)
    got, wanted = ours(TEXTS), theirs(TEXTS)
    assert got.dtype == torch.int64 and got.shape == (len(TEXTS), length)
    assert torch.equal(got, wanted)
    assert bool((got == 2).any()) == (not strip)
    for text in TEXTS:
        assert torch.equal(ours(text), theirs(text))
    assert torch.equal(ours(TEXTS, context_length=5), theirs(TEXTS, context_length=5))


def test_defaults(plain):
    ours, theirs = with_reference(tokenizer_name=plain)
    assert ours("a cat").shape == (1, 77) and torch.equal(ours("a cat"), theirs("a cat"))
    assert (ours.context_length, ours.strip_sep_token, ours.init_kwargs) == (
        theirs.context_length,
        theirs.strip_sep_token,
        theirs.init_kwargs,
    )


def test_separator_is_optional(plain):
    """A tokenizer without a separator has nothing to strip."""
    ours = ps3c.PS3Tokenizer(plain, strip_sep_token=True, context_length=8)
    assert torch.equal(ours("a cat"), ps3c.PS3Tokenizer(plain, context_length=8)("a cat"))


def test_cleaning_is_the_references():
    import importlib

    theirs = importlib.import_module(reference.load().__name__ + ".tokenization_ps3")
    for clean in ("whitespace", "lower", "canonicalize"):
        for text in TEXTS:
            assert get_clean_fn(clean)(text) == theirs.get_clean_fn(clean)(text)
    assert canonicalize_text("A_b, C!  d") == "a b c d" == theirs.canonicalize_text("A_b, C!  d")


def test_round_trip(tmp_path, separated):
    ours, theirs = with_reference(
        tokenizer_name=separated, context_length=9, clean="canonicalize", strip_sep_token=True
    )
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())
    assert config == json.loads((tmp_path / "theirs" / "tokenizer_config.json").read_text())
    for folder in ("ours", "theirs"):
        loaded = ps3c.PS3Tokenizer.from_pretrained(tmp_path / folder)
        assert torch.equal(loaded(TEXTS), ours(TEXTS)) and loaded.init_kwargs == ours.init_kwargs
    assert torch.equal(reference.load().PS3Tokenizer.from_pretrained(tmp_path / "ours")(TEXTS), ours(TEXTS))
    assert ps3c.PS3Tokenizer.from_pretrained(tmp_path / "ours", context_length=3)("a cat").shape == (1, 3)


def test_published_file(tmp_path, plain):
    """Published checkpoints name three settings and no class."""
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_name": plain, "context_length": 16, "clean": "canonicalize"})
    )
    assert ps3c.PS3Tokenizer.from_pretrained(str(tmp_path))("A cat.").shape == (1, 16)


def test_object(plain):
    tokenizer = ps3c.PS3Tokenizer(plain, context_length=8)
    assert isinstance(tokenizer, PreTrainedTokenizer)
    assert repr(tokenizer) == (
        f"PS3Tokenizer(tokenizer_name={plain!r}, context_length=8, clean='whitespace', "
        "strip_sep_token=False, language=None)"
    )
    assert len(tokenizer) == len(tokenizer.tokenizer)
    assert tokenizer.decode(tokenizer("cat")[0], skip_special_tokens=True) == "cat"
    assert tokenizer.batch_decode(tokenizer(["cat", "of"]), skip_special_tokens=True) == ["cat", "of"]
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert torch.equal(twin(TEXTS), tokenizer(TEXTS))


def test_language_warns(plain):
    with pytest.warns(
        UserWarning,
        match="language: PreTrainedTokenizerFast has no languages; 'de' is ignored|language: .* has no languages",
    ):
        ps3c.PS3Tokenizer(plain, language="de")


@pytest.mark.parametrize(
    "texts, exception, message",
    [
        (3, TypeError, "texts: got int, expected a string or a list of strings"),
        (None, TypeError, "texts: got NoneType"),
        (["a", 3], TypeError, r"texts\[1\]: got int, expected a string"),
        ([["a"]], TypeError, r"texts\[0\]: got list"),
        (b"a", TypeError, "texts: got bytes"),
        ([], ValueError, "texts: got an empty list"),
    ],
)
def test_bad_texts(plain, texts, exception, message):
    tokenizer = ps3c.PS3Tokenizer(plain)
    with pytest.raises(exception, match=message):
        tokenizer(texts)
    assert tokenizer("a").shape == (1, 77)


def test_bad_settings(plain, tmp_path):
    with pytest.raises(ValueError, match="clean: got 'upper', expected one of canonicalize, lower, whitespace"):
        ps3c.PS3Tokenizer(plain, clean="upper")
    with pytest.raises(ValueError, match="context_length: got None"):
        ps3c.PS3Tokenizer(plain, context_length=None)("a")
    with pytest.raises(ValueError, match="context_length: got -1"):
        ps3c.PS3Tokenizer(plain)("a", context_length=-1)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer_config.json: has no tokenizer_name"):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(OSError):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path / "nowhere")

"""The tokenizer against ps3-torch's, on small tokenizers made here."""

import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import reference
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

import ps3c
from ps3c.torch_api import tokenization_ps3, wrapped_tokenizer
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


def test_attributes_are_the_wrapped_tokenizers(plain):
    tokenizer = ps3c.PS3Tokenizer(plain, context_length=8)
    wrapped = tokenizer.tokenizer
    for name in ("pad_token", "pad_token_id", "unk_token_id", "vocab_size", "model_max_length", "padding_side"):
        assert getattr(tokenizer, name) == getattr(wrapped, name), name
    for name in ("special_tokens_map", "all_special_ids", "is_fast", "name_or_path", "model_input_names", "get_vocab"):
        got, wanted = getattr(tokenizer, name), getattr(wrapped, name)
        assert (got() if callable(got) else got) == (wanted() if callable(wanted) else wanted), name
    assert tokenizer.encode("  a\n cat") == wrapped.encode("a cat") and tokenizer.tokenize("a cat") == ["a", "cat"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a cat")) == ["a", "cat"]
    padded = tokenizer.pad({"input_ids": [[5], [6, 7]]}, return_tensors="pt")
    assert padded.input_ids.tolist() == [[5, 0], [6, 7]]
    tokenizer.padding_side = "left"
    assert wrapped.padding_side == tokenizer.padding_side == "left" and tokenizer("a")[0, -1] != 0
    tokenizer.own = 3
    assert tokenizer.own == 3 and not hasattr(wrapped, "own")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tokenizer.no_such_name
    assert copy.deepcopy(tokenizer).own == 3


def test_options_of_transformers(separated):
    tokenizer = ps3c.PS3Tokenizer(separated, context_length=8, clean="lower", strip_sep_token=True)
    ids = tokenizer(["A Cat", "of"])
    for options in (dict(return_tensors="pt"), dict(padding="max_length", max_length=8, return_tensors="pt")):
        encoding = tokenizer(["A Cat", "of"], **options)
        assert torch.equal(encoding["input_ids"], ids) and encoding["attention_mask"].shape == ids.shape
    assert tokenizer("A Cat", padding="max_length", max_length=16, return_tensors="pt").input_ids.shape == (1, 16)
    assert tokenizer(["A Cat", "of"], return_tensors="np")["input_ids"].tolist() == ids.tolist()
    assert tokenizer(["A Cat", "of"], padding="max_length").input_ids == ids.tolist()
    assert tokenizer("A Cat", padding="max_length").input_ids == ids[0].tolist()  # one text, not a batch of one
    ragged = tokenizer(["A Cat", "of"], padding=False)["input_ids"]
    assert ragged == [row.tolist()[: len(own)] for row, own in zip(ids, ragged)] and len(ragged[1]) < 8


def test_auto_class(tmp_path, plain):
    """By the model's configuration, as AutoModel and AutoImageProcessor."""
    settings = {"tokenizer_name": plain, "context_length": 16, "clean": "canonicalize"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ps3", "vision_config": {}, "text_config": {}}))
    for options in ({}, {"use_fast": False}, {"trust_remote_code": True}):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, **options)
        assert type(tokenizer) is ps3c.PS3Tokenizer and tokenizer("A cat.").shape == (1, 16)
    assert AutoTokenizer.from_pretrained(tmp_path, context_length=5)("a").shape == (1, 5)


def test_code_in_the_folder_is_not_run(tmp_path, capfd):
    """A tokenizer's class beside its files: transformers would ask on the terminal whether it may run it."""
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (tmp_path / "own.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ValueError, match="^tokenizer_name: got .*, whose tokenizer is Python code .* does not run"):
        ps3c.PS3Tokenizer(str(tmp_path))
    assert capfd.readouterr().out == ""


def test_threads_with_two_lengths(separated):
    tokenizer = ps3c.PS3Tokenizer(separated)
    wanted = {length: tokenizer(TEXTS, context_length=length) for length in (6, 30)}

    def call(number):
        length = 30 if number % 2 else 6
        if number % 5 == 0:
            tokenizer.encode("a cat", padding="max_length", max_length=length)
        return torch.equal(tokenizer(TEXTS, context_length=length), wanted[length])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_a_thread_uses_it(plain):
    """The child has no such thread, and must not wait for its lock."""
    tokenizer = ps3c.PS3Tokenizer(plain, context_length=8)
    with ThreadPoolExecutor(1) as pool:
        inside, leave = threading.Event(), threading.Event()

        def hold():
            with tokenization_ps3._using:
                inside.set()
                leave.wait(30)

        waiting = pool.submit(hold)
        inside.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if tokenizer("a cat").shape == (1, 8) else 1)
        _, status = os.waitpid(child, 0)
        leave.set()
        waiting.result()
    assert os.waitstatus_to_exitcode(status) == 0


def test_folder_that_moves(tmp_path, plain, monkeypatch):
    """A tokenizer_name inside the checkpoint's folder does not depend on the working directory."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    shutil.copytree(plain, first / "words")
    settings = {"tokenizer_name": "words", "context_length": 6}
    (first / "tokenizer_config.json").write_text(json.dumps(settings))
    wanted = ps3c.PS3Tokenizer(plain, context_length=6)(TEXTS)
    assert torch.equal(ps3c.PS3Tokenizer.from_pretrained(first)(TEXTS), wanted)
    first.rename(second)
    monkeypatch.chdir(second)
    tokenizer = ps3c.PS3Tokenizer.from_pretrained(".")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(tokenizer(TEXTS), wanted)
    tokenizer.save_pretrained(third)
    tokenizer.save_pretrained(second)  # over itself
    shutil.rmtree(second)
    assert json.loads((third / "tokenizer_config.json").read_text())["tokenizer_name"] == "words"
    assert torch.equal(ps3c.PS3Tokenizer.from_pretrained(str(third))(TEXTS), wanted)


def test_prefix_space_is_the_files(tmp_path):
    """transformers 4 would replace tokenizer.json's value by False: other ids than with transformers 5."""
    for name, own, given in (("a", True, None), ("b", False, None), ("c", True, False), ("d", False, True)):
        words = Tokenizer(models.BPE({"a": 0, "\u0120": 1, "b": 2, "<pad>": 3}, []))
        words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=own)
        (tmp_path / name).mkdir()
        words.save(str(tmp_path / name / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
        if given is not None:
            settings["add_prefix_space"] = given
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = ps3c.PS3Tokenizer(str(tmp_path / name), context_length=3)
        wanted = own if given is None else given
        assert tokenizer("ab").tolist() == [[1, 0, 2] if wanted else [0, 2, 3]], name


def test_no_network(tmp_path, monkeypatch):
    """One request that fails soon, and one sentence."""
    monkeypatch.setattr(wrapped_tokenizer, "_check_reachable", lambda name: 1 / 0)
    message = (
        "tokenizer_name: got 'nobody/none', which is no folder and not in the local cache, and cannot be downloaded; "
        "where there is a network, type: hf download nobody/none --local-dir FOLDER"
    )
    with pytest.raises(OSError, match=message) as caught:
        ps3c.PS3Tokenizer("nobody/none")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(wrapped_tokenizer, "_check_reachable", lambda name: pytest.fail("a request"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_name": "nobody/none"}))
    with pytest.raises(OSError, match="got 'nobody/none', which is no folder"):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path, local_files_only=True)


def test_nobody_answers():
    """Where connections are refused, the request ends at once and is not repeated."""
    code = (
        "import time, ps3c\nbegin = time.monotonic()\n"
        "try: ps3c.PS3Tokenizer('nobody/none')\n"
        "except OSError as error: print(error)\n"
        "print(time.monotonic() - begin < 10)"
    )
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment.update(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0 and run.stdout.splitlines()[-1] == "True", run.stdout + run.stderr
    assert "cannot be downloaded" in run.stdout and "Retry" not in run.stderr


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
    for length in (2**40, 2**70):
        with pytest.raises(ValueError, match="context_length: got .*, expected a positive integer up to 1048576"):
            ps3c.PS3Tokenizer(plain, context_length=length)
        with pytest.raises(ValueError, match="context_length: got "):
            ps3c.PS3Tokenizer(plain)("a", context_length=length)
    for length in ("64", 2.5, [3]):
        with pytest.raises(TypeError, match="context_length: got .*, a (str|float|list), expected"):
            ps3c.PS3Tokenizer(plain, context_length=length)
    for content in ("[]", "null", '{"tokenizer_name": 3}'):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(ValueError, match="tokenizer_config.json: has no tokenizer_name"):
            ps3c.PS3Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_name": str(tmp_path)}))
    with pytest.raises(ValueError, match="tokenizer_name: got .*names a tokenizer itself"):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer_config.json: has no tokenizer_name"):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(OSError):
        ps3c.PS3Tokenizer.from_pretrained(tmp_path / "nowhere")

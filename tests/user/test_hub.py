"""Models by name: download, cache, revisions and errors, with a small hub on this machine (hub_server.py).

Two processes run most cases: a process reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE once, and starts in seconds.
"""

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_support import environment, ps3c_main, spawn  # noqa: F401  (a fixture)
from conftest import photograph
from hub_server import Hub, commit
from safetensors.torch import load_file, save

import ps3c
from ps3c.features import hub

# Cases are lines of JSON on stdin: [function, arguments, options]. A line of JSON on stdout is the answer.
PROGRAM = """
import contextlib, errno, io, json, os, sys, time, urllib.request
from unittest import mock
import huggingface_hub.constants, PIL.Image
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 16  # what is lost of a connection that is cut
import ps3c
from ps3c.cli import main

def ask(path):
    try:
        return json.load(urllib.request.urlopen(os.environ["HF_ENDPOINT"] + path, timeout=10))
    except OSError:
        return None  # the hub has stopped, or there is none

def load(name, text=None, **options):
    encoder = ps3c.load(name, device="cpu", dtype="float32", **options)
    features = encoder.embed_images(PIL.Image.open("image.png"))
    texts = None if text is None else encoder.embed_texts([text]).pooled[0].tolist()
    return {"folder": str(encoder.folder), "pooled": features.pooled[0].tolist(), "text": texts}

def full_disk(name, **options):
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch("huggingface_hub.hf_hub_download", side_effect=full):
        return load(name, **options)

def command(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

def log_in(token):
    os.environ["HF_TOKEN"] = token
    return {}

def stop():
    while ask("/_stop") is not None:
        time.sleep(0.05)
    return {}

for line in sys.stdin:
    case, arguments, options = json.loads(line)
    ask("/_requests")
    begin = time.monotonic()
    try:
        answer = {"error": None, **globals()[case](*arguments, **options)}
    except Exception as error:
        answer = {"error": str(error), "type": type(error).__name__}
    answer["seconds"] = time.monotonic() - begin
    answer["requests"] = ask("/_requests")
    print(json.dumps(answer), flush=True)
"""


class Process:
    """Runs cases, one after the other, in a separate process with a home of its own."""

    def __init__(self, folder: Path, endpoint: str, **variables):
        photograph().save(folder / "image.png")
        self.home = folder / "home"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=folder,
            env=isolated(endpoint, self.home, **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder / "stderr", "w"),
            text=True,
        )

    def __call__(self, case, *arguments, **options):
        print(json.dumps([case, arguments, options]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, (self.home.parent / "stderr").read_text()
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


def files_of(folder: Path, *without: str, **more: bytes) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in without]
    return {**{str(path.relative_to(folder)): path.read_bytes() for path in paths}, **more}


def models(tiny: Path) -> dict:
    """The models of the hub, made of a checkpoint folder."""
    weights = load_file(tiny / "model.safetensors")
    names = sorted(weights)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": {name: weights[name] for name in names[i::2]} for i in range(2)}
    index = {"metadata": {}, "weight_map": {name: part for part, tensors in parts.items() for name in tensors}}
    whole = files_of(tiny)
    junk = {"README.md": b"# A model", "pytorch_model.bin": b"no pickle", "optimizer.safetensors": b"large"}
    small = files_of(tiny, "model.safetensors")
    old = {**whole, "model.safetensors": save({name: tensor / 2 for name, tensor in weights.items()}, {"format": "pt"})}
    outside = {path: content for path, content in whole.items() if not path.startswith("tokenizer/")}
    settings = {**json.loads(whole["tokenizer_config.json"]), "tokenizer_name": "someone/words"}
    bert = {**whole, "config.json": b'{"model_type": "bert"}'}
    split = {part: save(tensors, {"format": "pt"}) for part, tensors in parts.items()}
    return {
        "someone/tiny": {"main": {**whole, **junk}, "v1": old},
        "someone/cut": {"main": whole},
        "someone/split": {"main": {**small, **split, "model.safetensors.index.json": json.dumps(index).encode()}},
        "someone/pickled": {"main": {**small, "pytorch_model.bin": b"no pickle"}},
        "someone/bare": {"main": files_of(tiny, "preprocessor_config.json")},
        "someone/bert": {"main": bert},
        "someone/empty": {"main": {"README.md": b"# A data set"}},
        "someone/gated": {"main": whole},
        "someone/private": {"main": whole},
        "someone/slow": {"main": whole},
        "someone/two": {"main": {**outside, "tokenizer_config.json": json.dumps(settings).encode()}},
        "someone/words": {"main": files_of(tiny / "tokenizer")},
        "nvidia/PS3-4K-SigLIP2": {"main": whole},
    }


def isolated(endpoint: str, home: Path, **variables: str) -> dict[str, str]:
    """The environment of a process that asks the hub at `endpoint` and has its cache in `home`."""
    kept = {name: value for name, value in environment().items() if "proxy" not in name.lower()}
    kept = {name: value for name, value in kept.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    return {**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", **variables}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of the first process, whose cache the second one finds."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def answers(tiny_checkpoint, home):
    """The answers of the process with a hub, by case. In the end, the hub stops."""
    served = models(tiny_checkpoint)
    options = {"cut": ["someone/cut"], "gated": ["someone/gated"], "private": ["someone/private"]}
    with Hub(served, slow=["someone/slow"], **options) as server:
        process = Process(home, server.endpoint, HF_TOKEN="bad")
        found = {}
        found["download"] = process("load", "someone/tiny", text="a ship")
        found["again"] = process("load", "someone/tiny", text="a ship")
        found["v1"] = process("load", "someone/tiny", revision="v1")
        found["commit"] = process("load", "someone/tiny", revision=commit("someone/tiny", "v1"))
        found["v9"] = process("load", "someone/tiny", revision="v9")
        found["elsewhere"] = process("load", "someone/tiny", text="a ship", cache_dir="elsewhere")
        found["tokenizer, images"] = process("load", "someone/two", cache_dir="two")
        found["tokenizer, offline"] = process(
            "load", "someone/two", cache_dir="two", local_files_only=True, text="a ship"
        )
        found["tokenizer"] = process("load", "someone/two", cache_dir="two", text="a ship")
        found["tokenizer, again"] = process(
            "load", "someone/two", cache_dir="two", local_files_only=True, text="a ship"
        )
        found["cut"] = process("load", "someone/cut")
        found["half"] = process("load", "someone/cut", local_files_only=True)
        found["resumed"] = process("load", "someone/cut")
        for name in ("split", "pickled", "bare", "bert", "empty", "gated", "private", "none", "slow"):
            found[name] = process("load", f"someone/{name}")
        process("log_in", "good")
        found["logged in"] = process("load", "someone/private")
        found["misspelt"] = process("load", "nvidia/PS3_4K_SigLIP2")
        found["full disk"] = process("full_disk", "someone/tiny", cache_dir="full")
        found["info"] = process("command", "info", "nvidia/PS3-4K-SigLIP2", "--json")
        found["models"] = process("command", "models", "--json")
        found["table"] = process("command", "models")
        found["command"] = process("command", "text", "a ship", "-m", "someone/tiny", "--revision", "v1", "--json")
        process("stop")
        found["cached, no network"] = process("load", "someone/tiny", text="a ship")
        found["no network"] = process("load", "someone/split", cache_dir="new")
        found["no network, command"] = process("command", "info", "someone/new")
        process.end()
        return found


def files_in(answer):
    """The files of which a request asked for the content."""
    return {line.split("/", 4)[-1] for line in answer["requests"] if line.startswith("GET someone")}


def test_download(answers, encoder, tiny_checkpoint, home):
    """The first load downloads what a checkpoint needs and nothing else, and gives the vectors of the folder."""
    answer = answers["download"]
    assert answer["error"] is None
    sha = commit("someone/tiny", "main")
    folder = home / "home" / "hub" / "models--someone--tiny" / "snapshots" / sha
    assert answer["folder"] == str(folder)
    assert files_in(answer) == set(files_of(tiny_checkpoint))
    assert answer["pooled"] == encoder.embed_images(photograph()).pooled[0].tolist()
    assert answer["text"] == encoder.embed_texts(["a ship"]).pooled[0].tolist()
    assert hub.name_of(folder) == "someone/tiny"


def test_second_load_makes_no_request(answers):
    for case in ("again", "cached, no network"):
        assert {**answers[case], "seconds": 0} == {
            **answers["download"],
            "seconds": 0,
            "requests": None if case != "again" else [],
        }
        assert answers[case]["seconds"] < 3


def test_revisions(answers):
    first, other = answers["v1"], answers["commit"]
    assert first["pooled"] != answers["download"]["pooled"] and first["error"] is None
    assert first["folder"].endswith(commit("someone/tiny", "v1"))
    assert first["folder"] == other["folder"] and other["requests"] == []
    assert files_in(first) == {"model.safetensors"}  # the other files are the same, and known by their hash
    message = "someone/tiny: revision: got 'v9', expected a branch, a tag or a commit of the model"
    assert answers["v9"]["error"] == message


def test_another_cache(answers):
    assert "elsewhere/models--someone--tiny" in answers["elsewhere"]["folder"]
    assert answers["elsewhere"]["text"] == answers["download"]["text"]


def test_tokenizer_of_its_own_repository(answers, home):
    """The first text downloads it, into the same cache. local_files_only holds for it, too."""
    assert not any("someone/words" in line for line in answers["tokenizer, images"]["requests"])
    assert "its tokenizer cannot be loaded" in answers["tokenizer, offline"]["error"]
    assert answers["tokenizer, offline"]["requests"] == answers["tokenizer, again"]["requests"] == []
    assert all("someone/words" in line for line in answers["tokenizer"]["requests"])
    for case in ("tokenizer", "tokenizer, again"):
        assert answers[case]["text"] == answers["download"]["text"]
    assert (home / "two" / "models--someone--words").is_dir()
    assert not (home / "home" / "hub" / "models--someone--words").exists()


def test_connection_that_is_cut(answers):
    """The error says that the download continues. It does, from where it ended; with huggingface_hub 2, at once."""
    cut, last = answers["cut"], answers["resumed"]
    if cut["error"] is None:
        last = cut
    else:
        assert cut["type"] == "CheckpointError" and cut["error"].startswith("someone/cut: the download stopped (")
        assert cut["error"].endswith("; start it again to continue")
        message = "someone/cut: the folder does not exist; the model is not complete in the local cache, which lacks "
        assert answers["half"]["error"].startswith(message + "model.safetensors, and local_files_only=True forbids")
    assert answers["half"]["requests"] == []
    assert last["pooled"] == answers["download"]["pooled"]
    line = [line for line in last["requests"] if line.startswith("GET") and "model.safetensors" in line][-1]
    assert int(line.partition("bytes=")[2].rstrip("-")) > 0


def test_weights_in_parts(answers):
    assert answers["split"]["pooled"] == answers["download"]["pooled"]


@pytest.mark.parametrize(
    "case, message",
    [
        ("pickled", "pytorch_model.bin cannot be read: "),  # the only weights, so they were downloaded
        ("bare", "has no preprocessor_config.json, which describes the preprocessing of images"),
        ("bert", "config.json: got model_type 'bert', expected 'ps3' or 'ps3_vision_model'"),
        ("empty", "someone/empty: has no config.json on the Hugging Face hub, so it is not a model for ps3c"),
        ("gated", "someone/gated: the model is private or gated (403): ask for access on its page, then set HF_TOKEN"),
        ("private", "someone/private: the Hugging Face hub gives no access (401); the name is wrong, or the model is"),
        ("none", "someone/none: neither a folder nor a model of the Hugging Face hub (404)"),
        ("misspelt", "hub (404); the Hugging Face hub has a model nvidia/PS3-4K-SigLIP2"),
        ("slow", "someone/slow: the folder does not exist; the model is not in the local cache, and the Hugging Face "),
        ("full disk", "someone/tiny: the download stopped: no space left on the disk"),
        ("no network", "someone/split: the folder does not exist; the model is not in the local cache, and the "),
    ],
)
def test_errors(answers, case, message):
    answer = answers[case]
    assert answer["type"] == "CheckpointError" and message in answer["error"]
    assert "\n" not in answer["error"] and len(answer["error"]) < 500 and answer["seconds"] < 10


def test_errors_say_what_to_do(answers):
    assert answers["private"]["error"].endswith("for such a model, set HF_TOKEN or type: hf auth login")
    assert answers["no network"]["error"].endswith("does not answer (Connection refused)")
    assert answers["no network, command"]["code"] == 4
    assert answers["no network, command"]["err"].count("\n") == 1
    assert "model.safetensors" not in files_in(answers["bert"])


def test_token(answers):
    assert answers["logged in"]["pooled"] == answers["download"]["pooled"]


def test_command(answers, tiny_checkpoint):
    info = answers["info"]
    assert (info["code"], json.loads(info["out"])["text"]["width"]) == (0, 64)
    assert answers["command"]["code"] == 0 and len(json.loads(answers["command"]["out"])[0]["vector"]) == 64


def test_list_of_models(answers):
    rows = json.loads(answers["models"]["out"])
    assert [row["name"] for row in rows] == [model.name for model in hub.PUBLISHED] and len(rows) == 6
    [cached] = [row for row in rows if row["cached"]]
    assert cached["name"] == "nvidia/PS3-4K-SigLIP2" and cached["bytes"] > 1e6 and cached["side"] == 3780
    lines = answers["table"]["out"].splitlines()
    assert len(lines) == 7 and sum(line.endswith("  no") for line in lines) == 5
    assert answers["models"]["requests"] == answers["table"]["requests"] == []


def test_offline(answers, home, tmp_path):
    """HF_HUB_OFFLINE=1: what is in the cache works, also a tokenizer inside; the rest fails at once."""
    shutil.copytree(home / "home", tmp_path / "home", symlinks=True)
    process = Process(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    cached = process("load", "someone/tiny", text="a ship")
    assert cached["text"] == answers["download"]["text"] and cached["error"] is None
    other = process("load", "someone/new", revision="v1")
    assert other["error"] == (
        "someone/new: the folder does not exist; the model is not in the local cache, and HF_HUB_OFFLINE=1 forbids a "
        "download; where there is a network, type: hf download someone/new --revision v1"
    )
    assert other["type"] == "CheckpointError" and other["seconds"] < 3
    # Without its tokenizer_config.json the snapshot is not complete, but it can encode images.
    for path in (tmp_path / "home").rglob("tokenizer_config.json"):
        if path.parent.name != "tokenizer":
            path.unlink()
    assert process("load", "someone/tiny")["pooled"] == answers["download"]["pooled"]
    assert "its tokenizer cannot be loaded" in process("load", "someone/tiny", text="a ship")["error"]
    process.end()


def test_interrupted(tiny_checkpoint, tmp_path):
    """Ctrl-C during a download of weights ends the command at once."""
    with Hub({"someone/tiny": {"main": files_of(tiny_checkpoint)}}, stall=["someone/tiny"]) as server:
        process = spawn("info", "someone/tiny", env=isolated(server.endpoint, tmp_path), preexec_fn=listening)
        assert server.stalls.wait(30)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.splitlines()[-1] == "ps3c: interrupted"
    assert time.monotonic() - begin < 3


def listening():
    # A shell's background job has Ctrl-C ignored, and so would a child of a test run in one.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- without a hub ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", [{"revision": "v1"}, {"cache_dir": "a"}, {"local_files_only": True}])
def test_arguments_for_names_alone(tiny_checkpoint, argument):
    [name] = argument
    with pytest.raises(ValueError, match=f"^{name}: got .* with the folder .*, expected it only with a name on the"):
        ps3c.load(tiny_checkpoint, **argument)


def test_wrong_types():
    with pytest.raises(TypeError, match="^revision: got int, expected a string"):
        ps3c.load("someone/new", revision=1)
    with pytest.raises(ps3c.CheckpointError, match="the folder does not exist; .* must be a string$"):
        ps3c.load(Path("someone/new"))


@pytest.mark.parametrize(
    "name, hint",
    [
        ("PS3-4K-SigLIP2", "; the Hugging Face hub has a model nvidia/PS3-4K-SigLIP2"),
        ("ps3-1.5k-siglip", "; the Hugging Face hub has a model nvidia/PS3-1.5K-SigLIP"),
        ("PS3", ""),
        ("nvidia/PS3-4K-SigLIP2/", "; the Hugging Face hub has a model nvidia/PS3-4K-SigLIP2"),
        ("a/b/c", ""),
        ("a--b/c", ""),
        ("a/" + "x" * 200, ""),
    ],
)
def test_what_was_meant(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ps3c.CheckpointError) as caught:
        hub.find_model(name)
    assert str(caught.value) == f"{Path(name)}: the folder does not exist{hint}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_folders_come_first(tiny_checkpoint, tmp_path, monkeypatch):
    """A folder called OWNER/NAME; and beside it, a published name is still a name."""
    monkeypatch.chdir(tmp_path)
    Path("nvidia").mkdir()
    Path("nvidia", "mine").symlink_to(tiny_checkpoint)
    assert hub.find_model("nvidia/mine") == Path("nvidia/mine")
    with pytest.raises(ps3c.CheckpointError, match="nvidia/other: the folder does not exist$"):
        hub.find_model("nvidia/other")
    for name, options in {"nvidia/PS3-4K-SigLIP2": {}, "nvidia/other": {"local_files_only": True}}.items():
        with pytest.raises(ps3c.CheckpointError, match="not in the local cache, and .* forbids a download"):
            hub.find_model(name, cache_dir=tmp_path, **options)


def test_revision_of_a_folder_in_a_command(ps3c_main, tiny_checkpoint):
    for words in (["info", tiny_checkpoint], ["text", "a", "-m", tiny_checkpoint]):
        code, out, err = ps3c_main(*words, "--revision", "v1")
        assert (code, out) == (2, "") and err.startswith("ps3c: error: --revision: got 'v1' with the folder")


def test_revision_of_no_model_in_a_command(ps3c_main):
    code, out, err = ps3c_main("check", "--revision", "v1")
    assert (code, out) == (2, "") and err == "ps3c: error: --revision: got 'v1' without -m\n"


def test_what_a_snapshot_lacks(tiny_checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    assert hub.lacks(folder, all_files=True) is None and hub.name_of(folder) == "model"
    (folder / "tokenizer_config.json").unlink()
    assert hub.lacks(folder) is None and hub.lacks(folder, all_files=True) == "tokenizer_config.json"
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    assert hub.lacks(folder) == "model.safetensors"
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors", "b": "other.safetensors"}}))
    assert hub.lacks(folder) == "other.safetensors"
    for damaged in ("{", "[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": [3]}'):
        index.write_text(damaged)
        assert hub.lacks(folder) is None  # reading the checkpoint reports the damage
    (folder / "preprocessor_config.json").unlink()
    assert hub.lacks(folder) == "preprocessor_config.json"

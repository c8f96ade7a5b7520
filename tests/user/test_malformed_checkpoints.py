"""Checkpoint folders that are damaged or made to do harm: a CheckpointError with file and field, soon and small."""

import json
import math
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
import warnings

import pytest
import torch
from cli_support import environment
from safetensors.torch import load_file, save_file

import ps3c
from ps3c.engine.core import Checkpoint


@pytest.fixture(scope="module")
def state(tiny_checkpoint):
    return load_file(tiny_checkpoint / "model.safetensors")


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A copy of the tiny checkpoint that a test may change."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, copy)
    return copy


def edit(folder, name="config.json", part=None, **changes):
    path = folder / name
    values = json.loads(path.read_text())
    (values[part] if part else values).update(changes)
    path.write_text(json.dumps(values))


def refused(folder, *words):
    """ps3c.load raises a CheckpointError of one short line with these words, within 2 seconds."""
    begin = time.monotonic()
    with pytest.raises(ps3c.CheckpointError) as caught:
        ps3c.load(folder, device="cpu")
    text = str(caught.value)
    assert time.monotonic() - begin < 2, text
    assert text.startswith(f"{folder}: ") and "\n" not in text and len(text) < 600
    assert all(word in text for word in words), text
    assert not any(advice in text for advice in ("weights_only", "allow_pickle", "trust_remote_code"))
    engine_refuses(folder, text)
    return text


# What the engine's reader does not read: the tokenizer's files, and what only transformers would open. And JSON that is
# none (NaN, a number of 10,000 digits), which it refuses in other words.
NOT_READ = re.compile(
    r"tokenizer|num_labels|generation_config|adapter_config|\bnan\b|\binf\b|digits|bytes, expected at"
)


def engine_refuses(folder, text):
    """The C reader (csrc/checkpoint) refuses the folder too, and names the same file and field."""
    if NOT_READ.search(text.removeprefix(f"{folder}: ")):
        return
    begin = time.monotonic()
    if "index.json: got a named pipe" in text:  # there is model.safetensors, which comes first
        return
    with pytest.raises(ValueError) as caught:
        Checkpoint(folder)
    said = str(caught.value)
    assert time.monotonic() - begin < 2 and "\n" not in said and len(said) < 400
    if "pytorch_model.bin" in text:
        assert "whose pickled objects only torch reads" in said
    else:
        named = re.match(r"(?:[\w.-]+(?:\[[^]]*\])?: ?)+", text.removeprefix(f"{folder}: "))
        assert named is None or "a zero character" in said or said.startswith(named[0].rstrip(": ")), (said, text)


# ---- numbers of config.json ----------------------------------------------------------------------------------------

VISION = {
    "img_size": [10**5, 128, "64", -1, 0, [64, 32], 10**400, 1.5],
    "ps3_scales": [[64, 128, 10**6], [64, 128, 512], [64], [], "all", [64, 128, -256], [64] * 10**4, [64, 128, "256"]],
    "select_based_on_layer": [[0, 2, 4], [0, 2, 4, 99], [], 5, [0] * 10**4],
    "max_select_num": [2**40, -1],
    "max_select_num_each_scale": [[2**40, 1], [-1, 4], [1], "all", [1, "4"]],
    "highres_selection_module_depth": [10**6, 2, -1, "1"],
    "highres_selection_module_hidden_dim": [10**9, 17, 0],
    "highres_selection_module_out_dim": [10**9, 25, 0],
    "highres_selection_module_kernel_size": [10**6, 28, 0],
    "model_name": [3, "resnet50", "vit_base_patch16_siglip_224", "vit_" * 10**5],
    "num_labels": [10**9, -1, "many"],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_8bit": True}],
}
TEXT = {
    "context_length": [2**40, 16, 0, -1, "32", math.nan],
    "vocab_size": [2**40, 256, 0, None],
    "width": [2**40, 128, 0, 64.0],
    "layers": [10**6, 4, 0, True],
    "heads": [2**40, 0],
    "mlp_ratio": [1e9, math.nan, math.inf, 4.0, "4"],
    "output_dim": [2**40, 65],
    "prompt_proj_dim": [2**40, 65],
    "num_labels": [10**9],
}


@pytest.mark.parametrize(
    "part, field, value",
    [("vision_config", field, value) for field, values in VISION.items() for value in values]
    + [("text_config", field, value) for field, values in TEXT.items() for value in values],
    ids=lambda value: str(value)[:30],
)
def test_config_that_does_not_fit(folder, part, field, value):
    edit(folder, part=part, **{field: value})
    refused(folder, "config.json", field)


@pytest.mark.parametrize("part", ["vision_config", "text_config"])
@pytest.mark.parametrize("value", [3, [1], "none"])
def test_config_of_no_object(folder, part, value):
    edit(folder, **{part: value})
    refused(folder, "config.json", part)


def test_large_config_is_not_built(folder, tmp_path):
    """Weights of another model, or hardly any, do not let a config make a large one."""
    save_file({"vision_model.prior_prompt": torch.zeros(64)}, folder / "model.safetensors")
    edit(folder, part="vision_config", img_size=16384, highres_selection_module_depth=512)
    code = "import resource, sys, ps3c; resource.setrlimit(resource.RLIMIT_AS, (8 << 30,) * 2); ps3c.load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert "CheckpointError" in done.stderr.splitlines()[-1] and "img_size" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content, word",
    [
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b"[" + b"0," * 9 + b"0]", "list"),
        (b'"text"', "str"),
        (b"\xff\xfe{}", "cannot be read"),
        (b"", "cannot be read"),
        (b"{" + b" " * (65 << 20) + b"}", "bytes, expected at most"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read"),
    ],
    ids=["nested", "nested lists", "list", "text", "not UTF-8", "empty", "large", "long number"],
)
def test_json_that_cannot_be_read(folder, name, content, word):
    (folder / name).write_bytes(content)
    refused(folder, name, word)


# ---- files ---------------------------------------------------------------------------------------------------------

FILES = ["config.json", "preprocessor_config.json", "tokenizer_config.json", "model.safetensors"]


def fifo(path):
    os.mkfifo(path)


def device(path):
    os.symlink("/dev/zero", path)


def listening(path):
    where = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has at most 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(where)


def dangling(path):
    os.symlink(path.parent / "nowhere", path)


def loop(path):
    os.symlink(path.name, path)


def outside(path):
    target = path.parent.parent / "outside.json"
    target.write_text("{}")
    os.symlink(target, path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [fifo, device, listening, dangling, loop, outside, os.mkdir])
def test_no_regular_file(folder, name, make):
    (folder / name).unlink()
    make(folder / name)
    refused(folder, name, "expected a ")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "generation_config.json", "adapter_config.json"])
def test_pipes_that_transformers_would_open(folder, name):
    fifo(folder / name)
    refused(folder, name, "a named pipe")


def test_pipes_in_ps3_torchs_way(folder):
    from ps3 import PS3Tokenizer, PS3VisionModel

    (folder / "config.json").unlink()
    fifo(folder / "config.json")
    for kind in (PS3VisionModel, PS3Tokenizer):
        with pytest.raises(OSError, match="config.json: got a pipe or a device, expected a regular file"):
            kind.from_pretrained(folder)


def test_pipe_in_the_tokenizers_folder(folder):
    name = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_name"]
    shutil.copytree(folder / name, folder / "own")
    edit(folder, "tokenizer_config.json", tokenizer_name=str(folder / "own"))
    assert ps3c.load(folder, device="cpu").text_error is None
    (folder / "own" / "tokenizer.json").unlink()
    fifo(folder / "own" / "tokenizer.json")
    with pytest.raises(ps3c.CheckpointError, match=r"own: tokenizer.json: got a named pipe"):
        ps3c.load(folder, device="cpu")


def test_links_of_the_hub_cache(folder, tmp_path):
    """As huggingface_hub keeps a snapshot: links to ../../blobs. And as it is when the folder itself is a link."""
    blobs, snapshot = (tmp_path / "hub" / "models--a--b" / part for part in ("blobs", "snapshots/0123"))
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in FILES:
        shutil.move(folder / name, blobs / f"hash-{name}")
        os.symlink(f"../../blobs/hash-{name}", snapshot / name)
    shutil.move(folder / "tokenizer", snapshot / "tokenizer")
    assert ps3c.load(snapshot, device="cpu").text_error is None
    (tmp_path / "short").symlink_to(snapshot)
    assert ps3c.load(tmp_path / "short", device="cpu").text_error is None


def test_links_inside_the_folder(folder):
    os.rename(folder / "model.safetensors", folder / "weights.safetensors")
    os.symlink("weights.safetensors", folder / "model.safetensors")
    ps3c.load(folder, device="cpu")


# ---- the index of weights in parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    ["../outside.safetensors", "/etc/passwd", "a/../../x.safetensors", 3, None, ["a.safetensors"], {}, "", "..", ".",
     "nul\0.safetensors", "other.bin", "x" * 10_000, "missing.safetensors", "..\\x.safetensors"],
    ids=lambda part: repr(part)[:20],
)  # fmt: skip
def test_index_that_leads_elsewhere(folder, part):
    os.rename(folder / "model.safetensors", folder.parent / "outside.safetensors")
    index = {"weight_map": {"vision_model.prior_prompt": part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    text = refused(folder)
    assert "model.safetensors.index.json: weight_map[" in text or "is missing, one of its 1 weight files" in text


@pytest.mark.parametrize("content", [[], {}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": "a"}])
def test_index_without_a_map(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    refused(folder, "model.safetensors.index.json")


def test_a_part_that_is_a_pipe(folder):
    (folder / "model.safetensors").unlink()
    fifo(folder / "one.safetensors")
    index = {"weight_map": {"vision_model.prior_prompt": "one.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "one.safetensors", "a named pipe")


# ---- weights -------------------------------------------------------------------------------------------------------


class Harm:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def as_bin(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "content, words",
    [
        ([torch.zeros(3)], "got a list, expected a dict of tensors"),
        (torch.zeros(3), "got a Tensor, expected a dict of tensors"),
        ({"state_dict": {"a": torch.zeros(3)}}, "'state_dict': got a dict, expected a dict of tensors by name"),
        ({3: torch.zeros(3)}, "3: got a Tensor, expected a dict of tensors by name"),
        ({"a": 3}, "'a': got a int, expected a dict of tensors by name"),
        (None, "got a NoneType"),
    ],
)
def test_pickles_of_something_else(folder, content, words):
    as_bin(folder, content)
    refused(folder, "pytorch_model.bin", words)


@pytest.mark.parametrize("old", [False, True])
def test_pickles_are_not_run(folder, tmp_path, old):
    harm = {"vision_model.prior_prompt": Harm(tmp_path / "harm")}
    (folder / "model.safetensors").unlink()
    if old:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(harm))
    else:
        torch.save(harm, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "mkdir), which ps3c does not unpickle" if not old else "cannot be read")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int64])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_dtypes_of_weights(folder, state, dtype, suffix):
    name = "vision_model.trunk.blocks.3.mlp.fc1.weight"
    changed = {**state, name: state[name].to(dtype)}
    if suffix == "bin":
        as_bin(folder, changed)
    else:
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, f".{suffix}: {name}: got dtype ", "expected float32, float16, bfloat16 or float64")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(folder, state, value):
    """A warning names the first of them; the folder is still loaded."""
    names = ["text_model.token_embedding.weight", "vision_model.trunk.blocks.2.norm1.bias"]
    for name in names:
        state = {**state, name: state[name].clone()}
        state[name].view(-1)[7] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="NaN or infinite") as caught:
        ps3c.load(folder, device="cpu")
    (text,) = [str(one.message) for one in caught if "infinite" in str(one.message)]
    assert text.startswith(f"{folder}: model.safetensors: ") and sum(name in text for name in names) == 1


def test_whole_weights_give_no_warning(tiny_checkpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ps3c.load(tiny_checkpoint, device="cpu")


# ---- processor and tokenizer ---------------------------------------------------------------------------------------

PROCESSOR = {
    "image_size": [0, -1, "256", None, 1.5, True, 10**6, 10**400, [], [0, 1], [256, "256"], [1, 2, 3], {}],
    "mean": ["0.5", [0.5, 0.5], [], [math.nan] * 3, math.inf, 10**400, [1e300] * 3, True, {}, [[0.5] * 3], [None] * 3],
    "std": [0, 0.0, [0.5, 0, 0.5], [0.5, -0.5, 0.5], -1, math.nan, "1", [1e-320] * 3, [True] * 3, 10**400],
}


@pytest.mark.parametrize(
    "field, value",
    [(field, value) for field, values in PROCESSOR.items() for value in values],
    ids=lambda value: str(value)[:30],
)
def test_processor_that_cannot_be_used(folder, field, value):
    edit(folder, "preprocessor_config.json", **{field: value})
    refused(folder, "preprocessor_config.json: ", field)


@pytest.mark.parametrize("value", [2**40, 2**63, 10**400, 33, 0, -1, "32", 3.5, True, [32]])
def test_context_length_of_the_tokenizer(folder, value):
    edit(folder, "tokenizer_config.json", context_length=value)
    refused(folder, "tokenizer_config.json: context_length: got ")


@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}])
def test_name_of_the_tokenizer(folder, value):
    edit(folder, "tokenizer_config.json", tokenizer_name=value)
    refused(folder, "tokenizer_config.json: tokenizer_name: got ")


# ---- names of folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["~/m", "../m", "./m", "~user/m", "m", "a b/c", "x" * 5000, "nul\0", "tests/nowhere"])
def test_no_folder_and_no_repository(name, monkeypatch):
    monkeypatch.chdir(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    with pytest.raises(ps3c.CheckpointError, match="the folder does not exist") as caught:
        ps3c.load(name)
    assert "hf download" not in str(caught.value)
    assert ("only a shell" in str(caught.value)) == name.startswith("~")


@pytest.mark.parametrize("arrays", ["pickle", "object"])
def test_results_are_not_unpickled(tmp_path, arrays):
    """load_features never passes on NumPy's advice to load with allow_pickle."""
    import numpy as np

    path = tmp_path / "out.npz"
    if arrays == "pickle":
        path.write_bytes(pickle.dumps([1, 2, 3]))
    else:
        np.savez(path, ps3c=np.array('{"version": 1, "kind": "images"}'), pooled=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=f"^{path}: ") as caught:
        ps3c.load_features(path)
    assert "allow_pickle" not in str(caught.value) and "pickle=" not in str(caught.value)

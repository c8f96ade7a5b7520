"""ps3c.load: the encoder of a folder, and the message for each folder that cannot be used."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import ps3c
from ps3c import _core
from ps3c.torch_api import wrapped_tokenizer


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A copy of the tiny checkpoint that a test may change."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, copy)
    return copy


def edit_config(folder, name="config.json", **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def state_of(folder):
    return load_file(folder / "model.safetensors")


def save_state(folder, state, name="model.safetensors"):
    save_file(state, folder / name, metadata={"format": "pt"})


def split(folder):
    """Splits the weights into two files with an index. Returns the names of the files."""
    state = state_of(folder)
    (folder / "model.safetensors").unlink()
    names, parts = sorted(state), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    halves = [names[::2], names[1::2]]
    for part, half in zip(parts, halves):
        save_state(folder, {name: state[name] for name in half}, part)
    weight_map = {name: part for part, half in zip(parts, halves) for name in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return parts


# ---- folders that can be used ------------------------------------------------------------------------------------


def test_three_in_one(tiny_checkpoint):
    encoder = ps3c.load(tiny_checkpoint, device="cpu")
    model, processor, tokenizer = encoder
    assert isinstance(model, ps3c.PS3Model) and model is encoder.model and not model.training
    assert isinstance(processor, ps3c.PS3ImageProcessor) and isinstance(tokenizer, ps3c.PS3Tokenizer)
    assert encoder.folder == tiny_checkpoint and encoder.scales == [64, 128, 256]
    assert encoder.dtype == torch.bfloat16 and encoder.device == torch.device("cpu")
    assert (encoder.logit_scale, encoder.logit_bias) == (4.0, -10.0)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert str(tiny_checkpoint) in repr(encoder) and "bfloat16" in repr(encoder)


def test_auto_device_without_a_gpu(tiny_checkpoint):
    expected = "cuda" if torch.cuda.is_available() and _core.cuda_error() is None else "cpu"
    assert ps3c.load(str(tiny_checkpoint)).device.type == expected


@pytest.mark.parametrize(
    "dtype, expected",
    [
        ("auto", torch.bfloat16),
        ("float32", torch.float32),
        (torch.float16, torch.float16),
        ("torch.bfloat16", torch.bfloat16),
    ],
)
def test_dtype(tiny_checkpoint, dtype, expected):
    encoder = ps3c.load(tiny_checkpoint, device="cpu", dtype=dtype)
    assert encoder.dtype == expected == encoder.model.text_model.prompt_proj.fc1.weight.dtype


def test_weights_in_parts(folder, encoder):
    split(folder)
    state = ps3c.load(folder, device="cpu", dtype="float32").model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.model.state_dict().items())


def test_pickled_weights(folder, encoder):
    torch.save(state_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    loaded = ps3c.load(folder, device="cpu", dtype="float32")
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.model.state_dict().items())
    assert (loaded.logit_scale, loaded.logit_bias) == (4.0, -10.0)


def test_vision_tower_alone(folder, tmp_path, image_files):
    """Saved as PS3VisionModel, and as a PS3Model's checkpoint whose weights have no text tower."""
    alone = tmp_path / "alone"
    ps3c.PS3VisionModel.from_pretrained(folder).save_pretrained(alone)
    shutil.copy(folder / "preprocessor_config.json", alone)
    save_state(folder, {name: value for name, value in state_of(folder).items() if name.startswith("vision_model.")})
    for path in (alone, folder):
        encoder = ps3c.load(path, device="cpu")
        assert isinstance(encoder.model, ps3c.PS3VisionModel) and encoder.tokenizer is None
        assert encoder.embed_images(image_files[0]).pooled.shape == (1, 64)
        with pytest.raises(ValueError, match=r"^texts: got text, which cannot be encoded: .*: has no text tower$"):
            encoder.embed_texts(["a ship"])
        with pytest.raises(ValueError, match="^text: got text, which cannot be encoded: .*: has no text tower$"):
            encoder.embed_images(image_files, "a ship", looks=1)
        with pytest.raises(ValueError, match="^text: got text, which cannot be encoded"):
            encoder.looks(image_files[0], "a ship")


def test_tokenizer_out_of_reach(folder, image_files):
    edit_config(folder, "tokenizer_config.json", tokenizer_name=str(folder / "nowhere"))
    encoder = ps3c.load(folder, device="cpu")
    assert encoder.embed_images(image_files[0], looks=1).tokens.shape == (1, 96, 64)
    with pytest.raises(ValueError, match="its tokenizer cannot be loaded: .*nowhere"):
        encoder.prompt("a ship")


def test_tokenizer_of_the_hub_is_not_asked_for_by_images(folder, image_files, monkeypatch):
    """Without a network, only a text waits for it, and says what to do in one sentence."""
    edit_config(folder, "tokenizer_config.json", tokenizer_name="nobody/none")
    asked = []
    monkeypatch.setattr(wrapped_tokenizer, "_check_reachable", lambda name: asked.append(name) or 1 / 0)
    encoder = ps3c.load(folder, device="cpu")
    encoder.embed_images(image_files[0], looks=1)
    assert asked == [] and repr(encoder)
    with pytest.raises(ValueError, match="its tokenizer cannot be loaded: tokenizer_name: got 'nobody/none'") as caught:
        encoder.embed_texts("a ship")
    assert "hf download nobody/none" in str(caught.value) and "\n" not in str(caught.value)
    assert encoder.tokenizer is None and "nobody/none" in encoder.text_error and asked == ["nobody/none"]
    encoder.tokenizer = ps3c.PS3Tokenizer(str(folder / "tokenizer"), context_length=8)
    assert encoder.text_error is None and len(encoder.embed_texts("a ship")) == 1


def test_without_logits(folder, image_files):
    state = state_of(folder)
    del state["logit_bias"]
    save_state(folder, state)
    encoder = ps3c.load(folder, device="cpu")
    assert (encoder.logit_scale, encoder.logit_bias) == (4.0, None)
    with pytest.raises(ValueError, match=r"^zero_shot: .* has no logit_bias in its weights"):
        encoder.zero_shot(image_files[0], ["a ship"])


def test_a_few_parameters_missing(folder):
    """Missing parameters keep their initial values, with transformers' warning, as with from_pretrained."""
    state = state_of(folder)
    del state["vision_model.prior_prompt"]
    save_state(folder, state)
    assert torch.isfinite(ps3c.load(folder, device="cpu").model.vision_model.prior_prompt).all()


def test_float64_weights(folder):
    save_state(folder, {name: value.double() for name, value in state_of(folder).items()})
    edit_config(folder, torch_dtype="float64")
    assert ps3c.load(folder, device="cpu").dtype == torch.float32


# ---- folders that cannot -----------------------------------------------------------------------------------------


def without(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lack_a_part(folder):
    (folder / split(folder)[1]).unlink()


def truncate_a_part(folder):
    path = folder / split(folder)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bad_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")


def other_weights(folder):
    save_state(folder, {"transformer.wte.weight": torch.zeros(4, 4)})


def most_missing(folder):
    state = state_of(folder)
    save_state(folder, {name: state[name] for name in sorted(state)[::3]})


def other_shape(folder):
    save_state(folder, {**state_of(folder), "vision_model.prior_prompt": torch.zeros(7)})


def empty_map(folder):
    without("model.safetensors")(folder)
    write("model.safetensors.index.json", "{}")(folder)


BAD = {
    "no config": (without("config.json"), "has no config.json, so it is not a checkpoint folder"),
    "config is not JSON": (write("config.json", "{"), "config.json cannot be read: Expecting property name"),
    "config is a list": (write("config.json", "[]"), "config.json: got a JSON value of type list, expected an object"),
    "another model": (
        lambda f: edit_config(f, model_type="bert"),
        r"config.json: got model_type 'bert', expected 'ps3' or",
    ),
    "no model type": (write("config.json", "{}"), r"config.json: got model_type None"),
    "text alone": (
        lambda f: edit_config(f, model_type="ps3_text_model"),
        "config.json: got model_type 'ps3_text_model'",
    ),
    "bad config": (lambda f: edit_config(f, vision_config={"model_name": "resnet50"}), "model_name: got 'resnet50'"),
    "no weights": (without("model.safetensors"), "has no weights, expected model.safetensors or pytorch_model.bin"),
    "empty weights": (write("model.safetensors", ""), "model.safetensors is truncated or damaged: "),
    "truncated": (truncate, "model.safetensors is truncated or damaged: "),
    "lfs": (
        write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "model.safetensors is a Git LFS pointer",
    ),
    "part missing": (lack_a_part, "model-00002-of-00002.safetensors is missing, one of its 2 weight files"),
    "part truncated": (truncate_a_part, "model-00001-of-00002.safetensors is truncated or damaged: "),
    "empty map": (empty_map, "model.safetensors.index.json has no weight_map"),
    "bad pickle": (bad_pickle, "pytorch_model.bin cannot be read: "),
    "other weights": (other_weights, "its weight files lack .* of the model's .* parameters, for example .*;"),
    "most missing": (most_missing, "its weight files lack .* of the model's .* parameters"),
    "other shape": (other_shape, r"size mismatch|prior_prompt"),
    "no processor": (without("preprocessor_config.json"), "has no preprocessor_config.json"),
    "bad processor": (
        lambda f: edit_config(f, "preprocessor_config.json", image_size="large"),
        "preprocessor_config.json: image_size: got 'large'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_folder(folder, case):
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(ps3c.CheckpointError, match=message) as caught:
        ps3c.load(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder}: ") and "\n" not in text and len(text) < 600
    assert isinstance(caught.value, ValueError)


def test_no_folder(tmp_path):
    with pytest.raises(ps3c.CheckpointError, match="nowhere: the folder does not exist$"):
        ps3c.load(tmp_path / "nowhere")
    with pytest.raises(ps3c.CheckpointError, match="the folder does not exist; .* hf download nvidia/PS3-4K-SigLIP2$"):
        ps3c.load("nvidia/PS3-4K-SigLIP2")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ps3c.CheckpointError, match="got a file, expected a checkpoint folder"):
        ps3c.load(file)
    with pytest.raises(TypeError, match="folder: got int, expected a path"):
        ps3c.load(3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(device="gpu"), "device: got 'gpu', expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (dict(device="meta"), "device: got 'meta'"),
        (dict(device="cuda:97"), "device: got 'cuda:97', expected one of the .* GPUs that torch .* finds"),
        (dict(dtype="int8"), "dtype: got 'int8', expected 'auto', 'float32', 'float16', 'bfloat16'"),
        (dict(dtype=torch.float64), "dtype: got torch.float64"),
        (dict(dtype=None), "dtype: got None"),
    ],
)
def test_bad_arguments(tiny_checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        ps3c.load(tiny_checkpoint, **arguments)


@pytest.mark.parametrize("code", ["import ps3c", "import ps3", "sys.argv[0] = 'ps3c'; import ps3c; ps3c.load"])
def test_without_the_compiled_part(code):
    """If `import ps3c` finds the sources, the message says so and does not mention a circular import."""
    code = f"import sys; sys.modules['ps3c._core'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ps3c's compiled part, ps3c._core, cannot be loaded (" in done.stderr.splitlines()[-1]

"""The engine's own reader of checkpoint folders, against the configurations and weights of the torch classes."""

import json
import os
import struct
import subprocess
import sys

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ps3c import PS3Config, PS3Model, PS3VisionModel
from ps3c.engine.core import Checkpoint, trunks
from ps3c.torch_api.architectures import ARCHITECTURES
from ps3c.torch_api.vision_config import engine_config

PREPROCESSOR = {"image_size": 256, "mean": [0.5, 0.4, 0.3], "std": 0.25, "interpolation": "bilinear"}
BITS = {torch.float32: np.uint32, torch.float16: np.uint16, torch.bfloat16: np.uint16}


def write(folder, config, state, **options):
    folder.mkdir(exist_ok=True)
    config.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", **options)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def bits(array):
    """The bytes of a tensor or array; the engine's arrays have uint16 for bfloat16."""
    if isinstance(array, torch.Tensor):
        array = array.detach().contiguous().view({4: torch.int32, 2: torch.int16, 8: torch.int64}[array.element_size()])
        return array.numpy().tobytes()
    return np.ascontiguousarray(array).tobytes()


def assert_same_weights(names, arrays, state, prefix):
    assert len(names) == len(arrays)
    for (name, shape), array in zip(names, arrays):
        assert array.shape == shape and bits(array) == bits(state[prefix + name]), name


def engine_text_config(tower):
    """The engine's configuration that the torch class makes."""
    found = []
    tower._engine.model = lambda root, kind, config: found.append(config)
    try:
        tower._engine_model()
    finally:
        del tower._engine.model
    return found[0]


@pytest.mark.parametrize("name", models.VISION)
def test_vision_configuration(name, tmp_path):
    if name == "patch14":
        pytest.skip("a trunk that the tests alone register; the table of trunks does not have it")
    model = models.ours("vision", name)
    write(tmp_path, model.config, model.state_dict())
    checkpoint = Checkpoint(tmp_path)
    expected = engine_config(model.vision_model)
    got = checkpoint.vision
    for field in ("norm_eps", "pool_eps"):
        assert got.pop(field) == np.float32(expected.pop(field))
    assert got == expected
    names = model.vision_model._engine_model()._model.weights
    assert_same_weights(names, checkpoint.vision_weights, model.state_dict(), "vision_model.")
    assert checkpoint.text is None and checkpoint.text_weights == []
    assert checkpoint.preprocessing == {
        "size": (256, 256),
        "mean": tuple(map(float, np.float32([0.5, 0.4, 0.3]))),
        "std": (0.25, 0.25, 0.25),
        "filter": "bilinear",
    }
    assert checkpoint.dtype == "float32" and set(checkpoint.tensors()) == set(model.state_dict())


@pytest.mark.parametrize("name", models.TEXT)
def test_text_configuration(name, tmp_path):
    vision, text = models.ours("vision", "test_vit"), models.ours("text", name)
    state = {**vision.state_dict(), **text.state_dict()}
    config = PS3Config(vision_config=vision.config.to_dict(), text_config=text.config.to_dict())
    checkpoint = Checkpoint(write(tmp_path, config, state))
    expected, got = engine_text_config(text.text_model), checkpoint.text
    assert got.pop("norm_eps") == np.float32(expected.pop("norm_eps"))
    assert got == expected
    names = text.text_model._engine_model()._model.weights
    assert_same_weights(names, checkpoint.text_weights, state, "text_model.")


def test_defaults_are_those_of_the_torch_classes(tmp_path):
    """A config.json without a field, or with null."""
    model = models.ours("vision", "test_vit")
    write(tmp_path, model.config, model.state_dict())
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("max_select_num_each_scale", "radio", "final_norm", "separate_pos_emb", "dynamic_img_size"):
        for change in ("absent", None):
            changed = dict(values)
            changed.pop(name)
            if change is None:
                changed[name] = None
            (tmp_path / "config.json").write_text(json.dumps(changed))
            if change is None and name in ("separate_pos_emb", "dynamic_img_size"):
                continue  # null is false in Python
            expected = engine_config(PS3VisionModel.from_pretrained(tmp_path).vision_model)
            got = Checkpoint(tmp_path).vision
            assert {key: value for key, value in got.items() if "eps" not in key} == {
                key: value for key, value in expected.items() if "eps" not in key
            }


def test_trunks_are_those_of_the_torch_classes():
    assert [entry[0] for entry in trunks()] == [name for name in ARCHITECTURES if not name.startswith("ps3c_test")]
    for name, *sizes in trunks():
        a = ARCHITECTURES[name]
        assert sizes == [a.width, a.depth, a.heads, a.mlp_ratio, a.patch, a.img_size, a.class_token, a.gelu], name


# ---- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    model = models.ours("vision", "test_vit")
    return write(tmp_path / "model", model.config, model.state_dict())


@pytest.fixture
def state(folder):
    return {
        name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()
    }  # not the file itself


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16])
def test_conversion_is_torchs(folder, state, stored, wanted):
    values = torch.tensor([0.0, -0.0, 1e-8, 6e-8, 6.1e-5, 65504.0, 65520.0, 3e38, float("inf"), float("-inf")])
    values = torch.cat([values, torch.randn(54, generator=torch.Generator().manual_seed(0)) * 300])
    state["vision_model.prior_prompt"] = values
    state = {name: tensor.to(stored) for name, tensor in state.items()}
    save_file(state, folder / "model.safetensors")
    checkpoint = Checkpoint(folder, str(wanted).removeprefix("torch."))
    names = models.ours("vision", "test_vit").vision_model._engine_model()._model.weights
    expected = {name: tensor.to(torch.float32).to(wanted) for name, tensor in state.items()}
    assert_same_weights(names, checkpoint.vision_weights, expected, "vision_model.")


def test_conversion_keeps_nan(folder, state):
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        state["vision_model.prior_prompt"] = torch.full((64,), float("nan"))
        save_file(state, folder / "model.safetensors")
        names = [name for name, _ in models.ours("vision", "test_vit").vision_model._engine_model()._model.weights]
        array = Checkpoint(folder, str(dtype).removeprefix("torch.")).vision_weights[names.index("prior_prompt")]
        values = torch.from_numpy(array.view({4: np.int32, 2: np.int16}[array.itemsize]).copy()).view(dtype)
        assert values.isnan().all()


@pytest.mark.parametrize("named", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value, expected", [("bfloat16", "bfloat16"), ("torch.float16", "float16"), (None, "float32")])
def test_dtype_of_config(folder, named, value, expected):
    values = json.loads((folder / "config.json").read_text())
    values.pop("dtype", None), values.pop("torch_dtype", None)
    values[named] = value
    (folder / "config.json").write_text(json.dumps(values))
    assert Checkpoint(folder).dtype == expected


def test_nothing_is_copied(folder, state):
    checkpoint = Checkpoint(folder)
    weights = checkpoint.vision_weights
    tensors = checkpoint.tensors()
    assert all(not array.flags.owndata and array.base is checkpoint for array in weights)
    first, second = weights[0], checkpoint.vision_weights[0]
    assert first.ctypes.data == second.ctypes.data
    assert any(first.ctypes.data == array.ctypes.data for array in tensors.values())
    before = (folder / "model.safetensors").read_bytes()
    first[...] = 0  # this process's pages alone
    assert not second.any() and (folder / "model.safetensors").read_bytes() == before
    assert Checkpoint(folder).vision_weights[0].any()


def test_arrays_keep_the_file(folder):
    array = Checkpoint(folder).vision_weights[0]
    (folder / "model.safetensors").unlink()
    assert np.isfinite(array).all()


@pytest.mark.parametrize("prefix", ["vision_model.", "visual.", ""])
def test_prefixes(folder, state, prefix):
    """PS3's, open_clip's, and a bare tower's."""
    save_file({prefix + name.removeprefix("vision_model."): one for name, one in state.items()}, folder / "x")
    os.replace(folder / "x", folder / "model.safetensors")
    names = models.ours("vision", "test_vit").vision_model._engine_model()._model.weights
    assert_same_weights(names, Checkpoint(folder).vision_weights, state, "vision_model.")


def test_sharded(folder, state):
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "sub/b.safetensors": names[1::2]}
    (folder / "sub").mkdir()
    for file, own in parts.items():
        save_file({name: state[name] for name in own}, folder / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    checkpoint = Checkpoint(folder)
    assert_same_weights(
        models.ours("vision", "test_vit").vision_model._engine_model()._model.weights,
        checkpoint.vision_weights,
        state,
        "vision_model.",
    )
    (folder / "a.safetensors").write_bytes((folder / "sub" / "b.safetensors").read_bytes())
    with pytest.raises(ValueError, match="is there twice"):
        Checkpoint(folder)


def test_misaligned_data(folder, state):
    """Another writer may pad the header to any length."""
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = content[8 : 8 + length] + b" " * (1 + 8 - length % 8)
    changed = struct.pack("<Q", len(header)) + header + content[8 + length :]
    (folder / "model.safetensors").write_bytes(changed)
    names = models.ours("vision", "test_vit").vision_model._engine_model()._model.weights
    weights = Checkpoint(folder).vision_weights
    assert all(array.flags.aligned for array in weights)
    assert_same_weights(names, weights, state, "vision_model.")


def test_a_file_that_shrinks(folder):
    checkpoint = Checkpoint(folder)
    checkpoint.check()
    os.truncate(folder / "model.safetensors", 5000)
    with pytest.raises(ValueError, match="model.safetensors: got 5000 bytes, expected .* was changed"):
        checkpoint.check()


def test_processes_share_the_pages(folder, state):
    """Of weights that are read, nearly nothing is a process's own memory."""
    state["unused"] = torch.ones(1 << 23)  # 32 MB
    save_file(state, folder / "model.safetensors")
    code = (
        "import re, sys, numpy as np\n"
        "from ps3c.engine.core import Checkpoint\n"
        "def own(): return int(re.search(r'Private_Dirty: +(\\d+)', open('/proc/self/smaps_rollup').read())[1])\n"
        "before = own(); array = Checkpoint(sys.argv[1]).tensors()['unused']; assert array.sum() == 1 << 23\n"
        "print(own() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4096  # KiB


# ---- other folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda header: header.update({"vision_model.x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
            "byte",
        ),
        (lambda header: header["vision_model.prior_prompt"].update(shape=[2**40, 2**40]), "more elements than memory"),
        (lambda header: header["vision_model.prior_prompt"].update(shape=[-1]), "expected 0 or more"),
        (lambda header: header["vision_model.prior_prompt"].update(shape=[64.0]), "expected 0 or more"),
        (lambda header: header["vision_model.prior_prompt"].update(shape=[1] * 9), "expected at most 8"),
        (lambda header: header["vision_model.prior_prompt"].update(shape=[65]), "expected 260"),
        (lambda header: header["vision_model.prior_prompt"].update(shape=64), "has no shape"),
        (lambda header: header["vision_model.prior_prompt"].update(dtype="F128"), "got dtype"),
        (lambda header: header["vision_model.prior_prompt"].update(dtype=3), "has no dtype"),
        (lambda header: header["vision_model.prior_prompt"].update(data_offsets=[0]), "data_offsets"),
        (lambda header: header["vision_model.prior_prompt"].update(data_offsets=[256, 0]), "data_offsets"),
        (lambda header: header["vision_model.prior_prompt"].update(data_offsets=[2**62, 2**62 + 256]), "ends at byte"),
        (lambda header: header["vision_model.prior_prompt"].update(data_offsets=[-256, 0]), "data_offsets"),
        (lambda header: header.update({"vision_model.prior_prompt": [1, 2]}), "has no dtype"),
        (lambda header: header.pop("vision_model.prior_prompt"), "expected"),
    ],
)
def test_headers_that_lie(folder, change, words):
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ValueError, match=words) as caught:
        Checkpoint(folder)
    assert "model.safetensors" in str(caught.value) or "config.json" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**63, 2**64 - 1, 101 << 20])
def test_headers_of_a_wrong_length(folder, length):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content[8:])
    with pytest.raises(ValueError, match="model.safetensors"):
        Checkpoint(folder)


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
def test_truncated(folder, part):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="model.safetensors is truncated or damaged"):
        Checkpoint(folder)


def test_more_than_the_header_says(folder):
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="got 1 bytes after the last tensor"):
        Checkpoint(folder)


def test_a_pointer_of_git_lfs(folder):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer, not the file itself; git lfs pull"):
        Checkpoint(folder)


def test_pickles_need_torch(folder, state):
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="whose pickled objects only torch reads"):
        Checkpoint(folder)


def test_numbers_do_not_depend_on_the_locale(tmp_path):
    """strtod reads "3.7362" as 3 where the decimal point is a comma."""
    vision, text = models.ours("vision", "test_vit"), models.ours("text", next(iter(models.TEXT)))
    config = PS3Config(vision_config=vision.config.to_dict(), text_config=text.config.to_dict())
    write(tmp_path, config, PS3Model(config).state_dict())
    code = (
        "import locale, sys\n"
        "from ps3c.engine.core import Checkpoint\n"
        "for name in ('de_DE.UTF-8', 'fr_FR.UTF-8', 'de_DE'):\n"
        "    try: locale.setlocale(locale.LC_ALL, name); break\n"
        "    except locale.Error: pass\n"
        "print(Checkpoint(sys.argv[1]).text['mlp_hidden'], locale.localeconv()['decimal_point'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(Checkpoint(tmp_path).text["mlp_hidden"])
    if done.stdout.split()[1] != ",":
        pytest.skip("this machine has no locale with a decimal comma")


# ---- values that are refused -----------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path):
    """A folder with both towers."""
    vision, text = models.ours("vision", "test_vit"), models.ours("text", "siglip")
    config = PS3Config(vision_config=vision.config.to_dict(), text_config=text.config.to_dict())
    return write(tmp_path / "model", config, {**vision.state_dict(), **text.state_dict()})


def edit(folder, file, **changes):
    """Changes fields of a JSON file; "vision_config.pool" is a field of a field, and ... removes one."""
    path = folder / file
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = values
        for part in parts:
            place = place[part]
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value
    path.write_text(json.dumps(values))


RADIO = {f"vision_config__{name}": value for name, value in models.RADIO.items() if name != "img_size"}
RADIO["vision_config__radio_adapter_mlp_input_dim"] = 64  # the width of test_vit


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_type": ...}, "config.json: got model_type none, expected 'ps3' or 'ps3_vision_model'"),
        ({"model_type": "siglip"}, "config.json: got model_type 'siglip', expected"),
        ({"model_type": "ps3_text_model"}, "config.json: got model_type 'ps3_text_model', a text tower only"),
        ({"dtype": "int8", "torch_dtype": ...}, "config.json: dtype: got 'int8', expected 'float32'"),
        ({"vision_config__model_name": ...}, "vision_config.model_name: got none"),
        ({"vision_config__pool": "avg"}, "vision_config.pool: got 'avg', expected 'map'"),
        ({"vision_config__pretrained": True}, "vision_config.pretrained: got true"),
        ({"vision_config__class_token": True}, "vision_config.class_token: got true"),
        ({"vision_config__dynamic_img_size": False}, "vision_config.dynamic_img_size: got false"),
        (
            {"vision_config__separate_pos_emb": "yes"},
            "vision_config.separate_pos_emb: got 'yes', expected true or false",
        ),
        ({"vision_config__img_size": 8}, "vision_config.img_size: got 8, expected 16 or more"),
        ({"vision_config__model_name": "a" + "é" * 90}, "vision_config.model_name: got 'aéé"),
        ({**RADIO, "vision_config__radio_adapter_mlp_version": "v3"}, "radio_adapter_mlp_version: got 'v3'"),
        ({**RADIO, "vision_config__radio_adapter_mlp_hidden_dim": None}, "radio_adapter_mlp_hidden_dim: got none"),
        ({**RADIO, "vision_config__radio_adapter_mlp_output_dim": 7}, "radio_adapter_mlp_output_dim: got 7"),
        ({**RADIO, "vision_config__radio_adapter_mlp_input_dim": 64}, "vision_config.grid: got 4 with crop_positions"),
        ({"text_config__pool_type": "mean"}, "text_config.pool_type: got 'mean'"),
        ({"text_config__act_kwargs": {"approximate": "erf"}}, "text_config.act_kwargs: got 'erf'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_refused(whole, changes, words):
    Checkpoint(whole)
    edit(whole, "config.json", **changes)
    with pytest.raises(ValueError, match=f"^config.json: .*{words.removeprefix('config.json: ')}"):
        Checkpoint(whole)


def test_scales_in_any_order(whole):
    expected = Checkpoint(whole).vision
    edit(whole, "config.json", vision_config__ps3_scales=[256, 64, 128])
    assert Checkpoint(whole).vision == expected


@pytest.mark.parametrize("value", ["area", "lanczos"])
def test_interpolations(folder, value):
    for known, name in (("random", "bicubic"), ("bicubic", "bicubic"), ("bilinear", "bilinear")):
        edit(folder, "preprocessor_config.json", interpolation=known)
        assert Checkpoint(folder).preprocessing["filter"] == name
    edit(folder, "preprocessor_config.json", interpolation=value)
    with pytest.raises(ValueError, match=f"preprocessor_config.json: interpolation: got '{value}'"):
        Checkpoint(folder)
    edit(folder, "preprocessor_config.json", interpolation="bicubic", resize_mode="longest")
    with pytest.raises(ValueError, match="preprocessor_config.json: resize_mode: got 'longest', expected 'squash'"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"^has no {name}"):
        Checkpoint(folder)


@pytest.mark.parametrize("dtype", ["int8", "float64", 3])
def test_dtypes_to_compute_in(folder, dtype):
    with pytest.raises((TypeError, ValueError), match="^dtype: got"):
        Checkpoint(folder, dtype)


@pytest.mark.parametrize(
    "text, valid",
    [
        (r'"\u00e9\u20ac\ud83d\ude00\n\"\\\/\b\f\r\t"', True),
        ('"é€😀"', True),
        (r'"\ud83d"', False),
        (r'"\ude00\ud83d"', False),
        (r'"\ud83dx"', False),
        (r'"\u12g4"', False),
        (b'"\xed\xa0\x80"', False),
        (b'"\xf4\x90\x80\x80"', False),
        (b'"\xc0\x80"', False),
        (b'"\xe2\x82"', False),
        ("1e-400", True),
        ("-0.0E+5", True),
        ("[" + "[" * 61 + "]" * 61 + "]", True),
        ("[" * 70 + "]" * 70, False),
        ("[1,]", False),
        ('{"a" 1}', False),
        ("01", False),
        ("+1", False),
        ("1.", False),
        ("tru", False),
        ("'a'", False),
        ("[" + "0," * (1 << 22) + "0]", False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json(folder, text, valid):
    """An unknown field of any value is passed over."""
    content = (folder / "config.json").read_bytes().rstrip().removesuffix(b"}")
    text = text.encode() if isinstance(text, str) else text
    (folder / "config.json").write_bytes(content + b', "x": ' + text + b"}")
    if valid:
        json.loads((folder / "config.json").read_text())
        Checkpoint(folder)
    else:
        with pytest.raises(ValueError, match="^config.json"):
            Checkpoint(folder)


def test_other_dtypes_may_be_there(folder, state):
    """Of tensors that are no weights."""
    state["table"] = torch.arange(4).to(torch.float8_e4m3fn)
    save_file(state, folder / "model.safetensors")
    assert Checkpoint(folder).tensors()["table"] is None


def test_links_of_the_hub_cache(folder, tmp_path):
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    os.rename(folder / "model.safetensors", blobs / "0123")
    os.symlink(blobs / "0123", folder / "model.safetensors")
    Checkpoint(folder)
    os.rename(blobs, tmp_path / "elsewhere")
    (folder / "model.safetensors").unlink()
    os.symlink(tmp_path / "elsewhere" / "0123", folder / "model.safetensors")
    with pytest.raises(ValueError, match="outside the folder"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    "header, words",
    [
        ("[]", "its header is no object"),
        ('{"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}', "no whole number of bytes"),
    ],
)
def test_other_headers(folder, header, words):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0\0")
    with pytest.raises(ValueError, match=words):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_empty_files(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"^{name}"):
        Checkpoint(folder)


def test_a_name_that_no_file_can_have(folder):
    index = {"weight_map": {"vision_model.prior_prompt": "x" * 300 + ".safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="xxx.safetensors cannot be read: File name too long"):
        Checkpoint(folder)

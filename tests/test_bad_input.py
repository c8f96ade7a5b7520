"""Bad input: the exact exception, a message that names the argument, what came and what was expected, and a model that
afterwards gives the same bits as before."""

import copy
import json
import os
import subprocess
import sys
import textwrap

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

import ps3c

SIZE = (1, 60, 80)


def run(model, pixels=None, **arguments):
    pixels = models.image(*SIZE) if pixels is None else pixels
    with torch.no_grad():
        return model(pixels, **(arguments or {"num_look_close": 1}))


@pytest.fixture(scope="module")
def model():
    return models.build_ours("vision", "no_highres")


@pytest.fixture(autouse=True)
def _still_right(request):
    """Before and after every test that uses the model: the same output."""
    if "model" not in request.fixturenames:
        yield
        return
    model = request.getfixturevalue("model")
    before = run(model, num_look_close=2)
    yield
    after = run(model, num_look_close=2)
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)
    assert all(torch.equal(a, b) for a, b in zip(before.selection_maps, after.selection_maps))


def refuses(kind, *fragments):
    """pytest.raises of exactly `kind` (no subclass of it), its message holding every fragment."""

    class Refusal:
        def __enter__(self):
            self.raises = pytest.raises(kind)
            self.info = self.raises.__enter__()

        def __exit__(self, *exception):
            done = self.raises.__exit__(*exception)
            assert self.info.type is kind, self.info.type
            missing = [fragment for fragment in fragments if fragment not in str(self.info.value)]
            assert not missing, (missing, str(self.info.value))
            return done

    return Refusal()


# ---- pixel_values -------------------------------------------------------------------------------------------------

PIXELS = {
    "three dimensions": (torch.zeros(3, 8, 8), ValueError, ["pixel_values", "(3, 8, 8)", "(batch, 3, height, width)"]),
    "five dimensions": (torch.zeros(1, 1, 3, 8, 8), ValueError, ["pixel_values", "(1, 1, 3, 8, 8)"]),
    "one channel": (torch.zeros(1, 1, 8, 8), ValueError, ["pixel_values", "(1, 1, 8, 8)", "3"]),
    "four channels": (torch.zeros(1, 4, 8, 8), ValueError, ["pixel_values", "(1, 4, 8, 8)", "3"]),
    "no image": (torch.zeros(0, 3, 8, 8), ValueError, ["pixel_values", "(0, 3, 8, 8)"]),
    "no rows": (torch.zeros(1, 3, 0, 8), ValueError, ["pixel_values", "(1, 3, 0, 8)"]),
    "no columns": (torch.zeros(1, 3, 8, 0), ValueError, ["pixel_values", "(1, 3, 8, 0)"]),
    "bfloat16 for float32 weights": (
        torch.zeros(1, 3, 8, 8).bfloat16(),
        TypeError,
        ["pixel_values", "torch.bfloat16", "torch.float32"],
    ),
    "float64": (torch.zeros(1, 3, 8, 8).double(), TypeError, ["pixel_values", "torch.float64", "torch.float32"]),
    "integers": (torch.zeros(1, 3, 8, 8).byte(), TypeError, ["pixel_values", "torch.uint8", "torch.float32"]),
    "complex": (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, ["pixel_values", "complex"]),
    "conjugate": (torch.zeros(1, 3, 8, 8, dtype=torch.complex64).conj(), TypeError, ["pixel_values", "conjugate"]),
    "negative bit": (
        torch.zeros(1, 3, 8, 8, dtype=torch.complex64).conj().imag,
        TypeError,
        ["pixel_values", "negative bit"],
    ),
    "quantised": (
        torch.quantize_per_tensor(torch.zeros(1, 3, 8, 8), 1.0, 0, torch.quint8),
        TypeError,
        ["pixel_values", "quantised"],
    ),
    "meta": (torch.zeros(1, 3, 8, 8, device="meta"), (RuntimeError, TypeError), ["pixel_values", "meta"]),
    "sparse": (torch.zeros(1, 3, 8, 8).to_sparse(), TypeError, ["pixel_values", "sparse"]),
    "not a tensor": ([[1.0]], TypeError, ["pixel_values", "list"]),
    "None": (None, TypeError, ["pixel_values", "None"]),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_values(model, name):
    pixels, kind, fragments = PIXELS[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    with torch.no_grad(), pytest.raises(kinds) as info:
        model(pixels, num_look_close=1)
    assert info.type in kinds
    assert all(fragment in str(info.value) for fragment in fragments), str(info.value)


def test_strided_views_are_the_values_they_stand_for(model):
    pixels = models.image(2, 61, 83)
    expected = run(model, pixels).last_hidden_state
    wide = torch.zeros(2, 3, 61, 200)
    wide[..., 10:176:2] = pixels
    assert torch.equal(run(model, wide[..., 10:176:2]).last_hidden_state, expected)
    assert torch.equal(
        run(model, pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)).last_hidden_state, expected
    )
    assert torch.equal(run(model, pixels[:1].expand(3, -1, -1, -1)).last_hidden_state[2], expected[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["everywhere", "one pixel"])
def test_numbers_that_are_none_propagate(model, value, where):
    pixels = models.image(*SIZE)
    if where == "everywhere":
        pixels[:] = value
    else:
        pixels[0, 1, 30, 40] = value
    output = run(model, pixels)
    theirs = models.theirs("vision", "no_highres")
    with torch.no_grad():
        other = theirs(pixels, num_look_close=1)
    assert [int(maps.sum()) for maps in output.selection_maps] == [int(maps.sum()) for maps in other.selection_maps]
    assert bool(((output.selection_maps[0] == 0) | (output.selection_maps[0] == 1)).all())
    assert not torch.isfinite(output.last_hidden_state).all()
    assert torch.equal(torch.isnan(output.selection_probs[0]), torch.isnan(other.selection_probs[0]))
    assert torch.equal(torch.isnan(output.last_hidden_state), torch.isnan(other.last_hidden_state))


def test_nan_and_many_looks(model):
    """The reference fails here (no patch is ever taken); ps3c takes every patch once."""
    output = run(model, torch.full((1, 3, 60, 80), float("nan")), num_look_close="all")
    assert all(int(maps.max()) == 1 for maps in output.selection_maps)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (2, 1)])
def test_tiny_images_are_good(model, height, width):
    assert torch.isfinite(run(model, torch.zeros(1, 3, height, width)).last_hidden_state).all()


# ---- the other arguments ------------------------------------------------------------------------------------------

ARGUMENTS = {
    "neither": ({"prompt": None}, ValueError, ["num_look_close", "num_token_look_close", "neither"]),
    "negative looks": ({"num_look_close": -1}, ValueError, ["num_look_close", "-1"]),
    "half a look": ({"num_look_close": 1.5}, TypeError, ["num_look_close", "1.5", "integer"]),
    "a word": ({"num_look_close": "some"}, ValueError, ["num_look_close", "'some'", "'all'"]),
    "a list of looks": ({"num_look_close": [1]}, TypeError, ["num_look_close", "list"]),
    "True looks": ({"num_look_close": True}, TypeError, ["num_look_close", "True"]),
    "negative patches": ({"num_token_look_close": -5}, ValueError, ["num_token_look_close", "-5"]),
    "half a patch": ({"num_token_look_close": 2.5}, TypeError, ["num_token_look_close", "2.5", "integer"]),
    "both, two looks": (
        {"num_look_close": 2, "num_token_look_close": 9},
        ValueError,
        ["num_look_close", "num_token_look_close"],
    ),
    "prompt too narrow": ({"prompt": torch.zeros(1, 7)}, ValueError, ["prompt", "(1, 7)", "192"]),
    "prompt of one dimension": ({"prompt": torch.zeros(192)}, ValueError, ["prompt", "(192,)", "192"]),
    "prompt of three": ({"prompt": torch.zeros(1, 1, 192)}, ValueError, ["prompt", "(1, 1, 192)"]),
    "prompt of another batch": ({"prompt": torch.zeros(3, 192)}, ValueError, ["prompt", "3", "1"]),
    "prompt of another dtype": ({"prompt": torch.zeros(1, 192).half()}, TypeError, ["prompt", "torch.float16"]),
    "prompt of words": ({"prompt": "a cat"}, TypeError, ["prompt", "str"]),
    "gt maps of two dimensions": (
        {"gt_selection_maps": torch.zeros(8, 8)},
        ValueError,
        ["gt_selection_maps", "(8, 8)"],
    ),
    "gt maps of four": (
        {"gt_selection_maps": torch.zeros(1, 1, 8, 8)},
        ValueError,
        ["gt_selection_maps", "(1, 1, 8, 8)"],
    ),
    "gt maps of another batch": (
        {"gt_selection_maps": torch.zeros(2, 8, 8)},
        ValueError,
        ["gt_selection_maps", "2", "1"],
    ),
    "empty gt maps": ({"gt_selection_maps": torch.zeros(1, 0, 8)}, ValueError, ["gt_selection_maps", "(1, 0, 8)"]),
    "no scale": ({"only_select_first_n_scale": 0}, ValueError, ["only_select_first_n_scale", "0", "1 to 2"]),
    "negative scales": ({"only_select_first_n_scale": -1}, ValueError, ["only_select_first_n_scale", "-1", "1 to 2"]),
    "too many scales": ({"only_select_first_n_scale": 3}, ValueError, ["only_select_first_n_scale", "3", "1 to 2"]),
    "scales for another batch": (
        {"only_select_first_n_scale": [1, 2]},
        ValueError,
        ["only_select_first_n_scale", "2", "1"],
    ),
    "half a scale": ({"only_select_first_n_scale": 1.5}, TypeError, ["only_select_first_n_scale", "1.5"]),
    "pretraining with looks": (
        {"output_hidden_states": False, "num_look_close": 1},
        ValueError,
        ["num_look_close", "output_hidden_states"],
    ),
    "pretraining with patches": (
        {"output_hidden_states": False, "num_token_look_close": 1},
        ValueError,
        ["num_token_look_close"],
    ),
    "pretraining with first scales": (
        {"output_hidden_states": False, "only_select_first_n_scale": 1},
        ValueError,
        ["only_select_first_n_scale"],
    ),
    "pooling without gt maps": (
        {"output_hidden_states": False, "pool_gt_token_only": True},
        ValueError,
        ["pool_gt_token_only", "gt_selection_maps"],
    ),
    "is_global_text of one dimension": (
        {"output_hidden_states": False, "is_global_text": torch.ones(1)},
        ValueError,
        ["is_global_text", "(1,)", "(1, 1)"],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(model, name):
    arguments, kind, fragments = ARGUMENTS[name]
    arguments = dict(arguments)
    if name not in ("neither",) and "num_token_look_close" not in arguments and "output_hidden_states" not in arguments:
        arguments.setdefault("num_look_close", 1)
    with refuses(kind, *fragments):
        run(model, **arguments)


QUOTAS = {
    "too few": ([64], ValueError, ["max_select_num_each_scale", "1", "2"]),
    "too many": ([1, 2, 3], ValueError, ["max_select_num_each_scale", "3", "2"]),
    "zero": ([0, 5], ValueError, ["max_select_num_each_scale", "0", "positive"]),
    "negative": ([5, -1], ValueError, ["max_select_num_each_scale", "-1", "positive"]),
    "half": ([5, 1.5], TypeError, ["max_select_num_each_scale", "1.5"]),
    "a number": (64, TypeError, ["max_select_num_each_scale", "64", "list"]),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quotas_assigned(model, name):
    quotas, kind, fragments = QUOTAS[name]
    saved = model.vision_model.max_select_num_each_scale
    try:
        model.vision_model.max_select_num_each_scale = quotas
        with refuses(kind, *fragments):
            run(model)
    finally:
        model.vision_model.max_select_num_each_scale = saved


@pytest.mark.parametrize("layers, kind", [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_hidden_layers_assigned(model, layers, kind):
    saved = model.vision_model.num_hidden_layers_to_return
    try:
        model.vision_model.num_hidden_layers_to_return = layers
        with refuses(kind, "num_hidden_layers_to_return", str(layers)):
            run(model)
    finally:
        model.vision_model.num_hidden_layers_to_return = saved


# ---- configurations -----------------------------------------------------------------------------------------------

CONFIGS = {
    "unknown trunk": (
        {"model_name": "vit_tiny_patch16_225"},
        ValueError,
        ["vit_tiny_patch16_225", "vit_tiny_patch16_224"],
    ),
    "no trunk": ({"model_name": None}, TypeError, ["model_name", "None"]),
    "pretrained": ({"pretrained": True}, ValueError, ["pretrained", "from_pretrained"]),
    "average pool": ({"pool": "avg"}, ValueError, ["pool", "'avg'", "'map'"]),
    "class token": ({"class_token": True}, ValueError, ["class_token"]),
    "one scale": ({"ps3_scales": [64]}, ValueError, ["ps3_scales", "[64]"]),
    "a scale off the patches": ({"ps3_scales": [65, 128]}, ValueError, ["ps3_scales", "65", "16"]),
    "a scale beyond counting": (
        {"ps3_scales": [64, 2**26], "separate_pos_emb": False},
        ValueError,
        ["ps3_scales", str(2**26)],
    ),
    "scale of zero": ({"ps3_scales": [0, 64]}, ValueError, ["ps3_scales", "0"]),
    "selection layer too far": ({"select_based_on_layer": [0, 12]}, ValueError, ["select_based_on_layer", "12", "11"]),
    "selection layer too low": ({"select_based_on_layer": [-13]}, ValueError, ["select_based_on_layer", "-13"]),
    "no selection layer": ({"select_based_on_layer": []}, ValueError, ["select_based_on_layer", "[]"]),
    "quotas too few": ({"max_select_num_each_scale": [5]}, ValueError, ["max_select_num_each_scale", "1", "2"]),
    "quota of zero": ({"max_select_num_each_scale": [0, 5]}, ValueError, ["max_select_num_each_scale", "0"]),
    "look of zero": ({"max_select_num": 0}, ValueError, ["max_select_num", "0"]),
    "negative look": ({"max_select_num": -4}, ValueError, ["max_select_num", "-4"]),
    "no convolution width": (
        {"highres_selection_feature": True, "highres_selection_module_hidden_dim": 0},
        ValueError,
        ["highres_selection_module_hidden_dim", "0"],
    ),
    "kernel larger than the image": (
        {"highres_selection_feature": True, "highres_selection_module_kernel_size": 1600},
        ValueError,
        ["1600"],
    ),
    "adapter of another width": (
        {**models.RADIO, "radio_adapter_mlp_input_dim": 100},
        ValueError,
        ["radio_adapter_mlp_input_dim", "100", "192"],
    ),
    "unknown adapter": ({**models.RADIO, "radio_adapter_mlp_version": "v3"}, ValueError, ["v3"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_vision_configuration(name):
    changes, kind, fragments = CONFIGS[name]
    with refuses(kind, *fragments):
        ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**{**models.vision_config("no_highres"), **changes}))


TEXT_CONFIGS = {
    "heads that do not divide": ({"heads": 3}, ValueError, ["heads", "3", "64"]),
    "a head dim that is no multiple of 8": ({"width": 60, "heads": 5}, ValueError, ["heads", "5", "60"]),
    "unknown pool": ({"pool_type": "mean"}, ValueError, ["pool_type", "'mean'", "argmax"]),
    "no layers": ({"layers": 0}, ValueError, ["layers", "0"]),
    "no vocabulary": ({"vocab_size": 0}, ValueError, ["vocab_size", "0"]),
    "unknown activation": ({"act_kwargs": {"approximate": "quick"}}, ValueError, ["act_kwargs", "quick"]),
}


@pytest.mark.parametrize("name", TEXT_CONFIGS)
def test_text_configuration(name):
    changes, kind, fragments = TEXT_CONFIGS[name]
    with refuses(kind, *fragments):
        ps3c.PS3TextModel(ps3c.PS3TextConfig(**{**models.text_config("siglip"), **changes}))


# ---- text ---------------------------------------------------------------------------------------------------------

IDS = {
    "id too large": (torch.full((1, 4), 97), ValueError, ["97"]),
    "id negative": (torch.tensor([[1, 2, -1]]), ValueError, ["-1"]),
    "id enormous": (torch.full((1, 4), 2**40), ValueError, [str(2**40)]),
    "too long": (torch.ones(1, 13, dtype=torch.int64), ValueError, ["text", "13", "12"]),
    "empty text": (torch.ones(1, 0, dtype=torch.int64), ValueError, ["text", "0"]),
    "empty batch": (torch.ones(0, 4, dtype=torch.int64), ValueError, ["text", "batch"]),
    "one dimension": (torch.ones(4, dtype=torch.int64), ValueError, ["text", "(4,)"]),
    "floating point": (torch.ones(1, 4), TypeError, ["text", "torch.float32", "int64"]),
    "bool": (torch.ones(1, 4, dtype=torch.bool), TypeError, ["text", "torch.bool"]),
    "words": (["a cat"], TypeError, ["text", "list"]),
}


@pytest.mark.parametrize("name", IDS)
def test_text(name):
    model = models.ours("text", "siglip")
    good = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        before = model(good).prompt
        ids, kind, fragments = IDS[name]
        with refuses(kind, *fragments):
            model(ids)
        assert torch.equal(model(good).prompt, before)


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.fixture()
def checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def test_truncated_file(model, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Exception) as info:  # safetensors' own class, which is no subclass of anything narrower
        ps3c.PS3VisionModel.from_pretrained(checkpoint)
    assert "safetensors" in repr(info.type).lower() or isinstance(info.value, (OSError, ValueError))


def test_corrupt_header(model, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])
    with pytest.raises(Exception) as info:
        ps3c.PS3VisionModel.from_pretrained(checkpoint)
    assert "safetensors" in repr(info.type).lower() or isinstance(info.value, (OSError, ValueError))


def test_wrong_shapes(model, checkpoint):
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    state["vision_model.prior_prompt"] = torch.zeros(7)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises((RuntimeError, ValueError)) as info:
        ps3c.PS3VisionModel.from_pretrained(checkpoint)
    assert "prior_prompt" in str(info.value) and "7" in str(info.value)
    with pytest.raises(RuntimeError, match="prior_prompt"):
        copy.deepcopy(model).load_state_dict(state)


def test_config_of_another_model(model, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config["model_name"] = "resnet50"
    (checkpoint / "config.json").write_text(json.dumps(config))
    with refuses(ValueError, "resnet50"):
        ps3c.PS3VisionModel.from_pretrained(checkpoint)


# ---- weights and modes ----------------------------------------------------------------------------------------------


def test_a_weight_of_another_dtype(model):
    broken = copy.deepcopy(model)
    broken.vision_model.trunk.blocks[3].norm1.half()
    with pytest.raises(TypeError) as info:
        run(broken)
    assert "float16" in str(info.value) and "float32" in str(info.value)


def test_a_weight_of_another_shape(model):
    broken = copy.deepcopy(model)
    broken.vision_model.prior_prompt = torch.nn.Parameter(torch.zeros(5), requires_grad=False)
    with pytest.raises((ValueError, TypeError)) as info:
        run(broken)
    assert "prior_prompt" in str(info.value)


def test_training(model):
    trained = copy.deepcopy(model).train().requires_grad_(True)
    with refuses(NotImplementedError, "grad"):
        trained(models.image(*SIZE), num_look_close=1)
    with torch.no_grad():
        trained(models.image(*SIZE), num_look_close=1)
    trained.eval()(models.image(*SIZE), num_look_close=1)


def test_gradients_of_inputs(model):
    with refuses(NotImplementedError, "pixel_values"):
        model(models.image(*SIZE).requires_grad_(True), num_look_close=1)


# ---- memory and interruption ----------------------------------------------------------------------------------------


def test_memory_that_cannot_be_had():
    """All of 2^24 patches of 64 images: 800 GB of features, refused before anything is computed."""
    config = {
        **models.vision_config("no_highres"),
        "ps3_scales": [64, 2**16],
        "max_select_num": 2**20,
        "separate_pos_emb": False,
    }
    model = ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**config)).eval().requires_grad_(False)
    with refuses(MemoryError):
        run(model, torch.zeros(1, 3, 8, 8).expand(64, 3, 8, 8), num_look_close="all")
    assert run(model, num_look_close=0).last_hidden_state.shape == (1, 16, 192)


INTERRUPT = """
    import os, signal, sys, threading, time
    sys.path.insert(0, {tests!r})
    import conftest, torch, models
    model = models.build_ours("vision", "no_highres")
    model.vision_model.max_select_num_each_scale = [1, 3]   # many looks
    pixels = models.image(4, 256, 256)
    small = pixels[:1]
    with torch.no_grad():
        before = model(small, num_look_close=2).last_hidden_state
        begin = time.perf_counter()
        model(pixels, num_look_close="all")
        whole = time.perf_counter() - begin
        sent = []
        def interrupt():
            time.sleep(whole / 4)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            model(pixels, num_look_close="all")
            print("not interrupted")
        except KeyboardInterrupt:
            late = time.perf_counter() - sent[0]
            print("interrupted", whole, late)
        after = model(small, num_look_close=2).last_hidden_state
    print("same", torch.equal(before, after))
"""


LARGE_MAP = """
    import os, signal, sys, threading, time
    sys.path.insert(0, {tests!r})
    import conftest, torch, models
    model = models.build_ours("vision", "tiny")
    maps = torch.ones(1, 1, 1).expand({shape})
    pixels = models.image({shape}[0], 64, 64)
    sent = []
    def interrupt():
        time.sleep(1)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    arguments = {arguments}
    with torch.no_grad():
        model(pixels, **arguments, gt_selection_maps=torch.ones(1, 8, 8))
        threading.Thread(target=interrupt).start()
        try:
            model(pixels, gt_selection_maps=maps, **arguments)
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted", time.perf_counter() - sent[0])
        print("next", bool(model(pixels, **arguments, gt_selection_maps=torch.ones(1, 8, 8))[0].isfinite().all()))
"""


@pytest.mark.skipif(
    "PS3C_ASAN" in os.environ, reason="a process of its own: a minute; test_core.py interrupts the engine here"
)
@pytest.mark.parametrize("shape", [(4, 1, 2**31), (1, 2**32, 1), (1, 2**16, 2**16)], ids=str)
@pytest.mark.parametrize("arguments", [{"num_look_close": 1}], ids=["features"])
def test_keyboard_interrupt_in_a_large_map(shape, arguments):
    """A view with stride 0 makes a map of any size without memory: reading it can be stopped."""
    tests = os.path.dirname(os.path.abspath(__file__))
    program = textwrap.dedent(LARGE_MAP.format(tests=tests, shape=shape, arguments=arguments))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[0] == "interrupted", done.stdout
    assert float(words[1]) < 0.5 and words[2:] == ["next", "True"], done.stdout


@pytest.mark.skipif(
    "PS3C_ASAN" in os.environ, reason="a process of its own: a minute; test_core.py interrupts the engine here"
)
def test_keyboard_interrupt():
    """Ctrl-C during a long "all" stops it soon and leaves the model as it was."""
    tests = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPT.format(tests=tests))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    words = next(line for line in lines if "interrupted" in line).split()
    assert words[0] == "interrupted", done.stdout
    whole, late = float(words[1]), float(words[2])
    assert late < max(0.5, whole / 4), (whole, late)
    assert "same True" in lines, done.stdout

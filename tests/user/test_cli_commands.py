"""The other subcommands, run in this process: text, search, look, info, bench, check, doctor."""

import importlib.util
import io
import json
import shutil
import sys

import pytest
import reference
import torch
from cli_support import error_line, ps3c_main  # noqa: F401  (a fixture)

import ps3c
from ps3c import _core

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="ps3c look needs the extra plot"
)


@pytest.fixture(scope="module")
def vision_checkpoint(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint without its text tower."""
    folder = tmp_path_factory.mktemp("models") / "vision"
    ps3c.PS3VisionModel.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    shutil.copy(tiny_checkpoint / "preprocessor_config.json", folder)
    return folder


@pytest.fixture
def features(encoder, image_files, tmp_path):
    """A file of the three photographs' vectors."""
    encoder.embed_images(image_files).save(tmp_path / "features.npz")
    return tmp_path / "features.npz"


# ---- text -----------------------------------------------------------------------------------------------------------


def test_text_to_stdout(ps3c_main, tiny_checkpoint, encoder):
    arguments = ("text", "a red boat", "a dog", "-m", tiny_checkpoint, "--dtype", "float32")
    code, out, err = ps3c_main(*arguments)
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    want = encoder.embed_texts(["a red boat", "a dog"])
    assert [row["text"] for row in rows] == ["a red boat", "a dog"]
    torch.testing.assert_close(torch.tensor([row["vector"] for row in rows]), want.pooled)
    assert "prompt" not in rows[0]
    rows = json.loads(ps3c_main(*arguments, "--json", "--prompt")[1])
    torch.testing.assert_close(torch.tensor([row["prompt"] for row in rows]), want.prompt)


def test_text_to_a_file(ps3c_main, tiny_checkpoint, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red boat\n\na dog\n"))
    arguments = ("text", "-", "-m", tiny_checkpoint, "--dtype", "float32", "-o", tmp_path / "texts.npz")
    code, out, err = ps3c_main(*arguments)
    assert (code, out) == (0, ""), err
    result = ps3c.load_features(tmp_path / "texts.npz")
    assert result.texts == ["a red boat", "a dog"]
    assert torch.equal(result.pooled, encoder.embed_texts(result.texts).pooled)
    code, _, err = ps3c_main(*arguments)
    assert code == 1 and "exists" in error_line(err)


@pytest.mark.parametrize(
    "words",
    [
        ["text", "a"],
        ["search", "FEATURES", "--text", "a"],
        ["embed", "IMAGE", "-o", "OUT.npz", "--maps", "--text", "a"],
    ],
)
def test_no_text_tower(ps3c_main, vision_checkpoint, features, image_files, tmp_path, words):
    places = {"FEATURES": features, "IMAGE": image_files[0], "OUT.npz": tmp_path / "out.npz"}
    code, out, err = ps3c_main(*[places.get(word, word) for word in words], "-m", vision_checkpoint)
    assert (code, out) == (4, "") and "no text tower" in error_line(err)


# ---- search ---------------------------------------------------------------------------------------------------------


def test_search(ps3c_main, tiny_checkpoint, encoder, features):
    arguments = ("search", features, "-m", tiny_checkpoint, "--dtype", "float32", "--text", "a red boat")
    code, out, err = ps3c_main(*arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    images = ps3c.load_features(features)
    want = (images.pooled @ encoder.embed_texts(["a red boat"]).pooled.T)[:, 0]
    order = want.argsort(descending=True).tolist()
    assert found["text"] == "a red boat"
    assert [hit["name"] for hit in found["images"]] == [images.names[i] for i in order]
    torch.testing.assert_close(torch.tensor([hit["cosine"] for hit in found["images"]]), want[order])

    code, out, _ = ps3c_main(*arguments, "-n", 1)
    assert code == 0 and out == f"{want[order[0]]:7.4f}  {images.names[order[0]]}\n"
    code, out, _ = ps3c_main(*arguments, "--text", "a dog", "-n", 2)
    assert [line.startswith("# ") for line in out.splitlines()] == [True, False, False] * 2


def test_search_elsewhere(ps3c_main, tiny_checkpoint, encoder, tmp_path):
    """Files that do not have features of images, or have those of another model."""
    encoder.embed_texts(["a"]).save(tmp_path / "texts.npz")
    ps3c.ImageFeatures(["a"], [(1, 1)], torch.ones(1, 7), texts=[None]).save(tmp_path / "other.npz")
    (tmp_path / "empty").mkdir()
    for name, words in [
        ("texts.npz", "texts"),
        ("other.npz", "7 channels"),
        ("empty", "no feature files"),
        ("none.npz", "none.npz"),
        ("none.txt", "none.txt"),
    ]:
        code, out, err = ps3c_main("search", tmp_path / name, "-m", tiny_checkpoint, "--text", "a")
        assert (code, out) == (1, "") and words in error_line(err)


# ---- look -----------------------------------------------------------------------------------------------------------


@needs_matplotlib
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--scale", "2", "--text", "a red boat"],
        ["--kind", "patches", "--looks", "2"],
        ["--kind", "features", "--num-tokens", "30"],
    ],
)
def test_look(ps3c_main, tiny_checkpoint, image_files, tmp_path, options):
    out_file = tmp_path / "look.png"
    code, out, err = ps3c_main("look", image_files[0], "-m", tiny_checkpoint, "-o", out_file, "--json", *options)
    assert code == 0, err
    from PIL import Image

    with Image.open(out_file) as picture:
        assert picture.width > 200
    report = json.loads(out)
    assert report["size"] == [120, 80] and report["looks"][0]["patches"] == {"64": 16, "128": 0, "256": 0}
    assert sum(sum(look["patches"].values()) for look in report["looks"]) == report["tokens"]
    assert "look 1:" in err


@needs_matplotlib
def test_look_refusals(ps3c_main, tiny_checkpoint, image_files, tmp_path):
    bad, taken = tmp_path / "bad.jpg", tmp_path / "taken.png"
    bad.write_text("no image")
    taken.write_text("mine")
    for image, out_file, options, code, words in [
        (bad, tmp_path / "new.png", [], 1, "not an image"),
        (image_files[0], taken, [], 1, "exists"),
        (image_files[0], tmp_path / "new.png", ["--scale", "3"], 2, "--scale"),
        (image_files[0], tmp_path / "new.png", ["--scale", "1", "--kind", "patches"], 2, "--scale: got --kind patches"),
        (image_files[0], tmp_path / "none" / "new.png", [], 1, "does not exist"),
        (image_files[0], tmp_path / "new.png", ["--max-pixels", "100"], 1, "--max-pixels"),
    ]:
        got, out, err = ps3c_main("look", image, "-m", tiny_checkpoint, "-o", out_file, *options)
        assert (got, out) == (code, "") and words in error_line(err)
    assert taken.read_text() == "mine" and not (tmp_path / "new.png").exists()


@needs_matplotlib
def test_look_without_matplotlib(ps3c_main, tiny_checkpoint, image_files, tmp_path, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = ps3c_main("look", image_files[0], "-m", tiny_checkpoint, "-o", tmp_path / "new.png")
    assert code == 1 and "pip install 'ps3c[plot]'" in error_line(err)


# ---- info -----------------------------------------------------------------------------------------------------------


def test_info(ps3c_main, tiny_checkpoint, vision_checkpoint, encoder):
    code, out, err = ps3c_main("info", tiny_checkpoint, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    vision = encoder.model.vision_model
    assert report["vision"]["scales"] == encoder.scales
    assert report["vision"]["quotas_of_one_look"] == vision.max_select_num_each_scale
    assert report["vision"]["looks_for_all"] == 4 and report["dtypes"] == ["bfloat16"]
    assert report["parameters"]["vision"] == sum(parameter.numel() for parameter in vision.parameters())
    assert report["parameters"]["text"] == sum(parameter.numel() for parameter in encoder.model.text_model.parameters())
    assert (report["logit_scale"], report["logit_bias"]) == (encoder.logit_scale, encoder.logit_bias)

    code, out, err = ps3c_main("info", tiny_checkpoint)
    assert (code, err) == (0, "")
    assert "test_vit" in out and "64, 128, 256 pixels" in out and "16 + 64 patches; 4 looks encode every patch" in out
    code, out, err = ps3c_main("info", vision_checkpoint)
    assert (code, err) == (0, "") and "none, so prompts" in out and "none, so zero-shot" in out


def broken(folder, how):
    if how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif how == "another model":
        (folder / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize("how", ["no weights", "cut weights", "another model"])
def test_unusable_models(ps3c_main, tiny_checkpoint, tmp_path, how):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    broken(folder, how)
    for words in (["info", folder], ["text", "a", "-m", folder]):
        code, out, err = ps3c_main(*words)
        assert (code, out) == (4, "") and str(folder) in error_line(err)


# ---- bench, demo, doctor --------------------------------------------------------------------------------------------


def test_bench_table(ps3c_main, vision_checkpoint):
    code, out, err = ps3c_main("bench", "-m", vision_checkpoint, "--runs", 1, "--seconds", 0, "--batch-size", 2)
    assert code == 0 and "float32, cpu" in err
    assert [line.split("  ")[0] for line in out.splitlines()] == ["what", "low resolution", "1 look", "2 looks"]


def test_demo(ps3c_main, tiny_checkpoint, monkeypatch):
    """The page gets the encoder and the options. Ctrl-C ends it with exit code 130. test_page tests the page."""
    pytest.importorskip("gradio", reason="ps3c demo needs the extra demo")
    from ps3c import page

    calls = []

    def serve(encoder, port, open_browser, *, max_pixels, background):
        calls.append((type(encoder), port, open_browser, max_pixels, background))
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "serve", serve)
    code, out, err = ps3c_main("demo", "-m", tiny_checkpoint, "--port", 0, "--max-pixels", 5)
    assert (code, out) == (130, "") and err.endswith("ps3c: interrupted\n")
    assert calls == [(ps3c.Encoder, 0, False, 5, "white")]


def test_demo_without_gradio(ps3c_main, tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = ps3c_main("demo", "-m", tiny_checkpoint, "--port", 0)
    assert code == 1 and "pip install 'ps3c[demo]'" in error_line(err)


def test_doctor(ps3c_main, monkeypatch):
    from ps3c.cli import doctor

    code, out, err = ps3c_main("doctor")
    assert (code, err) == (0, "")
    assert _core.cpu_level() in out and ps3c.__version__ in out
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("ftfy", "gradio") else "1.0")
    code, out, err = ps3c_main("doctor")
    assert code == 1 and "ftfy" in error_line(err) and "pip install 'ps3c[demo]'" in out


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_finds_a_wrong_value(ps3c_main, monkeypatch):
    """One value of one output at one level is changed by 1 % of the output's magnitude."""
    from ps3c.cli import _selftest

    right, case = _selftest._run, "SigLIP, two looks, ground truth"

    def wrong(name, dtype, level):
        outputs = right(name, dtype, level)
        if (name, dtype, level) != (case, "float32", "portable"):
            return outputs
        features = outputs["hidden_states"][-1].clone()
        features[0, 48, 36] += 0.01 * features.abs().mean()
        return {**outputs, "hidden_states": [*outputs["hidden_states"][:-1], features]}

    monkeypatch.setattr(_selftest, "_run", wrong)
    monkeypatch.setattr(_selftest, "CASES", {name: _selftest.CASES[name] for name in (case, "text, last")})
    code, out, err = ps3c_main("check", "--json", "--threads", 1)
    assert code == 1 and "1 of" in error_line(err) and f"{case}, float32, portable" in err
    report = json.loads(out)
    assert not report["passed"]
    assert [entry["what"] for entry in report["results"] if entry["worst"] > 1] == [case]


def test_differences(monkeypatch):
    """Faults are NaN, any difference of a selection map, and an error above the tolerance of the dtype."""
    import torch

    from ps3c.cli import _selftest

    want = {"hidden_states": [torch.ones(2, 3)], "selection_maps": [torch.tensor([[1.0, 0.0]])]}

    def compared(dtype="float32", naive=want, **changed):
        outputs = {"naive": naive, "avx2": {**naive, **changed}}
        monkeypatch.setattr(_selftest, "_run", lambda name, dtype, level: outputs[level])
        return _selftest.compare("any", dtype, "avx2")

    assert compared() == 0
    assert compared(hidden_states=[want["hidden_states"][0] * float("nan")]) == float("inf")
    assert compared(selection_maps=[torch.tensor([[0.0, 1.0]])]) == float("inf")
    assert 0.9 < compared(hidden_states=[torch.full((2, 3), 1 + _selftest.LIMIT, dtype=torch.float64)]) < 1.1
    # 16-bit: half a unit in the last place, where the naive level's own error is smaller.
    assert 0.9 < compared("bfloat16", hidden_states=[torch.full((2, 3), 1 + 2**-8)]) < 1.1
    assert 0.9 < compared("float16", hidden_states=[torch.full((2, 3), 1 + 2**-11)]) < 1.1


@pytest.mark.parametrize("level", ["portable", "naive"])
def test_check_runs_every_output(level):
    """Each case writes all outputs that it compares, and selects the number of patches that it states."""
    from ps3c.cli import _selftest

    taken = {}
    for name in _selftest.CASES:
        outputs = _selftest._run(name, "float32", level)
        assert all(tensor.isfinite().all() for tensors in outputs.values() for tensor in tensors), name
        taken[name] = [int(one.sum()) for one in outputs.get("selection_maps", ())]
    assert taken["SigLIP, first scale"] == [64, 40] and taken["SigLIP, two looks, ground truth"] == [64, 144]
    assert taken["SigLIP, pre-training"] == [2 * 32, 2 * 72] and taken["text, none"] == []


def test_check_with_the_reference(ps3c_main, tiny_checkpoint, monkeypatch):
    try:
        folder = reference.folder()
    except RuntimeError as error:
        pytest.skip(str(error))
    reference.load()  # puts what ps3-torch needs on the path
    code, out, err = ps3c_main("check", "-m", tiny_checkpoint, "--reference", folder.parent, "--threads", 1, "--json")
    assert code == 0, err
    report = json.loads(out)
    compared = {entry["what"] for entry in report["results"]}
    assert {
        "ps3-torch: small model, features",
        "ps3-torch: small model, text",
        "ps3-torch: the model, features",
        "the model, low resolution",
    } <= compared


def test_check_without_a_reference(ps3c_main, tmp_path):
    arguments = ("check", "--threads", 1, "--reference", tmp_path)
    code, _, err = ps3c_main(*arguments)
    assert code == 1 and "--reference" in error_line(err)
    (tmp_path / "ps3").mkdir()
    (tmp_path / "ps3" / "modeling_ps3.py").write_text("")
    (tmp_path / "ps3" / "__init__.py").write_text("import no_such_package_at_all")
    code, _, err = ps3c_main(*arguments)
    assert code == 1 and "no_such_package_at_all" in error_line(err)

"""`ps3c embed`: inputs, outputs, refused arguments, listed failures, --resume."""

import errno
import io
import json
import os
import resource
import shutil
import sys

import pytest
import torch
from cli_support import error_line, ps3c_main  # noqa: F401  (a fixture)

import ps3c


@pytest.fixture
def embed(ps3c_main, tiny_checkpoint):
    """`ps3c embed ... -m TINY --dtype float32` in this process."""
    return lambda *arguments: ps3c_main("embed", "-m", tiny_checkpoint, "--dtype", "float32", *arguments)


def names_in(path):
    return ps3c.load_features(path).names


def errors_of(path):
    return [json.loads(line) for line in open(f"{path}.errors.jsonl", encoding="utf-8")]


# ---- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "npz"])
def test_vectors(embed, encoder, image_files, tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs the extra parquet")
    out = tmp_path / f"out.{suffix}"
    code, stdout, err = embed(*image_files, "-o", out)
    assert (code, stdout) == (0, ""), err
    assert "3 of 3 images" in err and not os.path.exists(f"{out}.errors.jsonl")
    result, want = ps3c.load_features(out), encoder.embed_images(image_files)
    assert result.names == list(map(str, image_files)) and result.sizes == want.sizes
    assert torch.equal(result.pooled, want.pooled) and result.tokens is None


def test_tokens_and_maps(embed, encoder, image_files, tmp_path):
    out = tmp_path / "out.safetensors"
    code, _, err = embed(*image_files, "-o", out, "--tokens", "--maps", "--looks", "2", "--text", "a red boat")
    assert code == 0, err
    result = ps3c.load_features(out)
    want = encoder.embed_images(image_files, "a red boat", looks=2, maps=True)
    assert torch.equal(result.tokens, want.tokens) and torch.equal(result.look, want.look)
    assert all(map(torch.equal, result.selection_maps, want.selection_maps))
    assert result.texts == ["a red boat"] * 3


def test_tokens_alone_are_of_the_low_resolution(embed, image_files, tmp_path):
    assert embed(image_files[0], "-o", tmp_path / "out.npz", "--tokens")[0] == 0
    result = ps3c.load_features(tmp_path / "out.npz")
    assert result.tokens.shape[1] == 16 and result.selection_probs is None


def test_maps_without_tokens(embed, image_files, tmp_path):
    assert embed(image_files[0], "-o", tmp_path / "out.npz", "--maps", "--num-tokens", "all")[0] == 0
    result = ps3c.load_features(tmp_path / "out.npz")
    assert result.tokens is None and [tuple(probs.shape[1:]) for probs in result.selection_probs] == [(8, 8), (16, 16)]
    assert all(bool((taken == 1).all()) for taken in result.selection_maps)


def test_unnormalised(embed, image_files, tmp_path):
    assert embed(image_files[0], "-o", tmp_path / "a.npz")[0] == 0
    assert embed(image_files[0], "-o", tmp_path / "b.npz", "--no-normalize")[0] == 0
    one, other = (ps3c.load_features(tmp_path / name).pooled for name in ("a.npz", "b.npz"))
    torch.testing.assert_close(one, other / other.norm())
    assert abs(float(other.norm()) - 1) > 0.01


def test_folder_of_files(embed, ps3c_main, tiny_checkpoint, image_files, tmp_path, monkeypatch):
    """OUT without a suffix is a folder. It gets one more file at a time, and `ps3c search` reads all files."""
    from ps3c.cli._outputs import FolderOutput

    monkeypatch.setattr(FolderOutput, "IMAGES", 2)
    out = tmp_path / "out"
    assert embed(*image_files, "-o", out, "--batch-size", "1")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["00000.safetensors", "00001.safetensors"]
    assert names_in(out / "00000.safetensors") == list(map(str, image_files[:2]))
    code, _, err = embed(*image_files, "-o", out)
    assert code == 1 and "--resume" in error_line(err)
    code, found, _ = ps3c_main("search", out, "-m", tiny_checkpoint, "--text", "a dog", "--json")
    assert sorted(hit["name"] for hit in json.loads(found)["images"]) == sorted(map(str, image_files))
    code, _, err = embed(*image_files, "-o", out, "--resume")
    assert code == 0, err
    assert len(list(out.iterdir())) == 2
    assert embed(image_files[2], "-o", out, "--force")[0] == 0
    assert [names_in(path) for path in out.iterdir()] == [[str(image_files[2])]]


# ---- images ---------------------------------------------------------------------------------------------------------


def test_folders_are_searched(embed, image_files, tmp_path):
    pictures = tmp_path / "pictures"
    for name, source in {"b.PNG": 1, "sub/deep/a.jpg": 0, ".hidden/c.png": 2, ".d.png": 2, "notes.txt": 2}.items():
        path = pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_files[source].read_bytes())
    assert embed(pictures, pictures / "b.PNG", "-o", tmp_path / "out.npz")[0] == 0
    assert names_in(tmp_path / "out.npz") == [str(pictures / "b.PNG"), str(pictures / "sub/deep/a.jpg")]


def test_a_folder_without_images(embed, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    code, out, err = embed(tmp_path, "-o", tmp_path / "out.npz")
    assert (code, out) == (1, "") and f"{tmp_path}: has no images" in error_line(err)


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_names_from_stdin(embed, image_files, tmp_path, monkeypatch, separator):
    names = separator.join([*map(str, image_files[:2]), ""]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names)))
    assert embed("-", "-o", tmp_path / "out.npz")[0] == 0
    assert names_in(tmp_path / "out.npz") == list(map(str, image_files[:2]))


def test_no_names_from_stdin(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = embed("-", "-o", tmp_path / "out.npz")
    assert code == 2 and "IMAGES" in error_line(err)


def test_bad_images_are_listed(embed, image_files, tmp_path):
    missing, empty = tmp_path / "missing.jpg", tmp_path / "empty.jpg"
    empty.touch()
    cut = tmp_path / "cut.png"
    cut.write_bytes(image_files[2].read_bytes()[:2000])
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.jpg")
    out = tmp_path / "out.npz"
    code, _, err = embed(missing, image_files[0], empty, cut, odd, "-o", out)
    assert code == 3 and "4 failed" in err and "Traceback" not in err
    assert names_in(out) == [str(image_files[0])]
    assert {entry["name"] for entry in errors_of(out)} == {
        str(missing),
        str(empty),
        str(cut),
        str(tmp_path / "\\udcff.jpg"),
    }
    assert all(entry["error"] for entry in errors_of(out))


def test_only_bad_images(embed, tmp_path):
    code, _, err = embed(tmp_path / "none.jpg", "-o", tmp_path / "out.npz")
    assert code == 3 and "0 of 1 images" in err
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz.errors.jsonl"]


def test_formats_of_plugins_are_named(embed, image_files, tmp_path):
    """A folder's HEIC and raw files are not passed over: they are listed, and the exit code says so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(image_files[0], folder / "a.JPG")
    for name in ("b.HEIC", "c.dng", "d.heif", "e.jxl"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "notes.txt").write_text("no image")
    out = tmp_path / "out.npz"
    code, _, err = embed(folder, "-o", out)
    assert code == 3 and names_in(out) == [str(folder / "a.JPG")] and "1 of 5 images" in err and "4 failed" in err
    listed = {os.path.basename(entry["name"]): entry["error"] for entry in errors_of(out)}
    assert sorted(listed) == ["b.HEIC", "c.dng", "d.heif", "e.jxl"]
    assert "pillow-heif" in listed["b.HEIC"] and "pillow-jxl-plugin" in listed["e.jxl"]
    assert "a camera's raw file" in listed["c.dng"]


def test_stop_at_a_bad_image(embed, image_files, tmp_path):
    out = tmp_path / "out.npz"
    files = [image_files[0], tmp_path / "missing.jpg", image_files[1], image_files[2]]
    code, _, err = embed(*files, "-o", out, "--on-error", "stop", "--batch-size", "1")
    assert code == 3 and "missing.jpg" in error_line(err)
    assert str(image_files[0]) in names_in(out) and str(image_files[2]) not in names_in(out)
    assert len(errors_of(out)) == 1


def test_max_pixels(embed, image_files, tmp_path):
    out = tmp_path / "out.npz"
    code, _, err = embed(*image_files, "-o", out, "--max-pixels", "10000")
    assert code == 3
    assert "--max-pixels" in errors_of(out)[0]["error"]
    assert names_in(out) == [str(image_files[0])]


# ---- outputs that exist, and ends before the end --------------------------------------------------------------------


def test_existing_output(embed, image_files, tmp_path):
    out = tmp_path / "out.npz"
    out.write_text("mine")
    code, stdout, err = embed(image_files[0], "-o", out)
    assert (code, stdout) == (1, "") and "exists" in error_line(err)
    assert out.read_text() == "mine"
    assert embed(image_files[0], "-o", out, "--force")[0] == 0
    assert names_in(out) == [str(image_files[0])]


def test_output_in_no_folder(embed, image_files, tmp_path):
    for name in ("none/out.npz", "none/out"):
        code, _, err = embed(image_files[0], "-o", tmp_path / name)
        assert code == 1 and "does not exist" in error_line(err)


def test_resume_adds_what_is_missing(embed, image_files, tmp_path, monkeypatch):
    out, late = tmp_path / "out.npz", tmp_path / "late.jpg"
    assert embed(image_files[0], late, "-o", out)[0] == 3
    late.write_bytes(image_files[1].read_bytes())
    seen = []
    batches = ps3c.Encoder.embed_batches
    monkeypatch.setattr(
        ps3c.Encoder,
        "embed_batches",
        lambda self, images, *rest, **more: seen.extend(images) or batches(self, images, *rest, **more),
    )
    code, stdout, err = embed(image_files[0], late, image_files[2], "-o", out, "--resume", "--json")
    assert code == 0, err
    assert seen == [str(late), str(image_files[2])]
    assert names_in(out) == [str(image_files[0]), str(late), str(image_files[2])]
    report = json.loads(stdout)
    assert (report["images"], report["found_there"], report["of"], report["errors"]) == (3, 1, 3, None)
    assert not os.path.exists(f"{out}.errors.jsonl")
    code, _, err = embed(image_files[0], late, image_files[2], "-o", out, "--resume")
    assert code == 0 and "3 of them from an earlier run" in err


@pytest.mark.parametrize(
    "options, words", [(["--tokens"], "tokens"), (["--maps"], "maps"), (["--maps", "--text", "a dog"], "maps")]
)
def test_resume_of_another_kind(embed, image_files, tmp_path, options, words):
    out = tmp_path / "out.npz"
    assert embed(image_files[0], "-o", out)[0] == 0
    code, _, err = embed(image_files[1], "-o", out, "--resume", *options)
    assert code == 1 and words in error_line(err) and "--force" in err
    assert names_in(out) == [str(image_files[0])]


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_resume_of_other_looks(embed, image_files, tmp_path, name):
    """Also refused if no image is missing. OUT is unchanged."""
    out = tmp_path / name
    assert embed(image_files[0], "-o", out, "--tokens", "--looks", "1")[0] == 0
    for images in (image_files, image_files[:1]):
        code, _, err = embed(*images, "-o", out, "--resume", "--tokens", "--looks", "2")
        assert code == 1 and "got 1 looks per image in the file, expected 2" in error_line(err)
        code, _, err = embed(*images, "-o", out, "--resume", "--tokens", "--num-tokens", "81")
        assert code == 1 and "got 80 patches per image in the file, expected 81" in error_line(err)
    assert embed(image_files[0], "-o", out, "--resume", "--tokens", "--num-tokens", "80")[0] == 0
    assert names_in(out if out.is_file() else out / "00000.safetensors") == [str(image_files[0])]


def test_resume_of_all_there_is_to_see(embed, image_files, tmp_path):
    out = tmp_path / "out.npz"
    assert embed(image_files[0], "-o", out, "--tokens", "--looks", "all")[0] == 0
    for same in (["--looks", "4"], ["--looks", "99"], ["--looks", "all"], ["--num-tokens", "all"]):
        code, _, err = embed(image_files[0], "-o", out, "--resume", "--tokens", *same)
        assert code == 0 and err.endswith("1 of 1 images, 1 of them from an earlier run\n"), err
    code, _, err = embed(image_files[0], "-o", out, "--resume", "--tokens")
    assert code == 1 and "got 4 looks per image in the file, expected 0" in error_line(err)


def test_resume_of_no_features(embed, image_files, tmp_path):
    (tmp_path / "out.npz").write_text("mine")
    code, _, err = embed(image_files[0], "-o", tmp_path / "out.npz", "--resume")
    assert code == 1 and "out.npz" in error_line(err)
    assert (tmp_path / "out.npz").read_text() == "mine"


def ends_after(count, error, monkeypatch):
    """Makes Encoder.embed_batches raise `error` after a number of batches."""
    batches = ps3c.Encoder.embed_batches

    def some(self, *arguments, **keywords):
        for number, features in enumerate(batches(self, *arguments, **keywords)):
            if number == count:
                raise error
            yield features

    monkeypatch.setattr(ps3c.Encoder, "embed_batches", some)


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_interruption_keeps_what_is_done(embed, image_files, tmp_path, monkeypatch, name):
    out = tmp_path / name
    with monkeypatch.context() as patch:
        ends_after(2, KeyboardInterrupt(), patch)
        code, _, err = embed(*image_files, "-o", out, "--batch-size", "1")
    assert code == 130 and "2 of 3 images, " in err and "--resume encodes the missing ones" in err
    assert err.splitlines()[-1] == "ps3c: interrupted"
    assert embed(*image_files, "-o", out, "--resume")[0] == 0
    files = [out] if out.is_file() else sorted(out.iterdir())
    assert [one for file in files for one in names_in(file)] == list(map(str, image_files))


def test_an_error_keeps_what_is_done(embed, image_files, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    ends_after(1, MemoryError("no memory for hidden_states: 99 bytes"), monkeypatch)
    code, _, err = embed(*image_files, "-o", out, "--batch-size", "1")
    assert code == 1 and "no memory for hidden_states" in error_line(err)
    assert names_in(out) == [str(image_files[0])]


def test_disk_fills_up(embed, image_files, tmp_path, monkeypatch):
    """The second write fails. The results of the first write remain."""
    from ps3c.cli._outputs import Output

    save, calls = ps3c.ImageFeatures.save, []

    def full(self, path, **options):
        calls.append(path)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(self, path, **options)

    monkeypatch.setattr(ps3c.ImageFeatures, "save", full)
    monkeypatch.setattr(Output, "EVERY", 0.0)
    out = tmp_path / "out.npz"
    code, _, err = embed(*image_files, "-o", out, "--batch-size", "1")
    assert code == 1 and error_line(err) == f"{out}: no space left on the disk"
    assert names_in(out) == [str(image_files[0])]
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_file_larger_than_allowed(embed, image_files, tmp_path):
    """The system's file size limit: one error line, and no partial file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, hard))
    try:
        ended = [
            embed(image_files[0], "-o", tmp_path / name, "--tokens", "--looks", "all")
            for name in ("out.npz", "out.safetensors")
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for code, out, err in ended:
        assert (code, out) == (1, "") and str(tmp_path) in error_line(err)
    assert not list(tmp_path.iterdir())


def test_verbose_shows_the_traceback(embed, image_files, tmp_path, monkeypatch):
    ends_after(0, RuntimeError("broken"), monkeypatch)
    code, _, err = embed(image_files[0], "-o", tmp_path / "out.npz", "-v")
    assert code == 1 and "Traceback" in err and err.splitlines()[-1] == "ps3c: error: broken"


def test_unforeseen_errors_are_named(embed, image_files, tmp_path, monkeypatch):
    ends_after(0, KeyError("x"), monkeypatch)
    code, _, err = embed(image_files[0], "-o", tmp_path / "out.npz")
    assert code == 1 and error_line(err) == "KeyError: 'x'"

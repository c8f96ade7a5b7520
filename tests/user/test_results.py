"""Results: slices, concatenation, files, failed writes, and the picture in a notebook."""

import errno
import importlib.util
import json
import os
import resource
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import photograph

import ps3c
from ps3c import ImageFeatures, TextFeatures
from ps3c.features.files import replacing

TENSORS = ("pooled", "tokens", "positions", "look", "selection_maps", "selection_probs")
PLAIN_FIELDS = ("names", "sizes", "texts", "scales", "patch_size", "grids")

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="Parquet needs pyarrow")


@pytest.fixture(scope="module")
def features(encoder, image_files, tmp_path_factory):
    """Features with all fields: three images, one of them with a text, and one skipped image."""
    bad = tmp_path_factory.mktemp("bad") / "none.jpg"
    return encoder.embed_images(
        [*image_files, bad], ["a ship", None, 'a "quoted" \u2728 text', None], looks=2, maps=True, on_error="skip"
    )


@pytest.fixture(scope="module")
def texts(encoder):
    return encoder.embed_texts(["a ship", "", "a rope \u2728"])


def as_dtype(features, dtype):
    """features as an encoder of another dtype returns them."""
    return features._each_tensor(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def assert_same(a: ImageFeatures, b: ImageFeatures) -> None:
    for name in TENSORS:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is None:
            continue
        for x, y in zip(one, other) if isinstance(one, list) else [(one, other)]:
            assert x.dtype == y.dtype and x.shape == y.shape, name
            assert bytes_of(x) == bytes_of(y), name
    for name in PLAIN_FIELDS:
        assert getattr(a, name) == getattr(b, name), name
    assert [(e.name, e.reason) for e in a.errors] == [(e.name, e.reason) for e in b.errors]
    assert [i.tobytes() for i in a.thumbnails] == [i.tobytes() for i in b.thumbnails]


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


# ---- parts and wholes ------------------------------------------------------------------------------------------------


def test_one_and_some(features):
    assert len(features) == 3 and len(features.errors) == 1
    one, last, some = features[1], features[-1], features[1:]
    assert one.names == features.names[1:2] and one.texts == [None] and one.errors == []
    assert torch.equal(one.tokens, features.tokens[1:2]) and len(one.thumbnails) == 1
    assert all(torch.equal(a, b[1:2]) for a, b in zip(one.selection_maps, features.selection_maps))
    assert last.names == features.names[2:] and some.names == features.names[1:]
    assert_same(ImageFeatures.concatenate([features[:1], features[1:]]), features[:])
    with pytest.raises(IndexError, match="index: got 3, expected -3 to 2"):
        features[3]
    assert [part.names[0] for part in features] == features.names  # as a sequence, to its end


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "index, numbers",
    [
        ([0, 2], [0, 2]),
        ((2, -1, 0, 0), [2, 2, 0, 0]),
        (range(1, 3), [1, 2]),
        ([], []),
        (np.array([2, 1]), [2, 1]),
        (np.int64(1), [1]),
        (np.array(1), [1]),
        ([np.int64(1), torch.tensor(0)], [1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
        (torch.tensor([False, False, False]), []),
        (torch.tensor([2, 0, 1]), [2, 0, 1]),
        (torch.tensor(-1), [2]),
        (torch.tensor([1], dtype=torch.uint8), [1]),
    ],
)
def test_several_at_once(features, encoder, index, numbers, dtype):
    features = replace(features, pooled=features.pooled.to(dtype))
    part = features[index]
    assert len(part) == len(numbers) == len(part.pooled) and part.errors == []
    for row, number in enumerate(numbers):
        assert (part.names[row], part.sizes[row]) == (features.names[number], features.sizes[number])
        assert part.texts[row] == features.texts[number]
        assert part.thumbnails[row] is features.thumbnails[number]
        for name in ("pooled", "tokens", "positions", "look"):
            assert torch.equal(getattr(part, name)[row], getattr(features, name)[number])
        for name in ("selection_maps", "selection_probs"):
            for one, whole in zip(getattr(part, name), getattr(features, name)):
                assert torch.equal(one[row], whole[number])
    texts = encoder.embed_texts(["a", "b", "c"])
    assert texts[index].texts == [texts.texts[number] for number in numbers]
    assert torch.equal(texts[index].prompt, texts.prompt[numbers])


@pytest.mark.parametrize(
    "index, exception, message",
    [
        (1.5, TypeError, "index: got 1.5, expected an integer, a slice, a list, array or tensor of integers, or"),
        ("pooled", TypeError, "index: got 'pooled', expected an integer"),
        (None, TypeError, "index: got None, expected an integer"),
        (True, TypeError, "index: got True, expected an integer"),
        ([0, 1.0], TypeError, "index: got 1.0, expected an integer"),
        ([0, True], TypeError, "index: got True, expected an integer"),
        (torch.tensor([0.5]), TypeError, "index: got 0.5, expected an integer"),
        (torch.tensor([[0, 1]]), TypeError, r"index: got \[0, 1\], expected an integer"),
        (3, IndexError, "index: got 3, expected -3 to 2"),
        ([0, -4], IndexError, "index: got -4, expected -3 to 2"),
        ([True, False], IndexError, "index: got a mask of 2 booleans, expected 3"),
    ],
)
def test_no_index(features, index, exception, message):
    with pytest.raises(exception, match=message):
        features[index]


def test_parts_without_thumbnails(encoder, image_files):
    features = encoder.embed_images(image_files)
    assert features[[2, 0]].names == [str(image_files[2]), str(image_files[0])] and features[[2, 0]].thumbnails == []


def test_concatenate_refuses_what_does_not_go_together(features, encoder, image_files):
    with pytest.raises(ValueError, match="parts: got none"):
        ImageFeatures.concatenate([])
    pooled = encoder.embed_images(image_files[0])
    with pytest.raises(ValueError, match="parts: got grids"):
        ImageFeatures.concatenate([features, pooled])
    without = encoder.embed_images(image_files[0], looks=2)
    with pytest.raises(ValueError, match="parts: got some with selection_maps and some without"):
        ImageFeatures.concatenate([features, without])
    more = encoder.embed_images(image_files[0], looks=3, maps=True)
    with pytest.raises(ValueError, match="parts: got tokens of .*, expected one dtype and equal dimensions"):
        ImageFeatures.concatenate([features, more])


def test_feature_maps(features, encoder):
    vision = encoder.model.vision_model
    expected = vision.format_features_into_feature_maps(features.tokens, features.selection_maps)
    maps = features.feature_maps()
    assert [tuple(one.shape) for one in maps] == [(3, 64, 4, 4), (3, 64, 8, 8), (3, 64, 16, 16)]
    assert all(torch.equal(a, b) for a, b in zip(maps, expected))
    with pytest.raises(ValueError, match="feature_maps: got features without tokens"):
        encoder.embed_images(photograph()).feature_maps()


def test_repr_is_short(features, texts):
    assert repr(features) == (
        "<ImageFeatures: 3 images, pooled (3, 64) float32, tokens (3, 176, 64) float32, maps of 2 scales, 1 error>"
    )
    assert repr(texts) == "<TextFeatures: 3 texts, pooled (3, 64) float32>"
    assert repr(texts[0]) == "<TextFeatures: 1 text, pooled (1, 64) float32>"


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_everything_comes_back(features, tmp_path, suffix, dtype):
    features = as_dtype(features[:], dtype)
    features.pooled = features.pooled.clone()
    features.pooled[0, :3] = torch.tensor([float("nan"), -0.0, float("inf")], dtype=dtype)
    features.save(tmp_path / f"a{suffix}")
    assert_same(ps3c.load_features(tmp_path / f"a{suffix}"), features)
    assert os.listdir(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("kind", ["pooled", "low-res", "maps", "none"])
def test_parts_come_back(encoder, image_files, tmp_path, suffix, kind):
    asked = {"low-res": dict(looks=0), "maps": dict(maps=True)}.get(kind, {})
    files = [tmp_path / "none.jpg"] if kind == "none" else image_files
    features = encoder.embed_images(files, **asked, on_error="skip")
    assert len(features) == (0 if kind == "none" else 3)
    features.save(tmp_path / f"a{suffix}")
    assert_same(ps3c.load_features(tmp_path / f"a{suffix}"), features)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_come_back(texts, tmp_path, suffix, dtype):
    texts = TextFeatures(texts.texts, texts.pooled.to(dtype), texts.prompt.to(dtype))
    texts.save(tmp_path / f"a{suffix}")
    back = ps3c.load_features(str(tmp_path / f"a{suffix}"))
    assert isinstance(back, TextFeatures) and back.texts == texts.texts
    for name in ("pooled", "prompt"):
        assert getattr(back, name).dtype == dtype
        assert bytes_of(getattr(back, name)) == bytes_of(getattr(texts, name))


def test_layout_of_safetensors(features, tmp_path):
    """The file format that docs/ documents for readers in other languages."""
    from safetensors import safe_open

    as_dtype(features, torch.bfloat16).save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        names = set(file.keys())
        words = json.loads(file.metadata()["ps3c"])
        assert file.get_tensor("tokens").dtype == torch.bfloat16 and file.get_tensor("positions").dtype == torch.int32
        assert bytes(file.get_tensor("thumbnails.0").numpy())[:4] == b"\x89PNG"
    maps = {f"selection_{what}.{scale}" for what in ("maps", "probs") for scale in (1, 2)}
    assert names == {"pooled", "tokens", "positions", "look", *maps, *(f"thumbnails.{i}" for i in range(3))}
    assert words["version"] == 1 and words["kind"] == "images" and words["names"] == features.names
    assert words["errors"][0][1] == "the file does not exist" and words["grids"] == [[4, 4], [8, 8], [16, 16]]


def test_layout_of_npz(features, tmp_path):
    features = as_dtype(features, torch.bfloat16)
    features.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        bits = arrays["tokens.bfloat16"]
        assert bits.dtype == np.uint16 and "tokens" not in arrays and arrays["look"].dtype == np.int16
        floats = (bits.astype(np.uint32) << 16).view(np.float32)
        assert np.array_equal(floats, features.tokens.float().numpy())
        assert json.loads(str(arrays["ps3c"]))["texts"] == features.texts


@needs_pyarrow
def test_layout_of_parquet(features, tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    features.save(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.remove_metadata() == arrow.schema(
        [
            ("name", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("text", arrow.string()),
            ("vector", arrow.list_(arrow.float32(), 64)),
        ]
    )
    assert table["name"].to_pylist() == features.names and table["text"].to_pylist() == features.texts
    assert list(zip(table["width"].to_pylist(), table["height"].to_pylist())) == features.sizes
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), features.pooled.numpy())
    assert json.loads(table.schema.metadata[b"ps3c"])["kind"] == "images"


@needs_pyarrow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_vectors_come_back_from_parquet(features, texts, tmp_path, dtype):
    texts = TextFeatures(texts.texts, texts.pooled.to(dtype), texts.prompt)
    for name, result in (("i", as_dtype(features, dtype)), ("t", texts)):
        result.save(tmp_path / f"{name}.parquet")
        back = ps3c.load_features(tmp_path / f"{name}.parquet")
        assert type(back) is type(result) and back.texts == result.texts
        assert back.pooled.dtype == dtype and bytes_of(back.pooled) == bytes_of(result.pooled)
    assert back.prompt.shape == (3, 0)
    images = ps3c.load_features(tmp_path / "i.parquet")
    assert (images.names, images.sizes, images.scales, images.patch_size) == (
        features.names,
        features.sizes,
        features.scales,
        features.patch_size,
    )
    assert images.tokens is None and images.thumbnails == []


@needs_pyarrow
def test_no_images_in_parquet(encoder, tmp_path):
    encoder.embed_images(tmp_path / "none.jpg", on_error="skip").save(tmp_path / "a.parquet")
    assert ps3c.load_features(tmp_path / "a.parquet").pooled.shape == (0, 64)


def test_parquet_without_pyarrow(features, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ps3c.MissingExtraError,
        match=r"pyarrow: not installed, needed for Parquet files; type pip install '.\[parquet\]' .*'ps3c\[parquet\]'",
    ):
        features.save(tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == []


def test_names_of_any_bytes(encoder, tmp_path):
    """File names on Linux need not be UTF-8."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    photograph().save(path)
    features = encoder.embed_images(path)
    for suffix in (".safetensors", ".npz"):
        features.save(tmp_path / f"a{suffix}")
        assert ps3c.load_features(tmp_path / f"a{suffix}").names == [path]


# ---- files that cannot be written or read ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", pytest.param(".parquet", marks=needs_pyarrow)])
def test_existing_file(features, texts, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists; overwrite=True \(--force\) replaces it"):
        features.save(path)
    assert path.read_text() == "mine"
    features.save(path, overwrite=True)
    assert isinstance(ps3c.load_features(path), ImageFeatures)
    assert (path.stat().st_mode & 0o777) == 0o666 & ~current_umask() and os.listdir(tmp_path) == [path.name]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_other_endings(features, tmp_path):
    for name in ("a", "a.csv", "a.pt"):
        with pytest.raises(ValueError, match="path: got .*, expected a name that ends in .parquet, .safetensors, .npz"):
            features.save(tmp_path / name)
        with pytest.raises(ValueError, match="expected a name that ends in"):
            ps3c.load_features(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="a.npz: the file does not exist"):
        ps3c.load_features(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist"):
        features.save(tmp_path / "nowhere" / "a.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="got a folder"):
        features.save(tmp_path / "folder.npz", overwrite=True)


@contextmanager
def full_disk(after: int):
    """Writes beyond `after` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", pytest.param(".parquet", marks=needs_pyarrow)])
def test_full_disk(tmp_path, suffix):
    """If a file does not fit on the disk, no partial file remains, and an existing file is unchanged."""
    features = ImageFeatures(["a"], [(1, 1)], torch.rand(1, 1 << 16))
    old, new = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    old.write_text("mine")
    for path in (old, new):
        with pytest.raises(OSError) as caught, full_disk(after=1 << 14):
            features.save(path, overwrite=True)
        assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path), caught.value
    assert os.listdir(tmp_path) == [old.name] and old.read_text() == "mine"
    features.save(new)  # the disk has room again
    assert torch.equal(ps3c.load_features(new).pooled, features.pooled)


def test_interrupted_write(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with replacing(tmp_path / "a.npz", False) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_existing_meanwhile(tmp_path):
    """Another process creates the file during the write."""
    with pytest.raises(FileExistsError):
        with replacing(tmp_path / "a.npz", False) as temporary:
            temporary.write_text("ours")
            (tmp_path / "a.npz").write_text("theirs")
    assert (tmp_path / "a.npz").read_text() == "theirs" and os.listdir(tmp_path) == ["a.npz"]


def test_files_of_others(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", a=np.zeros(1))
    (tmp_path / "b.safetensors").write_text("nonsense")
    (tmp_path / "b.npz").write_text("nonsense")
    (tmp_path / "b.parquet").write_text("nonsense")
    files = ["a.safetensors", "a.npz", "b.safetensors", "b.npz"]
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.table({"name": ["a"]}), tmp_path / "a.parquet")
        files += ["a.parquet", "b.parquet"]
    for name in files:
        with pytest.raises(ValueError, match=f"{name}: (ps3c did not write it|cannot be read)") as caught:
            ps3c.load_features(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_truncated_files(features, tmp_path):
    suffixes = [".safetensors", ".npz"] + [".parquet"] * (importlib.util.find_spec("pyarrow") is not None)
    for suffix in suffixes:
        path = tmp_path / f"a{suffix}"
        features.save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=f"a{suffix}: cannot be read: "):
            ps3c.load_features(path)


def test_newer_version(features, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    features.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        words = json.loads(file.metadata()["ps3c"])
    tensors = load_file(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors", metadata={"ps3c": json.dumps({**words, "version": 2})})
    with pytest.raises(ValueError, match="b.safetensors: got format version 2, expected 1; a newer ps3c wrote it"):
        ps3c.load_features(tmp_path / "b.safetensors")


# ---- notebooks -------------------------------------------------------------------------------------------------------


def test_results_show_themselves(features, encoder, monkeypatch):
    looks = list(encoder.looks(photograph(), looks=1))
    shown = [features, features[1], *looks, encoder.embed_images(photograph(), maps=True)]
    if importlib.util.find_spec("matplotlib") is None:
        assert all(result._repr_png_() is None for result in shown)
        pytest.skip("pictures need matplotlib")
    for result in shown:
        assert result._repr_png_()[:4] == b"\x89PNG"
    pooled = encoder.embed_images(photograph())
    assert pooled._repr_png_() is None and pooled.thumbnails == []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "ps3c.plot.figure", raising=False)
    assert features._repr_png_() is None

"""No call of the one-call API leaves memory, references, open files or threads behind (leaks.py).

ps3c.load, every method of Encoder, results with their files, pictures, the event handlers of the web page; each also
with what it refuses.
"""

import contextlib
import functools
import json
import shutil
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from leaks import beside, fewer, malloc_counter, measure, row
from PIL import Image
from safetensors import safe_open

import ps3c
from ps3c import plot

PIXELS = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)


def folder() -> Path:
    """A new folder inside the test's, which leaks.py removes."""
    return Path(tempfile.mkdtemp())


def loaded() -> ps3c.Encoder:
    return ps3c.load(tiny_model.write_checkpoint(folder() / "model"), device="cpu")


# ---- Encoder --------------------------------------------------------------------------------------------------------


def every(iterator):
    for _ in iterator:
        pass


def first(iterator):
    next(iterator)
    iterator.close()


def refused():
    one, files = loaded(), folder()
    name, damaged = str(files / "a.png"), str(files / "damaged.png")
    Image.fromarray(PIXELS).save(name)
    Path(damaged).write_bytes(Path(name).read_bytes()[:60])
    embed, no = one.embed_images, dict(progress=False)
    yield row("embed_images: a damaged file", embed, damaged, raises=ps3c.ImageError, calls=4000, **no)
    yield row("embed_images: no file", embed, name + ".no", raises=ps3c.ImageError, calls=4000, **no)
    yield row("embed_images: too many pixels", embed, name, raises=ps3c.ImageError, calls=4000, max_pixels=5, **no)
    wrong = {
        "looks and tokens": (ValueError, [PIXELS], dict(looks=1, tokens=1)),
        "text alone": (ValueError, [PIXELS], dict(text="a")),
        "text of numbers": (TypeError, [PIXELS], dict(text=3, looks=1)),
        "two texts": (ValueError, [PIXELS], dict(text=["a", "b"], looks=1)),
        "on_error": (ValueError, [PIXELS], dict(on_error="no")),
        "batch_size": (ValueError, [PIXELS], dict(batch_size=0)),
        "max_pixels": (ValueError, [PIXELS], dict(max_pixels=0)),
        "background": (ValueError, [PIXELS], dict(background="no colour")),
        "empty list": (ValueError, [], {}),
        "wrong type": (TypeError, 3, {}),
        "array of two channels": (ps3c.ImageError, np.zeros((4, 4, 2), np.uint8), {}),
        "array of int64": (ps3c.ImageError, np.zeros((4, 4), np.int64), {}),
        "array of NaN": (ps3c.ImageError, np.full((4, 4), np.nan), {}),
        "web address": (ps3c.ImageError, "https://example.org/a.png", {}),
        "data: URL": (ps3c.ImageError, "data:x", {}),
        "bytes": (ps3c.ImageError, b"no image", {}),
        "empty row": (TypeError, {"path": None, "bytes": None}, {}),
    }
    for what, (kind, images, options) in wrong.items():
        yield row(f"embed_images: {what}", embed, images, raises=kind, calls=4000, **{**no, **options})
    for what, arguments, kind in [
        ("a number", (3,), TypeError),
        ("a list of numbers", (["a", 3],), TypeError),
        ("nothing", ([],), ValueError),
    ]:
        yield row(f"embed_texts: {what}", one.embed_texts, *arguments, raises=kind)
    for what, labels, kind in [
        ("a string", "a", TypeError),
        ("twice", ["a", "a"], ValueError),
        ("none", [], ValueError),
    ]:
        yield row(f"zero_shot: {what}", one.zero_shot, PIXELS, labels, raises=kind)
    yield row("zero_shot: template", one.zero_shot, PIXELS, ["a"], "no place", raises=ValueError)
    yield row("looks: no number", one.looks, PIXELS, None, None, raises=ValueError)
    yield row("looks: text", one.looks, PIXELS, 3, raises=TypeError)


def embeddings():
    one, name, no = loaded(), str(folder() / "a.png"), dict(progress=False)
    Image.fromarray(PIXELS).save(name)
    options = {
        "pooled": {},
        "looks": dict(looks=1),
        "tokens and text": dict(tokens=2, text="a rope"),
        "maps": dict(maps=True, normalize=False),
        "errors skipped": dict(on_error="skip"),
    }
    for what, chosen in options.items():
        yield row(f"embed_images: {what}", one.embed_images, [PIXELS], **no, **chosen)
    yield row("embed_images: a file", one.embed_images, name, **no)
    yield row("embed_images: a PIL image", one.embed_images, Image.fromarray(PIXELS), **no)
    yield row("embed_images: bytes", one.embed_images, Path(name).read_bytes(), **no)
    yield row("embed_images: a function of progress", one.embed_images, PIXELS, progress=lambda done, total: None)
    yield row("embed_images: skips an image", one.embed_images, [PIXELS, name + ".no"], on_error="skip", **no)
    batches = dict(batch_size=1, **no)
    yield row("embed_batches", lambda: every(one.embed_batches([PIXELS] * 2, **batches)))
    yield row("embed_batches of a generator", lambda: every(one.embed_batches((PIXELS for _ in range(2)), **batches)))
    yield row("embed_batches, the first only", lambda: first(one.embed_batches([PIXELS] * 2, **batches)))
    yield row("embed_texts", one.embed_texts, ["a rope", "a boat"], **no)
    yield row("prompt", one.prompt, "a rope")
    yield row("looks", lambda: every(one.looks(PIXELS, "a rope", "all", **no)))
    yield row("looks, the first only", lambda: first(one.looks(PIXELS, **no)))
    yield row("zero_shot", one.zero_shot, PIXELS, ["a rope", "a boat"], "a photo of {}", **no)
    yield row("unpacked", lambda: [*one, repr(one)])


# ---- load -----------------------------------------------------------------------------------------------------------


def broken(source: Path) -> dict[str, Path]:
    """Folders that cannot be loaded, by what is wrong."""
    changes = {
        "config.json is missing": lambda f: (f / "config.json").unlink(),
        "config.json is no JSON": lambda f: (f / "config.json").write_text("{"),
        "config.json of another model": lambda f: (f / "config.json").write_text(json.dumps({"model_type": "x"})),
        "no weights": lambda f: (f / "model.safetensors").unlink(),
        "truncated weights": lambda f: (f / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{"),
        "a Git LFS pointer": lambda f: (f / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1"
        ),
        "no processor": lambda f: (f / "preprocessor_config.json").unlink(),
        "wrong processor": lambda f: (f / "preprocessor_config.json").write_text('{"image_size": -1}'),
        "wrong tokenizer": lambda f: (f / "tokenizer_config.json").write_text("[]"),
    }
    found = {}
    for what, change in changes.items():
        found[what] = folder() / "model"
        shutil.copytree(source, found[what])
        change(found[what])
    return found


def tensors(path: Path) -> None:
    """Reads each tensor of a file: safetensors 0.8 loses an integer for each that it gives to torch."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():
            file.get_tensor(name)


def load():
    source = tiny_model.write_checkpoint(folder() / "model")
    library = functools.partial(tensors, source / "model.safetensors")
    for what, function in {
        "load": lambda: ps3c.load(source, device="cpu"),
        "load and a text": lambda: ps3c.load(source, device="cpu").tokenizer,
        "load in bfloat16": lambda: ps3c.load(source, device="cpu", dtype="bfloat16"),
    }.items():
        yield beside("safe_open of a checkpoint", library, row(what, function, calls=100))
    for what, path in broken(source).items():
        yield row(f"load: {what}", ps3c.load, path, raises=ps3c.CheckpointError, calls=1000, device="cpu")
    yield row("load: no folder", ps3c.load, source / "none", raises=ps3c.CheckpointError, device="cpu")
    yield row("load: dtype", ps3c.load, source, raises=ValueError, device="cpu", dtype="int8")
    yield row("load: device", ps3c.load, source, raises=ValueError, device="tpu")


# ---- results --------------------------------------------------------------------------------------------------------


def results():
    one = loaded()
    images = one.embed_images([PIXELS] * 3, ["a", None, "b"], looks=1, maps=True, progress=False)
    texts = one.embed_texts(["a", "b"], progress=False)
    indices = {"a number": 1, "a slice": slice(1, 3), "a list": [2, 0], "a mask": torch.tensor([True, False, True])}
    for what, index in indices.items():
        yield row(f"ImageFeatures[{what}]", images.__getitem__, index)
    for index, kind in [(9, IndexError), ("a", TypeError), ([True], IndexError), ([0, 9], IndexError)]:
        yield row(f"ImageFeatures[{index!r}]", images.__getitem__, index, raises=kind)
    yield row("TextFeatures[0]", texts.__getitem__, 0)
    yield row("ImageFeatures.concatenate", ps3c.ImageFeatures.concatenate, [images, images], calls=4000)
    yield row("ImageFeatures.concatenate of none", ps3c.ImageFeatures.concatenate, [], raises=ValueError)
    mixed = [images, one.embed_images(PIXELS, progress=False)]
    yield row("ImageFeatures.concatenate of two kinds", ps3c.ImageFeatures.concatenate, mixed, raises=ValueError)
    yield row("feature_maps", images.feature_maps, calls=4000)
    yield row("feature_maps without tokens", mixed[1].feature_maps, raises=ValueError)
    yield row("to, repr, len", lambda: (images.to("cpu"), repr(images), len(images), repr(texts)))


def saved():
    one, files = loaded(), folder()
    images = one.embed_images([PIXELS] * 3, ["a", None, "b"], looks=1, maps=True, progress=False)
    texts = one.embed_texts(["a", "b"], progress=False)
    suffixes = ["npz", "safetensors"]
    with contextlib.suppress(ImportError):
        import pyarrow.parquet  # noqa: F401

        suffixes.append("parquet")
    for suffix in suffixes:
        for what, features in (("images", images), ("texts", texts)):
            path = files / f"{what}.{suffix}"
            features.save(path)
            yield row(f"save {what}.{suffix}", features.save, path, overwrite=True)
            loading = row(f"load_features {what}.{suffix}", ps3c.load_features, path)
            alone = functools.partial(tensors, path)
            yield beside(f"safe_open of {what}", alone, loading) if suffix == "safetensors" else loading
        damaged, foreign = files / f"damaged.{suffix}", files / f"foreign.{suffix}"
        damaged.write_bytes(path.read_bytes()[:-30])
        foreign.write_bytes(b"nothing of this kind")
        yield row(f"load_features of a damaged .{suffix}", ps3c.load_features, damaged, raises=ValueError)
        yield row(f"load_features of a foreign .{suffix}", ps3c.load_features, foreign, raises=ValueError)
        yield row(f"save over a file .{suffix}", images.save, path, raises=FileExistsError)
    yield row("save: suffix", images.save, files / "a.txt", raises=ValueError)
    yield row("save: no folder", images.save, files / "none" / "a.npz", raises=FileNotFoundError)
    yield row("save: a folder", images.save, folder(), raises=(ValueError, OSError))
    yield row("load_features: no file", ps3c.load_features, files / "none.npz", raises=FileNotFoundError)


# ---- pictures and the page ------------------------------------------------------------------------------------------


def pictures():
    one = loaded()
    images = one.embed_images([PIXELS] * 2, ["a", None], looks=1, maps=True, progress=False)
    look = list(one.looks(PIXELS, "a rope", "all", progress=False))
    plain = one.embed_images(PIXELS, progress=False)
    calls, picture = dict(calls=60), folder() / "a.png"
    yield row("plot.overlay", plot.overlay, None, images, **calls)
    yield row("plot.looks", plot.looks, None, look, **calls)
    yield row("plot.feature_map", plot.feature_map, images, **calls)
    yield row("plot.overlay, saved", lambda: plot.overlay(None, images).save(picture), **calls)
    yield row("ImageFeatures._repr_png_", images._repr_png_, **calls)
    for what, function, arguments, kind in [
        ("overlay of no maps", plot.overlay, (None, plain), (ValueError, TypeError)),
        ("overlay of index 9", plot.overlay, (None, images, None, 9), (ValueError, IndexError)),
        ("overlay of no index", plot.overlay, (None, images, None, []), ValueError),
        ("overlay of scale 9", plot.overlay, (None, images, 9), ValueError),
        ("looks of no tokens", plot.looks, (None, plain), (ValueError, TypeError)),
        ("feature_map of no tokens", plot.feature_map, (plain,), (ValueError, TypeError)),
    ]:
        yield row(f"plot.{what}", function, *arguments, raises=kind, calls=4000)


def page():
    """The event handlers of the page; gradio only passes their results on."""
    one = loaded()
    from ps3c.page.server import _Events

    gradio = types.SimpleNamespace(skip=lambda: None, update=lambda **changes: changes)
    events, files = _Events(gradio, one, None, "white"), folder()
    name, damaged = str(files / "a.tiff"), str(files / "b.png")
    Image.fromarray(PIXELS).save(name)
    Path(damaged).write_bytes(b"none")
    yield row("page: look", lambda: every(events.look(name, "a rope", 1)))
    yield row("page: look, the first only", lambda: first(events.look(name, "", 1)))
    yield row("page: look at a damaged file", lambda: every(events.look(damaged, "", 1)))
    yield row("page: look at nothing", lambda: every(events.look(None, "", 1)))
    yield row("page: receive", events.receive, name)
    yield row("page: receive a damaged file", events.receive, damaged)
    run = [*events.look(name, "a rope", 1)][-1][0]
    yield row("page: step", events.step, run, 1)
    yield row("page: stopped", events.stopped, run)


GROUPS = {
    "embeddings": lambda: fewer(1000, embeddings()),
    "refused": refused,
    "load": load,
    "results": results,
    "saved": lambda: fewer(500, saved()),
    "pictures": pictures,
    "page": lambda: fewer(100, page()),
}


@pytest.mark.skipif(malloc_counter() is None, reason="needs glibc 2.33, which counts malloc's bytes (mallinfo2)")
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_stays(group, figures, tmp_path):
    if group in ("pictures", "page"):
        pytest.importorskip("matplotlib", reason="matplotlib, the extra `plot`, is not installed")
    measure(__file__, group, figures, tmp_path)

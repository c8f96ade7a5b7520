"""Encoder: its features are compared with those of the model's forward."""

import inspect
import io
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import photograph
from PIL import Image

import ps3c
from ps3c.features import reading
from ps3c.features.progress import Reporter


@pytest.fixture(scope="module")
def pixels(encoder, image_files):
    """The pixels of the files, computed with the processor as a script for ps3-torch does."""
    return torch.stack([encoder.processor(Image.open(file).convert("RGB"))["pixel_values"][0] for file in image_files])


class Counted:
    """Counts calls of a function and passes them on."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.function(*args, **kwargs)


@pytest.fixture
def engine_steps(monkeypatch):
    """The steps that the engine runs, in order: (first_image, images, first_look, looks)."""
    from ps3c.torch_api.stepwise import Steps

    ran, original = [], Steps.__next__

    def counted(self):
        step = original(self)
        ran.append((step.images.start, len(step.images), step.looks.start, len(step.looks)))
        return step

    monkeypatch.setattr(Steps, "__next__", counted)
    return ran


# ---- images ----------------------------------------------------------------------------------------------------------


def test_pooled_vectors(encoder, image_files, pixels):
    expected = encoder.model.vision_model.forward_low_res(pixels)["x"]
    raw = encoder.embed_images(image_files, normalize=False)
    assert torch.equal(raw.pooled, expected)
    features = encoder.embed_images(image_files)
    assert torch.allclose(features.pooled, F.normalize(expected, dim=-1), atol=1e-7)
    assert features.names == [str(file) for file in image_files]
    assert features.sizes == [(120, 80), (64, 200), (300, 300)]
    assert features.texts == [None] * 3 and features.scales == [64, 128, 256] and features.patch_size == 16
    assert features.tokens is features.positions is features.look is features.selection_maps is None


@pytest.mark.parametrize("text", [None, "a ship"])
@pytest.mark.parametrize(
    "request_", [dict(looks=0), dict(looks=2), dict(looks="all"), dict(tokens=100), dict(tokens="all")]
)
def test_tokens_are_the_models(encoder, image_files, pixels, text, request_):
    prompt = None if text is None else encoder.prompt(text)
    arguments = {"looks": "num_look_close", "tokens": "num_token_look_close"}
    asked = {arguments[name]: value for name, value in request_.items()}
    expected = encoder.model.encode_image(pixels, prompt=prompt, **asked)
    features = encoder.embed_images(image_files, text, maps=True, **request_)
    assert torch.equal(features.tokens, expected.last_hidden_state)
    for ours, theirs in zip(features.selection_probs, expected.selection_probs):
        assert torch.equal(ours, theirs)
    for scale, ours in enumerate(features.selection_maps):
        assert torch.equal(ours, expected.selection_maps[scale]) if expected.selection_maps else not ours.any()
    maps = encoder.model.vision_model.format_features_into_feature_maps(features.tokens, expected.selection_maps)
    for image in range(3):
        for token in (0, 5, 16, -1):
            if token < features.tokens.shape[1]:
                scale, row, column = features.positions[image, token].tolist()
                assert torch.equal(maps[scale][image, :, row, column], features.tokens[image, token])
    assert features.positions.dtype == torch.int32 and features.look.dtype == torch.int16
    assert torch.equal(encoder.embed_images(image_files, normalize=False).pooled.norm(dim=1) > 0, torch.ones(3).bool())
    assert torch.equal(features.pooled, encoder.embed_images(image_files).pooled)


def test_look_numbers(encoder, image_files):
    """The tokens of a look are those that one more look adds to the selection."""
    features = encoder.embed_images(image_files, looks=3, maps=True)
    assert torch.equal(features.look == 0, features.positions[..., 0] == 0)
    before = [torch.zeros_like(one) for one in features.selection_maps]
    for number in (1, 2, 3):
        now = encoder.embed_images(image_files, looks=number, maps=True).selection_maps
        for image in range(3):
            here = features.positions[image][features.look[image] == number].tolist()
            added = [
                [scale, *place]
                for scale, (a, b) in enumerate(zip(now, before), start=1)
                for place in (a[image] - b[image]).nonzero().tolist()
            ]
            assert here == added
        before = now


def test_pooled_alone_and_maps_alone(encoder, image_files, engine_steps):
    encoder.embed_images(image_files)
    assert engine_steps == []
    features = encoder.embed_images(image_files, "a ship", maps=True)
    assert features.tokens is None and not any(one.any() for one in features.selection_maps)
    expected = encoder.embed_images(image_files, "a ship", looks=1, maps=True)
    assert all(torch.equal(a, b) for a, b in zip(features.selection_probs, expected.selection_probs))
    assert encoder.embed_images(image_files[0], looks=1).selection_probs is None


@pytest.mark.parametrize("batch_size", ["auto", 1, 2, 3, 7])
def test_batches_do_not_matter(encoder, image_files, batch_size):
    texts = ["a ship", None, "a rope"]
    features = encoder.embed_images(image_files, texts, looks=2, maps=True, batch_size=batch_size)
    assert features.texts == texts and features.names == [str(file) for file in image_files]
    for index, (file, text) in enumerate(zip(image_files, texts)):
        alone = encoder.embed_images(file, text, looks=2, maps=True)
        one = features[index]
        assert torch.equal(one.tokens, alone.tokens) and torch.equal(one.look, alone.look)
        assert torch.equal(one.positions, alone.positions) and torch.equal(one.pooled, alone.pooled)
        assert all(torch.equal(a, b) for a, b in zip(one.selection_probs, alone.selection_probs))


def test_sources(encoder, image_files):
    """Paths, PIL images and arrays; one, a list or a generator."""
    expected = encoder.embed_images(image_files[0]).pooled
    image = Image.open(image_files[0])
    for source in (
        str(image_files[0]),
        image,
        np.asarray(image),
        [np.asarray(image)],
        (one for one in [image_files[0]]),
    ):
        assert torch.equal(encoder.embed_images(source).pooled, expected)
    features = encoder.embed_images([photograph(), np.asarray(photograph()), image_files[0]])
    assert features.names == ["image 0", "image 1", str(image_files[0])]


def test_reduced_precision(tiny_checkpoint, image_files):
    encoder = ps3c.load(tiny_checkpoint, device="cpu")
    features = encoder.embed_images(image_files, "a ship", looks=1, maps=True)
    tensors = [features.pooled, features.tokens, *features.selection_maps, *features.selection_probs]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert torch.allclose(features.pooled.float().norm(dim=1), torch.ones(3), atol=4e-3)


def test_images_that_cannot_be_used(encoder, image_files, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    sources = [tmp_path / "none.png", image_files[0], tmp_path / "bad.png", np.zeros(3), image_files[1]]
    with pytest.raises(ps3c.ImageError, match="none.png: the file does not exist"):
        encoder.embed_images(sources)
    texts = ["0", "1", "2", "3", "4"]
    features = encoder.embed_images(sources, texts, looks=1, on_error="skip")
    assert features.names == [str(file) for file in image_files[:2]] and features.texts == ["1", "4"]
    assert [error.name for error in features.errors] == [str(sources[0]), str(sources[2]), "image 3"]
    assert torch.equal(features[1].tokens, encoder.embed_images(image_files[1], "4", looks=1).tokens)
    nothing = encoder.embed_images(sources[0], on_error="skip")
    assert len(nothing) == 0 and len(nothing.errors) == 1 and nothing.pooled.shape == (0, 64)
    with pytest.raises(ps3c.ImageError, match="more than the limit of 100"):
        encoder.embed_images(image_files, max_pixels=100)


BAD = {
    "both": (dict(looks=1, tokens=5), ValueError, "looks, tokens: got 1 and 5, expected one of them"),
    "negative": (dict(looks=-1), ValueError, "looks: got -1, expected 0 or more"),
    "word": (dict(tokens="most"), ValueError, "tokens: got 'most', expected a number, 'all' or None"),
    "bool": (dict(looks=True), TypeError, "looks: got True"),
    "batch": (dict(batch_size=0), ValueError, "batch_size: got 0, expected 1 or more"),
    "batch word": (dict(batch_size="big"), TypeError, "batch_size: got 'big'"),
    "on_error": (dict(on_error="stop"), ValueError, "on_error: got 'stop', expected 'raise' or 'skip'"),
    "progress": (dict(progress="yes"), TypeError, "progress: got 'yes', expected None, True, False or a function"),
    "pixels": (dict(max_pixels=0), ValueError, "max_pixels: got 0"),
    "background": (dict(background="whit"), ValueError, "background: got 'whit', expected an opaque colour"),
    "text": (dict(text="a ship"), ValueError, "text: got 'a ship' without looks, tokens or maps"),
    "texts": (
        dict(text=["a"] * 2, looks=1),
        ValueError,
        "text: got 2 texts, expected one for all images, or one for each of 3",
    ),
    "text kind": (
        dict(text=[1, 2, 3], looks=1),
        TypeError,
        "text: got .*, expected a string, or a string or None for each",
    ),
    "no images": (dict(images=[]), ValueError, "images: got an empty list"),
    "number": (dict(images=3), TypeError, "images: got int, expected paths, PIL images or NumPy arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(encoder, image_files, case):
    arguments, exception, message = BAD[case]
    arguments = {"images": image_files, **arguments}
    for call in (encoder.embed_images, encoder.embed_batches):  # at once, not when the first batch is asked for
        with pytest.raises(exception, match=f"^{message}") as caught:
            call(**arguments)
        assert type(caught.value) is exception


def test_a_source_of_no_known_kind(encoder, image_files):
    for on_error in ("raise", "skip"):  # a mistake of the program's, not of an image
        with pytest.raises(TypeError, match="image: got Tensor"):
            encoder.embed_images([image_files[0], torch.zeros(3, 8, 8)], on_error=on_error)


# ---- streaming -------------------------------------------------------------------------------------------------------


def test_generators_are_read_as_needed(encoder, image_files):
    asked = []

    def sources():
        for number in range(100):
            asked.append(number)
            yield image_files[number % 3]

    batches = encoder.embed_batches(sources(), batch_size=2)
    assert asked == []
    first = next(batches)
    assert len(first) == 2 and asked == [0, 1]
    batches.close()
    assert asked == [0, 1]
    with pytest.raises(ValueError, match="text: got 1 texts, expected one for each image"):
        encoder.embed_images((file for file in image_files), ["a ship"], looks=1, batch_size=1)


def test_each_image_is_prepared_once(encoder, image_files, monkeypatch):
    processor = Counted(encoder.processor)
    processor.image_size = encoder.processor.image_size
    monkeypatch.setattr(encoder, "processor", processor)
    encoder.embed_images(image_files, ["a", None, "b"], looks=2, maps=True)
    assert len(processor.calls) == 3
    list(encoder.looks(image_files[0]))
    assert len(processor.calls) == 4


def test_reading_ahead():
    """Threads prepare a bounded number of images in advance. Order and errors are unchanged."""
    started, lock = [], threading.Lock()

    def work(number):
        with lock:
            started.append(number)
        if number == 7:
            raise ps3c.ImageError("7", "bad")
        return number * number

    results = reading._ahead(work, iter(range(100)), 3)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert max(started) <= 5
    results.close()  # the caller stops early
    assert len(started) <= 7
    with pytest.raises(ps3c.ImageError):
        list(reading._ahead(work, iter(range(100)), 3))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ps3c-images")]
    assert list(reading._ahead(str, iter(range(20)), 4)) == [str(number) for number in range(20)]


def test_read_ahead_gives_the_same(encoder, image_files, tmp_path, monkeypatch):
    sources = [*image_files, tmp_path / "none.png"] * 2
    expected = encoder.embed_images(sources, looks=1, on_error="skip")
    reader = encoder._reader
    monkeypatch.setattr(encoder, "_reader", lambda *args, **kwargs: ahead_of(reader(*args, **kwargs)))
    features = encoder.embed_images(sources, looks=1, on_error="skip")
    assert torch.equal(features.tokens, expected.tokens) and features.names == expected.names
    assert [str(error) for error in features.errors] == [str(error) for error in expected.errors]


def ahead_of(reader):
    reader._ahead = 3
    return reader


def test_memory_holds_one_batch(encoder, monkeypatch):
    """Pixels and images of a batch are released before the next batch is created."""
    import gc
    import weakref

    alive, made = weakref.WeakSet(), []

    class Tracked(reading.Prepared):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            alive.add(self)

        __hash__ = object.__hash__

    monkeypatch.setattr(reading, "Prepared", Tracked)
    for _batch in encoder.embed_batches((photograph(seed=seed) for seed in range(12)), looks=1, batch_size=2):
        gc.collect()
        made.append(len(alive))
    assert len(made) == 6 and max(made) <= 4, made


def test_one_signature_for_all_and_for_batches():
    whole, batches = (inspect.signature(one) for one in (ps3c.Encoder.embed_images, ps3c.Encoder.embed_batches))
    assert whole.parameters == batches.parameters and "max_pixels" in whole.parameters
    assert whole.return_annotation is ps3c.ImageFeatures


# ---- looks -----------------------------------------------------------------------------------------------------------


def test_looks_are_those_of_embed_images(encoder, image_files):
    whole = encoder.embed_images(image_files[0], "a ship", looks="all", maps=True)
    looks = list(encoder.looks(image_files[0], "a ship"))
    assert [look.number for look in looks] == [0, 1, 2, 3, 4]
    for look in looks:
        here = whole.look[0] == look.number
        assert torch.equal(look.features, whole.tokens[0][here])
        assert torch.equal(look.positions, whole.positions[0][here])
        assert all(torch.equal(a, b[0]) for a, b in zip(look.probs, whole.selection_probs))
        assert look.text == "a ship" and look.scales == [64, 128, 256] and look.image.size == (120, 80)
    assert [look.taken for look in looks] == [[16, 0, 0]] + [[0, 16, 64]] * 4
    assert repr(looks[1]) == "<Look 1: patches 16 at 128, 64 at 256, features (80, 64) float32>"


def test_a_look_is_computed_when_asked_for(encoder, image_files, engine_steps):
    looks = encoder.looks(image_files[0], "a ship")
    assert engine_steps == []
    assert next(looks).number == 0
    assert engine_steps == [(0, 1, 0, 0)]  # the low resolution, once
    assert next(looks).number == 1 and next(looks).number == 2
    assert engine_steps[1:] == [(0, 1, 0, 1), (0, 1, 1, 1)]
    looks.close()
    assert len(engine_steps) == 3
    assert len(list(encoder.looks(image_files[0], looks=2))) == 3 and len(engine_steps) == 6


@pytest.mark.parametrize(
    "arguments, numbers, taken",
    [
        (dict(looks=0), [0], [16]),
        (dict(looks=2), [0, 1, 2], [16, 80, 80]),
        (dict(looks=99), [0, 1, 2, 3, 4], [16, 80, 80, 80, 80]),
        (dict(tokens=100), [0, 1, 2], [16, 80, 20]),
        (dict(tokens="all"), [0, 1, 2, 3, 4], [16, 80, 80, 80, 80]),
    ],
)
def test_how_many_looks(encoder, image_files, arguments, numbers, taken):
    looks = list(encoder.looks(image_files[0], **arguments))
    assert [look.number for look in looks] == numbers
    assert [sum(look.taken) for look in looks] == taken == [len(look.features) for look in looks]


def test_bad_arguments_of_looks(encoder, tmp_path):
    with pytest.raises(ps3c.ImageError, match="none.jpg: the file does not exist"):
        encoder.looks(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="looks, tokens: got neither"):
        encoder.looks(photograph(), looks=None)
    with pytest.raises(ValueError, match="looks, tokens: got 2 and 5"):
        encoder.looks(photograph(), looks=2, tokens=5)
    with pytest.raises(TypeError, match="image: got list"):
        encoder.looks([photograph()])
    with pytest.raises(TypeError, match="text: got 3, expected a string"):
        encoder.looks(photograph(), 3)
    with pytest.raises(ps3c.ImageError, match="image: has .* more than the limit of 10"):
        encoder.looks(photograph(), max_pixels=10)


# ---- interruption and progress ---------------------------------------------------------------------------------------


def test_interrupted_between_looks(encoder, image_files, engine_steps):
    """Ctrl-C interrupts between two steps of the engine, and the encoder remains usable."""
    expected = encoder.embed_images(image_files[0], looks=2).tokens
    engine_steps.clear()

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    vision = encoder.model.vision_model
    try:
        vision.workspace_limit = 1  # as little as possible: one look at a time
        with pytest.raises(KeyboardInterrupt):
            encoder.embed_images(image_files, looks="all", progress=interrupt)
        assert len(engine_steps) == 3
    finally:
        vision.workspace_limit = None
    assert torch.equal(encoder.embed_images(image_files[0], looks=2).tokens, expected)


def test_progress_function(encoder, image_files, tmp_path):
    calls = []
    encoder.embed_images(image_files, progress=lambda *call: calls.append(call), batch_size=2)
    assert calls == [(2, 3), (3, 3)]
    calls.clear()
    sources = [tmp_path / "none.png", image_files[0], tmp_path / "none.png"]
    encoder.embed_images(sources, looks=4, progress=lambda *call: calls.append(call), on_error="skip")
    assert calls[-1] == (15, 15) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert all(total == 15 for _, total in calls)  # five steps each, also of those left out
    calls.clear()
    for _ in encoder.looks(image_files[0], progress=lambda *call: calls.append(call)):
        pass
    assert calls == [(done, 5) for done in (1, 2, 3, 4, 5)]
    calls.clear()
    list(encoder.embed_batches((file for file in image_files), progress=lambda *call: calls.append(call), batch_size=1))
    assert calls == [(1, None), (2, None), (3, None)]
    calls.clear()
    encoder.embed_texts(["a", "b", "c"], batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == [(2, 3), (3, 3)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_only_on_a_terminal(encoder, image_files, monkeypatch):
    def shown(stream, progress):
        monkeypatch.setattr(sys, "stderr", stream)
        encoder.embed_images(image_files[0], looks=4, progress=progress)
        return stream.getvalue()

    assert shown(io.StringIO(), None) == "" == shown(io.StringIO(), False) == shown(Terminal(), False)
    assert "5/5" in shown(io.StringIO(), True) and "look/s" in shown(Terminal(), True)
    assert shown(Terminal(), None) == ""  # over in a moment
    monkeypatch.setattr("ps3c.features.progress.QUICK", 0.0)
    assert "5/5" in shown(Terminal(), None)


def test_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw, and in some services
    with Reporter(None, 3, "image") as reporter:
        reporter.expect(1)
        reporter.step()
    assert reporter.done == 1


# ---- texts -----------------------------------------------------------------------------------------------------------


def test_texts_are_the_models(encoder):
    texts = ["a ship", "a rope on the boat", ""]
    expected = encoder.model.encode_text(encoder.tokenizer(texts))
    raw = encoder.embed_texts(texts, normalize=False)
    assert torch.equal(raw.pooled, expected.pooled_output) and torch.equal(raw.prompt, expected.prompt)
    features = encoder.embed_texts(texts)
    assert torch.allclose(features.pooled, F.normalize(expected.pooled_output, dim=-1), atol=1e-7)
    assert features.texts == texts
    one = encoder.embed_texts("a ship")
    assert one.texts == ["a ship"] and torch.equal(one.prompt, encoder.prompt("a ship"))
    parts = encoder.embed_texts(texts, batch_size=2)
    assert torch.equal(parts.pooled, features.pooled) and torch.equal(parts.prompt, features.prompt)


@pytest.mark.parametrize(
    "texts, exception, message",
    [
        ([], ValueError, "texts: got an empty list, expected one text or more"),
        (3, TypeError, "texts: got int, expected a string or a list of strings"),
        (["a"] * 70 + [3], TypeError, r"texts\[70\]: got int, expected a string"),
    ],
)
def test_bad_texts(encoder, texts, exception, message):
    with pytest.raises(exception, match=message):
        encoder.embed_texts(texts)


def test_prompts_are_made_once_a_batch(encoder, image_files, monkeypatch):
    encode = Counted(encoder.model.encode_text)
    monkeypatch.setattr(encoder.model, "encode_text", encode)
    encoder.embed_images(image_files, "a ship", looks=1, batch_size=1)
    assert len(encode.calls) == 1
    encoder.embed_images(image_files, ["a", "a", "b"], looks=1, batch_size=3)
    assert len(encode.calls) == 2 and len(encode.calls[1][0][0]) == 2


# ---- zero-shot -------------------------------------------------------------------------------------------------------


def test_zero_shot_against_torch(encoder, image_files, pixels):
    labels = ["ship", "rope", "clock"]
    image = encoder.model.vision_model.forward_low_res(pixels)["x"].double()
    text = encoder.model.encode_text(
        encoder.tokenizer([f"a photo of a {label}" for label in labels])
    ).pooled_output.double()
    cosines = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    expected = torch.sigmoid(cosines * torch.exp(torch.tensor(4.0).double()) - 10.0)
    results = encoder.zero_shot(image_files, labels, "a photo of a {}")
    assert [list(result) for result in results] == [labels] * 3
    got = torch.tensor([list(result.values()) for result in results], dtype=torch.float64)
    assert torch.allclose(got, expected, rtol=1e-4, atol=0)
    assert encoder.zero_shot(image_files[1], labels, "a photo of a {}") == pytest.approx(results[1], rel=1e-4)
    assert encoder.zero_shot([photograph()], ("{x}",))[0].keys() == {"{x}"}


@pytest.mark.parametrize(
    "arguments, exception, message",
    [
        (dict(labels="ship"), TypeError, "labels: got 'ship', expected a list of strings"),
        (dict(labels=[1]), TypeError, r"labels: got \[1\], expected a list of strings"),
        (dict(labels=[]), ValueError, r"labels: got \[\], expected one or more, without duplicates"),
        (dict(labels=["a", "a"]), ValueError, "labels: got .*, expected one or more, without duplicates"),
        (
            dict(labels=["a"], template="a photo"),
            ValueError,
            "template: got 'a photo', expected a string that contains {}",
        ),
    ],
)
def test_bad_arguments_of_zero_shot(encoder, arguments, exception, message):
    with pytest.raises(exception, match=message):
        encoder.zero_shot(photograph(), **arguments)


# ---- others ----------------------------------------------------------------------------------------------------------


def test_threads_share_an_encoder(encoder, image_files):
    expected = encoder.embed_images(image_files, "a ship", looks=2).tokens
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(encoder.embed_images(image_files, "a ship", looks=2).tokens))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(one, expected) for one in results)


def test_the_model_may_move(tiny_checkpoint, image_files):
    encoder = ps3c.load(tiny_checkpoint, device="cpu")
    encoder.model.float()
    assert encoder.dtype == torch.float32
    assert encoder.embed_images(image_files[0], "a ship", looks=1).tokens.dtype == torch.float32


def test_import_brings_no_extras():
    """The command does not import torch either, so ps3c --help is quick."""
    import subprocess

    code = "import sys, ps3c; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    heavy = {"matplotlib", "pyarrow", "gradio", "rich", "tqdm_notebook", "cv2", "scipy"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in done.stdout.split() and not heavy & set(done.stdout.split())
    command = f"import sys; sys.argv[0] = 'ps3c'; {code}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert not (heavy | {"torch", "transformers", "numpy"}) & set(done.stdout.split())

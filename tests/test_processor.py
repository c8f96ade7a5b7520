"""The image processor against ps3-torch's, which resizes with torchvision."""

import functools
import json
import pickle
import warnings

import models
import numpy as np
import pytest
import reference
import torch
import transformers
from PIL import Image

import ps3c

MODES = ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I", "F", "YCbCr", "HSV", "PA", "RGBX"]


def picture(mode: str, width: int, height: int) -> Image.Image:
    """Broad shapes, an edge and noise, in a mode; alpha and 16 bits use their whole range."""
    random = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 255 * (x > y)], axis=-1)
    rgb = np.clip(rgb + random.integers(-30, 30, rgb.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode == "I;16":
        return Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return Image.fromarray((rgb[..., 0] * 1.7 - 60).astype(np.int32 if mode == "I" else np.float32))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(random.integers(0, 256, (height, width), dtype=np.uint8)))
        return image.convert(mode)
    if mode == "PA":
        return image.convert("P").convert("PA")
    return image.convert(mode)


def check(ours, theirs, image):
    got, wanted = ours(image)["pixel_values"], theirs(image)["pixel_values"]
    assert isinstance(got, list) and len(got) == 1
    assert got[0].shape == wanted[0].shape and got[0].dtype == torch.float32 and got[0].is_contiguous()
    assert (got[0] - wanted[0]).abs().max().item() <= 1e-6


def both(**settings):
    return ps3c.PS3ImageProcessor(**settings), reference.load().PS3ImageProcessor(**settings)


@pytest.mark.filterwarnings("ignore:image. got mode '[IF]' with values")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width, height", [(100, 64), (64, 64), (31, 200), (1, 1)])
def test_modes(mode, width, height):
    check(*both(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), picture(mode, width, height))


@pytest.mark.parametrize("width, height", [(100, 64), (64, 64), (31, 200), (1, 1)])
def test_16_bit_grey_keeps_its_shades(width, height):
    """ps3-torch clips to 255, so nearly every pixel is white. Here, what ps3-torch gives for the 8-bit image."""
    deep = picture("I;16", width, height)
    small = Image.fromarray((np.asarray(deep) // 257).astype(np.uint8))
    ours, theirs = both(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert (ours(deep)["pixel_values"][0] - theirs(small)["pixel_values"][0]).abs().max() <= 1e-6
    assert width == 1 or len(ours(deep)["pixel_values"][0].unique()) > 100


@pytest.mark.parametrize("mode", ["I", "F"])
def test_clamped_values_are_warned_of(mode):
    with pytest.warns(UserWarning, match=f"image: got mode '{mode}' with values from .* expected 0 to 255"):
        ps3c.PS3ImageProcessor(image_size=32)(picture(mode, 50, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps3c.PS3ImageProcessor(image_size=32)(Image.new(mode, (50, 40), 200))


@pytest.mark.parametrize("side", [8, 32])
@pytest.mark.parametrize("transparency", [bytes([0, 255, 128]), 3])
def test_transparent_palette_without_a_warning(side, transparency):
    image = picture("RGB", 32, 32).quantize(16)
    image.info["transparency"] = transparency
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = ps3c.PS3ImageProcessor(image_size=side)(image)["pixel_values"][0]
    del image.info["transparency"]
    assert torch.equal(got, ps3c.PS3ImageProcessor(image_size=side)(image)["pixel_values"][0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_truncated_files_are_image_errors(tmp_path, mode):
    path = tmp_path / ("cut.jpg" if mode != "RGBA" else "cut.png")
    picture(mode, 300, 200).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for kind in (ps3c.ImageError, OSError):  # OSError: what ps3-torch raises
        with pytest.raises(kind, match=r"cut\.(jpg|png): cannot be read: .*truncated"):
            ps3c.PS3ImageProcessor(image_size=64)(Image.open(path))


def test_modes_that_pillow_cannot_convert():
    with pytest.raises(ps3c.ImageError, match="image: cannot be converted from mode La"):
        ps3c.PS3ImageProcessor(image_size=8)(Image.new("La", (9, 9)))


@pytest.mark.parametrize(
    "settings",
    [
        dict(image_size=(48, 80)),
        dict(image_size=[48, 80], interpolation="bilinear"),
        dict(image_size=64, mean=0.4, std=0.3),
        dict(image_size=33, interpolation="random"),
        dict(image_size=64, mean=[0.1, 0.2, 0.3], std=[1.0, 0.5, 0.25]),
        dict(image_size=[40]),
    ],
)
@pytest.mark.parametrize("size", [(100, 64), (80, 48), (13, 17)])
def test_settings(settings, size):
    check(*both(**settings), picture("RGB", *size))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_in_strips_gives_pillows_bytes(mode, interpolation, monkeypatch):
    monkeypatch.setattr("ps3c.image_processing_ps3._STRIP_PIXELS", 1000)
    image = picture(mode, 211, 97)
    ours = ps3c.PS3ImageProcessor(image_size=(120, 151), interpolation=interpolation)
    resized = image.resize((151, 120), getattr(Image.Resampling, interpolation.upper())).convert("RGB")
    assert torch.equal(ours(image)["pixel_values"][0], ours(resized)["pixel_values"][0])


def test_result_is_exact():
    """Against float64: (x / 255 - mean) / std of an image that needs no resizing."""
    image = picture("RGB", 64, 64)
    processor = ps3c.PS3ImageProcessor(image_size=64)
    exact = (np.asarray(image).transpose(2, 0, 1) / 255 - np.reshape(processor.mean, (3, 1, 1))) / np.reshape(
        processor.std, (3, 1, 1)
    )
    assert np.abs(processor(image)["pixel_values"][0].numpy() - exact).max() < 1e-6


def test_attributes_are_read_and_assigned():
    ours, theirs = both(image_size=(48, 80))
    for name in (
        "image_size",
        "mean",
        "std",
        "size",
        "crop_size",
        "image_mean",
        "image_std",
        "interpolation",
        "resize_mode",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name, value in (
        ("crop_size", {"height": 9, "width": 9}),
        ("size", {"shortest_edge": 9}),
        ("image_mean", [0, 0, 0]),
        ("image_size", (20, 30)),
        ("mean", [0.3, 0.4, 0.5]),
        ("std", (0.9, 0.8, 0.7)),
        ("interpolation", "bilinear"),
        ("image_size", 24),
        ("image_size", [24]),
    ):
        setattr(ours, name, value)
        setattr(theirs, name, value)
        assert getattr(ours, name) == value
        check(ours, theirs, picture("RGB", 100, 60))
        check(ours, theirs, picture("L", 60, 100))


def test_tuples_are_handed_through():
    processor = ps3c.PS3ImageProcessor(image_size=32)
    image = picture("RGB", 50, 40)
    pixels, label = processor((image, 7))["pixel_values"][0]
    assert label == 7 and torch.equal(pixels, processor(image)["pixel_values"][0])


@pytest.mark.parametrize("size", [256, (100, 300), [40]])
def test_boxes_are_resized_with_the_image(size):
    """torchvision's Resize, in ps3-torch, takes everything of its own kinds in the tuple."""
    ours, theirs = both(image_size=size)
    from torchvision import tv_tensors

    def targets():
        boxes = [[100, 50, 200, 100], [0, 0, 400, 200]]
        return (
            tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(200, 400)),
            {"boxes": [tv_tensors.BoundingBoxes([[1.5, 2, 8, 9]], format="CXCYWH", canvas_size=(200, 400))], "id": 3},
            tv_tensors.Mask(torch.arange(80000).reshape(200, 400) % 7),
            torch.arange(4),
            "a boat",
        )

    image = picture("RGB", 400, 200)
    got = ours.preprocess((image, *targets()), return_tensors="pt")["pixel_values"][0]
    wanted = theirs.preprocess((image, *targets()), return_tensors="pt")["pixel_values"][0]
    assert (got[0] - wanted[0]).abs().max() <= 1e-6
    for one, other in ((got[1], wanted[1]), (got[2]["boxes"][0], wanted[2]["boxes"][0])):
        assert type(one) is type(other) and torch.equal(one, other)
        assert (one.format, one.canvas_size) == (other.format, other.canvas_size)
    assert torch.equal(got[3], wanted[3]) and torch.equal(got[4], torch.arange(4))
    assert (got[2]["id"], got[5]) == (3, "a boat")


def test_result_is_a_dict_that_pipelines_move():
    image = picture("RGB", 50, 40)
    result = ps3c.PS3ImageProcessor(image_size=32)(image, return_tensors="pt")
    assert isinstance(result, dict) and list(result) == ["pixel_values"] and isinstance(result["pixel_values"], list)
    moved = result.to(torch.bfloat16)
    assert torch.equal(moved["pixel_values"], result["pixel_values"][0][None].bfloat16())
    assert moved.to("cpu")["pixel_values"].shape == (1, 3, 32, 32)


def test_pipeline():
    """transformers' pipeline prepares the image and moves the pixels; it has no word for the number of looks."""
    model = ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**models.vision_config("tiny"))).eval()
    processor = ps3c.PS3ImageProcessor(image_size=256, mean=0.5, std=0.5)
    image = picture("RGB", 90, 70)
    expected = model(torch.stack(processor(image)["pixel_values"]), num_look_close=1).last_hidden_state
    model.forward = functools.partial(model.forward, num_look_close=1)
    pipeline = transformers.pipeline("image-feature-extraction", model=model, image_processor=processor, device="cpu")
    assert torch.equal(torch.tensor(pipeline(image)), expected)


@pytest.mark.parametrize("towers", ["PS3VisionModel", "PS3Model"])
def test_pipeline_of_a_folder(towers, tmp_path):
    """Its task has no number of looks: one sentence says what to call; the remedy of docs/troubleshooting.md works."""
    config = ps3c.PS3VisionConfig(**models.vision_config("no_highres"))
    if towers == "PS3Model":
        config = ps3c.PS3Config(text_config=models.text_config("one_layer"), vision_config=config.to_dict())
    getattr(ps3c, towers)(config).save_pretrained(tmp_path)
    ps3c.PS3ImageProcessor(image_size=256, mean=0.5, std=0.5).save_pretrained(tmp_path)
    pipe = transformers.pipeline("image-feature-extraction", model=str(tmp_path), device="cpu")
    assert type(pipe.model) is getattr(ps3c, towers) and isinstance(pipe.image_processor, ps3c.PS3ImageProcessor)
    image = picture("RGB", 90, 70)
    kind = ValueError if towers == "PS3VisionModel" else NotImplementedError
    for options in ({}, {"num_look_close": 1}, {"pool": True}):
        with pytest.raises(
            kind, match=r"expected .*; a transformers pipeline .*: use ps3c.load\(folder\).embed_images"
        ):
            pipe(image, **options)

    vision = pipe.model.encode_image if towers == "PS3Model" else pipe.model.forward
    expected = vision(torch.stack(pipe.image_processor(image)["pixel_values"]), num_look_close=1).last_hidden_state
    pipe.model.forward = functools.partial(vision, num_look_close=1)
    assert torch.equal(pipe(image, return_tensors=True), expected)
    with pytest.raises(ValueError, match="pooled output"):  # transformers looks for pooler_output
        pipe(image, pool=True)


def test_settings_beside_from_pretrained(tmp_path):
    """Keyword arguments mean what they mean to the constructor: one number is both sides."""
    ps3c.PS3ImageProcessor(image_size=64, mean=0.5).save_pretrained(tmp_path)
    for settings in (dict(image_size=128), dict(image_size=(32, 48)), dict(mean=0.3, std=[0.1, 0.2, 0.3])):
        loaded = ps3c.PS3ImageProcessor.from_pretrained(tmp_path, **settings)
        made = ps3c.PS3ImageProcessor(**{"image_size": 64, "mean": 0.5, **settings})
        for name in ("image_size", "mean", "std", "size", "crop_size", "image_mean", "image_std"):
            assert list(getattr(loaded, name)) == list(getattr(made, name)), name
        assert torch.equal(*(one(picture("RGB", 90, 60))["pixel_values"][0] for one in (loaded, made)))
    with pytest.raises(ValueError, match="interpolation: got 'nearest'"):
        ps3c.PS3ImageProcessor.from_pretrained(tmp_path, interpolation="nearest")
    assert ps3c.PS3ImageProcessor.from_pretrained(tmp_path, return_unused_kwargs=True, colour=3)[1] == {"colour": 3}


def test_image_is_left_as_it_was():
    image = picture("P", 50, 40)
    before = image.tobytes()
    ps3c.PS3ImageProcessor(image_size=32)(image)
    assert image.mode == "P" and image.size == (50, 40) and image.tobytes() == before


def test_round_trip(tmp_path):
    image = picture("RGB", 70, 50)
    ours, theirs = both(image_size=(32, 48), mean=0.3, interpolation="bilinear")
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    wanted = ours(image)["pixel_values"][0]
    for folder in ("ours", "theirs"):
        loaded = ps3c.PS3ImageProcessor.from_pretrained(tmp_path / folder)
        assert torch.equal(loaded(image)["pixel_values"][0], wanted)
        assert loaded.crop_size == ours.crop_size
    back = reference.load().PS3ImageProcessor.from_pretrained(tmp_path / "ours")
    assert (back(image)["pixel_values"][0] - wanted).abs().max() <= 1e-6
    assert torch.equal(pickle.loads(pickle.dumps(ours))(image)["pixel_values"][0], wanted)
    assert "PS3ImageProcessor" in repr(ours)


def test_published_file_and_auto_class(tmp_path):
    """The file that published checkpoints have names no class; AutoImageProcessor finds it by the model's config."""
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_size": 64,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "interpolation": "bicubic",
                "resize_mode": "squash",
            }
        )
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ps3", "vision_config": {}, "text_config": {}}))
    direct, auto = ps3c.PS3ImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)
    assert type(auto) is ps3c.PS3ImageProcessor
    image = picture("RGB", 70, 50)
    assert torch.equal(auto(image)["pixel_values"][0], direct(image)["pixel_values"][0])
    assert direct(image)["pixel_values"][0].shape == (3, 64, 64)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((8, 8, 3), np.uint8), "image: got a numpy.ndarray, expected one PIL.Image.Image"),
        (torch.zeros(3, 8, 8), "image: got a torch.Tensor"),
        ("cat.png", "image: got a builtins.str"),
        ([Image.new("RGB", (8, 8))], "image: got a builtins.list"),
        (None, "image: got a builtins.NoneType"),
        ((), "image: got a builtins.tuple"),
    ],
)
def test_not_an_image(image, message):
    with pytest.raises(TypeError, match=message):
        ps3c.PS3ImageProcessor(image_size=32)(image)


def test_image_without_pixels():
    with pytest.raises(ValueError, match="image: got 0 x 5 pixels"):
        ps3c.PS3ImageProcessor(image_size=32)(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(), "image_size: got None"),
        (dict(image_size=0), "image_size: got"),
        (dict(image_size=-3), "image_size: got"),
        (dict(image_size=(1, 2, 3)), r"image_size: got \(1, 2, 3\)"),
        (dict(image_size=2.5), "image_size: got 2.5"),
        (dict(image_size=8, mean=[0.5]), "mean, std: got 1 numbers"),
        (dict(image_size=8, interpolation="nearest"), "interpolation: got 'nearest'"),
        (dict(image_size=8, resize_mode="longest"), "resize_mode: got 'longest'"),
        (dict(image_size=2**31), "image_size: got .*2147483648.*, expected at most 268435456 pixels"),
        (dict(image_size=(2**31, 1)), "image_size: got .*2147483648"),
        (dict(image_size=10**400), "image_size: got .*, expected at most"),
        (dict(image_size=10**5000), "image_size: got .*, expected at most"),
        (dict(image_size=8, mean=10**400), "mean: got .*, expected finite numbers"),
        (dict(image_size=8, mean=10**5000), "mean: got .*, expected finite numbers"),
        (dict(image_size=8, mean=[0.5, float("nan"), 0.5]), "mean: got .*nan"),
        (dict(image_size=8, std=float("inf")), "std: got .*inf.*, expected finite numbers above 0"),
        (dict(image_size=8, std=-0.5), r"std: got \(-0.5, -0.5, -0.5\), expected finite numbers above 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ps3c.PS3ImageProcessor(**settings)


@pytest.mark.parametrize("settings", [dict(mean="half"), dict(std=["a", "b", "c"]), dict(mean={"r": 1})])
def test_settings_of_other_types(settings):
    with pytest.raises(TypeError, match="(mean|std): got .*, expected one number or three"):
        ps3c.PS3ImageProcessor(image_size=8, **settings)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA"])
@pytest.mark.parametrize(
    "name, value", [("image_size", (2**31, 1)), ("image_size", 2**30), ("mean", 10**400), ("std", -1), ("std", 0)]
)
def test_bad_settings_assigned_later(mode, name, value):
    processor = ps3c.PS3ImageProcessor(image_size=8)
    setattr(processor, name, value)
    with pytest.raises(ValueError, match=f"{name}: got "):
        processor(picture(mode, 20, 10))


def test_standard_deviation_of_zero():
    with pytest.raises(ValueError, match=r"std: got \(0.5, 0, 0.5\)"):
        ps3c.PS3ImageProcessor(image_size=8, std=(0.5, 0, 0.5))(picture("RGB", 8, 8))

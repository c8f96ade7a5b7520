"""The image processor against ps3-torch's, which resizes with torchvision."""

import json
import pickle

import numpy as np
import pytest
import reference
import torch
from PIL import Image

import ps3c

MODES = ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "PA", "RGBX"]


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width, height", [(100, 64), (64, 64), (31, 200), (1, 1)])
def test_modes(mode, width, height):
    check(*both(image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), picture(mode, width, height))


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
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ps3c.PS3ImageProcessor(**settings)


def test_standard_deviation_of_zero():
    with pytest.raises(ValueError, match=r"std: got \(0.5, 0, 0.5\)"):
        ps3c.PS3ImageProcessor(image_size=8, std=(0.5, 0, 0.5))(picture("RGB", 8, 8))

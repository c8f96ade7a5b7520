"""image_normalize: uint8 pixels to float32 planes, each step rounded as by torchvision's."""

import numpy as np
import pytest
import torch

from ps3c import _core

from .support import assert_same, generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def exact(pixels, mean, std):
    """Division by 255, subtraction, division: float32 after each."""
    image = torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3])).permute(2, 0, 1).to(torch.float32).div(255)
    mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))
    return image.sub(mean).div(std).contiguous().numpy()


def every_value(height, width, channels):
    """All 256 values in each channel, when there is room."""
    pixels = generator(height, width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    count = min(256, height * width)
    pixels.reshape(-1, channels)[:count] = np.arange(count, dtype=np.uint8)[:, None]
    return pixels


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (16, 16), (33, 65), (3, 100), (64, 5)])
@pytest.mark.parametrize("mean, std", [((0.5,) * 3, (0.5,) * 3), (MEAN, STD), ((0.0,) * 3, (1.0,) * 3)])
def test_against_torch(height, width, mean, std):
    for channels in (3, 4):
        pixels = every_value(height, width, channels)
        assert_same(_core.image_normalize(pixels, mean, std), exact(pixels, mean, std))


def test_rows_apart():
    """The row stride of a cropped image is larger than the row."""
    whole = every_value(20, 30, 3)
    for view in (whole[3:17, 5:21], whole[::2], whole[::-1]):
        assert_same(_core.image_normalize(view, MEAN, STD), exact(view, MEAN, STD))


def test_into_out():
    pixels = every_value(9, 11, 3)
    out = np.full((3, 9, 11), np.nan, np.float32)
    assert _core.image_normalize(pixels, MEAN, STD, out) is out
    assert_same(out, exact(pixels, MEAN, STD))


def test_bad_arguments():
    pixels = every_value(4, 5, 3)
    for error, words, arguments in [
        (TypeError, "pixels", (pixels.astype(np.float32), MEAN, STD)),
        (TypeError, "pixels", (pixels.tolist(), MEAN, STD)),
        (ValueError, "pixels", (pixels[:, :, :2], MEAN, STD)),
        (ValueError, "pixels", (pixels[0], MEAN, STD)),
        (ValueError, "mean", (pixels, MEAN[:2], STD)),
        (ValueError, "std", (pixels, MEAN, STD + STD)),
        (ValueError, "std", (pixels, MEAN, (0.5, 0.0, 0.5))),
        (TypeError, "out", (pixels, MEAN, STD, np.zeros((3, 4, 5)))),
        (ValueError, "out", (pixels, MEAN, STD, np.zeros((3, 5, 4), np.float32))),
    ]:
        with pytest.raises(error, match=words):
            _core.image_normalize(*arguments)

"""Fixtures that the user tests share: a tiny checkpoint, its encoder, a photograph."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A complete checkpoint folder of a tiny model: both towers, processor, tokenizer, logit_scale and logit_bias.

    Scales 64, 128, 256 with patches of 16: 16 low-res tokens, looks of 16 + 64 patches, four of which see everything.
    Shared by all tests: do not change it.
    """
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make = runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))
    make["write_checkpoint"](folder, tiny=True)
    return folder


@pytest.fixture(scope="session")
def encoder(tiny_checkpoint):
    """ps3c.load of the tiny checkpoint, on the CPU, in float32."""
    import ps3c

    return ps3c.load(tiny_checkpoint, device="cpu", dtype="float32")


def photograph(width: int = 120, height: int = 80, seed: int = 0) -> Image.Image:
    """An RGB image of large shapes, an edge and noise. Equal arguments give equal images."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    shapes = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 255 * (x * height > y * width)]
    noisy = np.stack(shapes, axis=-1) + random.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def image_files(tmp_path_factory):
    """Three photographs of different sizes, as files: a.jpg (120 x 80), b.png (64 x 200), c.png (300 x 300)."""
    folder = tmp_path_factory.mktemp("images")
    files = [folder / "a.jpg", folder / "b.png", folder / "c.png"]
    for seed, (file, size) in enumerate(zip(files, [(120, 80), (64, 200), (300, 300)])):
        photograph(*size, seed=seed).save(file)
    return files

"""Draws docs/pictures/: where a model of the published size looks in a photograph.

    python scripts/pictures.py [--checkpoint FOLDER] [--output FOLDER]

Without --checkpoint, the script writes a checkpoint with random weights into a temporary folder (2.4 GB, one minute).
Encoding takes half a minute on two cores. The script needs matplotlib for the figures and for the photograph.
"""

import argparse
import runpy
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

import ps3c
import ps3c.plot

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPH = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
LOOKS = 3
DPI = 90
STEP = 4  # colour values are rounded to multiples of it, which is not visible and halves the file size
MOST_BYTES = 300_000  # largest allowed file size


def encode(checkpoint: Path) -> ps3c.ImageFeatures:
    return ps3c.load(checkpoint).embed_images(PHOTOGRAPH, looks=LOOKS, maps=True)


def draw(features: ps3c.ImageFeatures, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "looks": ps3c.plot.looks(PHOTOGRAPH, features),
        "overlay": ps3c.plot.overlay(PHOTOGRAPH, features),
        "feature_map": ps3c.plot.feature_map(features),
    }
    for name, figure in figures.items():
        file = folder / f"{name}.png"
        figure.save(file, dpi=DPI)
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        coarse = np.minimum((pixels.astype(int) + STEP // 2) // STEP * STEP, 255).astype(np.uint8)
        Image.fromarray(coarse).save(file, optimize=True)
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise SystemExit(f"{file}: got {size} bytes, expected at most {MOST_BYTES}")
        print(f"{file}: {coarse.shape[1]} x {coarse.shape[0]}, {size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            checkpoint = Path(temporary, "checkpoint")
            runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))["write_checkpoint"](checkpoint)
        features = encode(checkpoint)
    draw(features, arguments.output)


if __name__ == "__main__":
    main()

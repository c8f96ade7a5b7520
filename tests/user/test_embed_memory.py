"""`ps3c embed` needs as much memory after 20,000 images as after 1,000.

The real command runs with the real passes of the smallest model. With four reading threads, as where a GPU computes, it
embeds 20,000 images. The other three cases have 2,500 images. That is enough to see a fault: freed blocks that reading
threads held were 25 to 80 KB per image. PS3C_EMBED_IMAGES sets the number of these cases.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cli_support import ROOT, environment
from PIL import Image

FEW = int(os.environ.get("PS3C_EMBED_IMAGES", 2500))
MANY = 20_000
FIRST = 1000  # images before the first sample: memory rises until every buffer was needed once
BYTES = 4096  # most bytes per image; a fault: 25 KB or more
# Memory comes and goes in steps of up to 19 MB. A step is in one part of the run, a leak in all.
PARTS = 3
MEGABYTES = 32  # most growth in all, of what comes and goes too

EMBED = """
import json, os, sys
sys.path.insert(0, sys.argv.pop(1))
import tiny_model
import torch
from ps3c.cli import main
from ps3c.features.encoder import Encoder
from ps3c.features.reading import Reader

folder, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
tiny_model.register()
torch.set_num_threads(1)
seen, samples, prepare = [0], [], Reader.prepare

def watched(self, *arguments):
    seen[0] += 1
    if seen[0] % 50 == 0:
        with open("/proc/self/statm") as file:
            samples.append((seen[0], int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")))
    return prepare(self, *arguments)

def with_threads(self, small, max_pixels, background, ahead=False):  # as on a GPU
    return Reader(self.processor, self.dtype, small=small, max_pixels=max_pixels, background=(9, 9, 9), ahead=threads)

Reader.prepare = watched
if threads:
    Encoder._reader = with_threads
code = main(["embed", folder + "/images", "-m", folder + "/model", "-o", out, "--device", "cpu", *sys.argv[4:]])
print(json.dumps({"code": code, "samples": samples}))
"""


@pytest.fixture
def folder(tmp_path, images):
    """So many images of a few pixels, and a model whose images have 256 x 256 pixels: buffers of a megabyte."""
    sys.path.insert(0, str(ROOT / "tests" / "sweeps"))
    import tiny_model

    tiny_model.write_checkpoint(tmp_path / "model", image_size=256)
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for number in range(images):
        Image.fromarray(noise[: 8 + number % 7, : 8 + number % 5]).save(tmp_path / "images" / f"{number:05}.bmp")
    yield tmp_path
    shutil.rmtree(tmp_path)


# What is kept until it is written grows: 20,000 images of 48 tokens of 8 channels, their positions and maps are 50 MB.
KEPT = {"npz": 0, "parquet": 0, "safetensors": 0, "folder": 0, "tokens": 6000}


@pytest.mark.parametrize(
    "kind, threads, images", [("npz", 0, FEW), ("npz", 4, MANY), ("folder", 4, FEW), ("tokens", 4, FEW)]
)
def test_memory_stays_flat(folder, tmp_path, kind, threads, images, record_property):
    out = tmp_path / ("out" if kind in ("folder", "tokens") else f"out.{kind}")
    options = ["--tokens", "--maps", "--looks", "1"] if kind == "tokens" else []
    command = [sys.executable, "-c", EMBED, str(ROOT / "tests" / "sweeps"), str(folder), str(out), str(threads)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr[-3000:]
    places, bytes_ = np.array([sample for sample in result["samples"] if sample[0] >= FIRST], float).T
    slope = min(median_slope(x, y) for x, y in zip(np.array_split(places, PARTS), np.array_split(bytes_, PARTS)))
    growth = (bytes_[-3:].mean() - bytes_[:3].mean()) / 1e6
    words = f"{bytes_[0] / 1e6:.0f} MB at {places[0]:.0f} images, {bytes_[-1] / 1e6:.0f} MB at {places[-1]:.0f}"
    words += f", {slope:.0f} bytes per image"
    print(words)
    record_property("sweep", f"test_embed_memory.py[{kind}-{threads}]: {words}")
    assert slope < BYTES + KEPT[kind], words
    assert growth < MEGABYTES, words


def median_slope(x: np.ndarray, y: np.ndarray) -> float:
    """The median of the slopes between all pairs of samples (Theil and Sen): single samples do not change it."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def test_a_leak_is_found_and_a_step_is_none():
    x = np.arange(1000.0, 2501, 50)
    step, leak = np.where(x > 1800, 19e6, 0), 25e3 * x
    parts = [
        [median_slope(*part) for part in zip(np.array_split(x, PARTS), np.array_split(y, PARTS))] for y in (step, leak)
    ]
    assert min(parts[0]) == 0 and min(parts[1]) == pytest.approx(25e3)

"""`ps3c embed` needs as much memory after 20,000 images as after 1,000.

The real command runs with the real passes of the smallest model. 4,000 images tell a fault from none: the memory of
reading threads that held freed blocks was 25 to 80 KB per image. `ps3c embed` has such threads where a GPU computes.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cli_support import ROOT, environment
from PIL import Image

COUNT = int(os.environ.get("PS3C_EMBED_IMAGES", 4000))
FIRST = 1000  # images before the first sample: memory rises until every buffer was needed once
BYTES = 4096  # most bytes per image, by the upper end of the 95 % confidence interval; a fault: 25 KB or more
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
    if seen[0] % 100 == 0:
        with open("/proc/self/statm") as file:
            samples.append((seen[0], int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")))
    return prepare(self, *arguments)

def with_threads(self, small, max_pixels, ahead=False):  # as on a GPU
    return Reader(self.processor, self.dtype, small=small, max_pixels=max_pixels, ahead=threads)

Reader.prepare = watched
if threads:
    Encoder._reader = with_threads
code = main(["embed", folder + "/images", "-m", folder + "/model", "-o", out, "--device", "cpu", *sys.argv[4:]])
print(json.dumps({"code": code, "samples": samples}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """COUNT images of a few pixels, and a model whose images have 256 x 256 pixels: buffers of a megabyte."""
    sys.path.insert(0, str(ROOT / "tests" / "sweeps"))
    import tiny_model

    base = tmp_path_factory.mktemp("many")
    tiny_model.write_checkpoint(base / "model", image_size=256)
    (base / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for number in range(COUNT):
        Image.fromarray(noise[: 8 + number % 7, : 8 + number % 5]).save(base / "images" / f"{number:05}.bmp")
    return base


# What is kept until it is written grows: 20,000 images of 48 tokens of 8 channels, their positions and maps are 50 MB.
KEPT = {"npz": 0, "parquet": 0, "safetensors": 0, "folder": 0, "tokens": 6000}


@pytest.mark.parametrize("kind, threads", [("npz", 0), ("npz", 4), ("folder", 4), ("tokens", 4)])
def test_memory_stays_flat(folder, tmp_path, kind, threads, record_property):
    out = tmp_path / ("out" if kind in ("folder", "tokens") else f"out.{kind}")
    options = ["--tokens", "--maps", "--looks", "1"] if kind == "tokens" else []
    command = [sys.executable, "-c", EMBED, str(ROOT / "tests" / "sweeps"), str(folder), str(out), str(threads)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr[-3000:]
    places, bytes_ = np.array([sample for sample in result["samples"] if sample[0] >= FIRST], float).T
    slope, upper = line(places, bytes_)
    growth = (bytes_[-3:].mean() - bytes_[:3].mean()) / 1e6
    words = f"{bytes_[0] / 1e6:.0f} MB at {places[0]:.0f} images, {bytes_[-1] / 1e6:.0f} MB at {places[-1]:.0f}"
    words += f", {slope:.0f} bytes per image (at most {upper:.0f})"
    print(words)
    record_property("sweep", f"test_embed_memory.py[{kind}-{threads}]: {words}")
    assert upper < BYTES + KEPT[kind], words
    assert growth < MEGABYTES, words


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope by least squares, and the upper end of its 95 % confidence interval."""
    slope, start = np.polyfit(x, y, 1)
    rest = ((y - start - slope * x) ** 2).sum() / (len(x) - 2)
    return slope, slope + 2.1 * (rest / ((x - x.mean()) ** 2).sum()) ** 0.5

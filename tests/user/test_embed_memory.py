"""`ps3c embed` needs as much memory after 20,000 images as after 4,000."""

import subprocess
import sys

import pytest
from cli_support import environment

# The model's own work is left out, which is most of the time. Images are prepared, in reading threads too, and the
# output collects features, as in `ps3c embed`.
EMBED = """
import sys
import numpy as np
import torch
import ps3c
from ps3c.cli._outputs import open_output
from ps3c.features.encoder import Encoder
from ps3c.features.reading import Reader

folder, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
encoder = ps3c.load(folder, device="cpu", dtype="float32")
encoder.model.vision_model.forward_low_res = lambda pixels: {"x": pixels[:, 0, 0, :64] + 1}
reader = lambda self, small, most, ahead=False: Reader(
    self.processor, self.dtype, small=small, max_pixels=most, ahead=threads
)
Encoder._reader = reader
noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
images = (noise[: 8 + number % 7, : 8 + number % 5] for number in range(20_000))
output, done = open_output(out, False, False), 0
output.EVERY = output._next = float("inf")
for features in encoder.embed_batches(images, batch_size=8):
    output.add(features)
    done += len(features)
    if done in (4_000, 20_000):
        print(int(open("/proc/self/statm").read().split()[1]) * 4 // 1024)
"""


@pytest.mark.parametrize("threads", [0, 4])
def test_memory_stays_flat(tiny_checkpoint, tmp_path, threads):
    command = [sys.executable, "-c", EMBED, tiny_checkpoint, tmp_path / "out.npz", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=500)
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split())
    print(f"{first} MB after 4,000 images, {last} MB after 20,000")
    assert last - first < 48  # 3 KB an image: its name, size and vector, and what comes and goes

"""1,000 forks: before a load, after a load, after a forward and during forwards of another thread.

The child computes a forward with the right bits and ends; it never hangs. The parent goes on computing the right bits.
Also multiprocessing with fork and spawn, and workers of torch's DataLoader that call the processor or the encoder.
"""

import hashlib
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

from forked import HUNG, SECONDS, alone, ended, fork, photographs, prepare, to_file, write_checkpoint
from support import SEED, trials


def test_forks(figures, tmp_path):
    alone(figures, "test_forks:forks", tmp_path, trials(1), PS3C_NUM_THREADS="2")
    figures.finish()


def test_multiprocessing(figures, tmp_path):
    alone(figures, "test_forks:processes", tmp_path)
    figures.finish()


# ---- in the prepared process -----------------------------------------------------------------------------------------


def digest(features) -> str:
    parts = [features.pooled, features.tokens, features.positions]
    return hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()


class Model:
    def __init__(self, folder: Path):
        import ps3c

        self.encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")

    def forward(self, images) -> str:
        return digest(self.encoder.embed_images(images, looks=1))


def forks(tally, folder, scale):
    folder, scale = Path(folder), int(scale)
    torch, ps3c = prepare()
    write_checkpoint(folder / "model")
    images = photographs(folder, 2)
    log = folder / "log"
    read_end, write_end = os.pipe()  # the right bits come from a child, so that this process has computed nothing

    def tell():
        model = Model(folder)
        os.write(write_end, "".join(map(model.forward, images)).encode())

    tally.check(ended(fork(tell)) == 0, "the first child failed")
    text = os.read(read_end, 128).decode()
    wanted = [text[:64], text[64:]]

    def child(model, image):
        to_file(log)
        return 0 if (model or Model(folder)).forward(images[image]) == wanted[image] else 1

    def try_forks(count, when, model=None, before=lambda: None):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for number in range(count * scale):
                before()
                code = ended(fork(child, model, number % 2))
                said = log.read_text()[-500:] if code else ""
                good = tally.check(code == 0, f"{when}, {threads} threads: {'hung' if code == HUNG else code}: {said}")
                tally.count(when)
                if not good:  # the next ones would hang, too
                    break
        if model:
            tally.check(model.forward(images[0]) == wanted[0], f"{when}: the parent")

    try_forks(25, "before a load")
    model = Model(folder)
    try_forks(125, "after a load", model)
    try_forks(125, "after a forward", model)
    computing, begin, chance = [], time.monotonic(), random.Random(SEED)
    model.forward(images[0])
    duration = time.monotonic() - begin

    def compute():
        thread = ThreadWithResult(model, images[0])
        thread.start()
        computing.append(thread)
        time.sleep(chance.uniform(0, duration))

    try_forks(225, "during forwards", model, compute)
    for thread in computing:
        thread.join(SECONDS)
        tally.check(thread.found == wanted[0], f"a forward of the parent during a fork: {thread.found}")


class ThreadWithResult(threading.Thread):
    def __init__(self, model, image):
        super().__init__(daemon=True)
        self.model, self.image, self.found = model, image, "it hangs"

    def run(self):
        self.found = self.model.forward(self.image)


def send(queue, folder, image):
    queue.put(Model(Path(folder)).forward(image))


def processes(tally, folder):
    """multiprocessing with fork and spawn: processes, pools, and workers of a DataLoader. A spawned process imports
    torch again, which takes seconds; so there are few."""
    folder = Path(folder)
    torch, ps3c = prepare()  # torch alone hangs in a forked child after it has computed with two threads
    write_checkpoint(folder / "model")
    images = photographs(folder, 6)
    model = Model(folder)
    wanted = [model.forward(image) for image in images]
    for method, count in (("fork", 4), ("spawn", 1)):
        context = multiprocessing.get_context(method)
        for number in range(count):
            queue = context.Queue()
            process = context.Process(target=send, args=(queue, str(folder), images[number]), daemon=True)
            process.start()
            tally.check(queue.get(timeout=SECONDS) == wanted[number], f"{method}: a process")
            process.join(SECONDS)
            tally.check(process.exitcode == 0, f"{method}: a process ended with {process.exitcode}")
        with context.Pool(min(count, 2)) as pool:
            found = pool.starmap_async(one, [(str(folder), image) for image in images]).get(SECONDS)
            tally.check(found == wanted, f"{method}: a pool")
            # An encoder that is sent: it is pickled.
            found = pool.apply_async(Model.forward, (model, images[0])).get(SECONDS)
            tally.check(found == wanted[0], f"{method}: an encoder that was sent")
        for encodes in (False, True):
            load(tally, torch, Items(model, images, encodes), method, min(count, 2))
        tally.check(model.forward(images[1]) == wanted[1], f"{method}: the parent")


def one(folder, image):
    return Model(Path(folder)).forward(image)


class Items:
    """A map-style data set: the processor's pixels, or the encoder's vector, of one image."""

    def __init__(self, model, images, encodes):
        self.model, self.images, self.encodes = model, images, encodes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from PIL import Image

        if self.encodes:
            return self.model.encoder.embed_images(self.images[index], looks=1).pooled[0]
        return self.model.encoder.processor(Image.open(self.images[index]))["pixel_values"][0]


def load(tally, torch, items, method, count):
    from torch.utils.data import DataLoader

    wanted = torch.stack([items[index] for index in range(len(items))])
    loader = DataLoader(items, batch_size=2, num_workers=count, multiprocessing_context=method, timeout=SECONDS)
    found = torch.cat([batch.clone() for batch in loader])
    tally.check(torch.equal(found, wanted), f"{method}: workers that {'encode' if items.encodes else 'prepare'}")

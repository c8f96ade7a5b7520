"""16 threads run forwards on shared models while other threads edit weights, swap models and set thread counts.

Each result must be, bit for bit, one that the same call gives alone with one of the versions of the weights that the
rules below allow. No thread hangs or fails, and what was made on the way is freed.

- Models that are swapped: a worker takes the model that is current. Its result is that model's, whatever comes after.
- A model that is edited in place (load_state_dict, copy_, half() and back) between two barriers: a round's results are
  of the round's version.
- Bad calls, and passes in steps that are left half done, change nothing for others.
- A tokenizer and an image processor are shared too.
"""

import copy
import gc
import random
import runpy
import sys
import threading
import time
import weakref
from pathlib import Path

import hostile_targets
import image_files
import pytest
import torch
from PIL import Image
from support import SEED, trials

import ps3c

THREADS, FORWARDS = 16, trials(50)
VERSIONS = 4
PATIENCE = 300  # seconds until a thread that does not come counts as a hang
SIZES = [(1, 16, 16), (2, 24, 16), (1, 9, 33), (3, 8, 8), (1, 40, 7)]


@pytest.fixture(autouse=True)
def _often():
    """Python switches threads a hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


def request(index: int) -> dict:
    """The arguments of forward number `index`: more kinds than a model keeps plans for."""
    chance = random.Random(f"{SEED}/{index}")
    batch, height, width = SIZES[index % len(SIZES)]
    arguments = {"pixel_values": hostile_targets.floats(chance, batch, 3, height, width)}
    arguments["num_look_close"] = (1, 2, "all", 0)[index % 4]
    if index % 3 == 0:
        arguments["prompt"] = hostile_targets.floats(chance, batch, hostile_targets.WIDTH)
    if index % 5 == 0:
        arguments["gt_selection_maps"] = (hostile_targets.floats(chance, batch, 6, 5) > 0).float()
    arguments["smooth_selection_prob"] = index % 7 == 0
    return arguments


KINDS = 24


def bits(*values) -> list[bytes]:
    return [one.contiguous().view(torch.uint8).numpy().tobytes() for one in hostile_targets.tensors(values)]


def vision_bits(model, index: int) -> list[bytes]:
    """Of forward number index, in the model's dtype."""
    dtype = model.vision_model.prior_prompt.dtype
    arguments = request(index % KINDS)
    arguments |= {name: arguments[name].to(dtype) for name in ("pixel_values", "prompt") if name in arguments}
    with torch.no_grad():
        output = model(**arguments)
    return bits(output.hidden_states, output.selection_maps, output.selection_probs)


def text_bits(model, index: int) -> list[bytes]:
    ids = torch.arange(index, index + 4 * (1 + index % 3)).reshape(-1, 4) % 50
    with torch.no_grad():
        output = model(ids)
    return bits(output.pooled_output, output.prompt)


def states(model) -> list[dict]:
    """VERSIONS state dicts: other values of the same weights."""
    generator = torch.Generator().manual_seed(3)
    return [
        {
            name: value * (1 + 0.1 * torch.randn(value.shape, generator=generator))
            for name, value in model.state_dict().items()
        }
        for _ in range(VERSIONS)
    ]


class Crew:
    """Threads whose first exception stops all of them. join() fails if a thread hangs."""

    def __init__(self):
        self.threads, self.errors = [], []
        self.stop = threading.Event()
        self.barriers = []

    def barrier(self, count: int) -> threading.Barrier:
        self.barriers.append(threading.Barrier(count, timeout=PATIENCE))
        return self.barriers[-1]

    def start(self, work, *arguments):
        def run():
            try:
                work(*arguments)
            except threading.BrokenBarrierError:
                self.errors.append("a barrier was broken")
            except BaseException as error:
                self.errors.insert(0, f"{work.__name__}{arguments}: {type(error).__name__}: {error}")
                self.stop.set()
                for barrier in self.barriers:
                    barrier.abort()

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def join(self, count: int | None = None):
        until = time.monotonic() + PATIENCE
        for thread in self.threads[:count]:
            thread.join(max(0.0, until - time.monotonic()))
        hanging = [thread for thread in self.threads[:count] if thread.is_alive()]
        assert not hanging, f"{len(hanging)} threads hang; {self.errors}"
        assert not self.errors, self.errors[0]

    def finish(self, workers: int):
        """Waits for the workers, then stops the others."""
        try:
            self.join(workers)
        finally:
            self.stop.set()
        self.join()


def test_swapped_models(figures):
    """Editors replace the current model by a copy with other weights, or in another dtype, at any time."""
    model, text = hostile_targets.vision_model(), hostile_targets.text_model()
    versions, dtypes = states(model), (torch.float32, torch.float16, torch.bfloat16)
    expected, started = {}, len(threading.enumerate())

    def made(key):
        new = copy.deepcopy(model)
        new.load_state_dict(versions[key[0]])
        return new.to(dtypes[key[1]])

    for key in ((version, kind) for version in range(VERSIONS) for kind in range(3)):
        alone = made(key)
        expected |= {(key, index): vision_bits(alone, index) for index in range(KINDS)}
    texts = [text_bits(text, index) for index in range(KINDS)]
    current, alive, crew = [((0, 0), made((0, 0)))], [], Crew()

    def worker(number: int):
        for turn in range(FORWARDS):
            index = (number * FORWARDS + turn * 7) % KINDS
            key, taken = current[0]
            if vision_bits(taken, index) != expected[key, index]:
                figures.failed(f"version {key}, forward {index}: other bits than alone")
            if text_bits(text, index) != texts[index]:
                figures.failed(f"text {index}: other bits than alone")
            figures.passed(2)

    def editor(number: int):
        chance = random.Random(f"{SEED}/editor {number}")
        while not crew.stop.is_set():
            key = (chance.randrange(VERSIONS), chance.randrange(3))
            new = made(key)
            alive.append(weakref.ref(new))
            current[0] = (key, new)
            del new
            crew.stop.wait(0.001)

    def counts():
        for threads in iter(lambda: random.choice((1, 2, 3, 8)), None):
            torch.set_num_threads(threads)
            if crew.stop.wait(0.002):
                return

    def wrong_calls():
        while not crew.stop.wait(0.001):
            taken, pixels = (
                current[0][1],
                torch.zeros(1, 3, 16, 16, dtype=current[0][1].vision_model.prior_prompt.dtype),
            )
            for arguments in ({"num_look_close": -1}, {"num_look_close": 1, "prompt": torch.zeros(9)}, {}):
                with torch.no_grad(), pytest.raises((ValueError, TypeError)):
                    taken(pixels, **arguments)

    def half_done_steps():
        while not crew.stop.wait(0.001):
            taken = current[0][1].vision_model
            with torch.no_grad():
                next(taken.steps(torch.zeros(1, 3, 16, 16, dtype=taken.prior_prompt.dtype), num_look_close="all"))

    threads = torch.get_num_threads()
    for number in range(THREADS):
        crew.start(worker, number)
    for work, *arguments in ((editor, 0), (editor, 1), (counts,), (wrong_calls,), (half_done_steps,)):
        crew.start(work, *arguments)
    crew.finish(THREADS)
    torch.set_num_threads(threads)
    made_models = len(alive)
    plans = [len(one._plans._items) for one in current[0][1].vision_model._engine._models._items.values()]
    current.clear()
    gc.collect()
    if any(reference() is not None for reference in alive):
        figures.failed("a model that was replaced is still alive")
    if len(threading.enumerate()) != started:
        figures.failed("threads are left")
    if any(count > 16 for count in plans):
        figures.failed(f"{plans} plans are kept")
    figures.finish(models=made_models)


def test_edits_between_barriers(figures):
    """One model; its weights change in place in every round, in the gap between two barriers."""
    model = copy.deepcopy(hostile_targets.vision_model())
    text = copy.deepcopy(hostile_targets.text_model())
    versions, text_versions = states(model), states(text)
    parameters = [*model.parameters(), *text.parameters()]
    owners = [sys.getrefcount(parameter) for parameter in parameters]

    def set_version(version: int, how: int):
        if how == 0:
            model.load_state_dict(versions[version])
        elif how == 1:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(versions[version][name])
        else:  # p.data is other memory afterwards
            model.half().float()
            model.load_state_dict(versions[version])
        text.load_state_dict(text_versions[version])

    expected = []
    for version in range(VERSIONS):
        set_version(version, 0)
        expected.append([(vision_bits(model, index), text_bits(text, index)) for index in range(KINDS)])
    rounds = [random.Random(f"{SEED}/{turn}").randrange(VERSIONS) for turn in range(FORWARDS)]
    crew = Crew()
    before, after = (crew.barrier(THREADS + 1) for _ in range(2))

    def worker(number: int):
        for turn, version in enumerate(rounds):
            before.wait()
            index = (number + turn * 5) % KINDS
            if (vision_bits(model, index), text_bits(text, index)) != expected[version][index]:
                figures.failed(f"round {turn}, version {version}, forward {index}: other bits than alone")
            figures.passed()
            after.wait()

    def editor():
        for turn, version in enumerate(rounds):
            set_version(version, turn % 3)
            before.wait()
            after.wait()

    crew.start(editor)
    for number in range(THREADS):
        crew.start(worker, number)
    crew.join()
    gc.collect()
    if [sys.getrefcount(parameter) for parameter in parameters] != owners:
        figures.failed("parameters have more owners than before")
    figures.finish(rounds=len(rounds))


def test_tokenizer_processor_and_encoder(tmp_path, figures):
    """One encoder with texts and images of all kinds: tokenizer, processor, both towers."""
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "make_checkpoint.py"))["write_checkpoint"](
        tmp_path / "tiny", tiny=True
    )
    encoder = ps3c.load(tmp_path / "tiny", device="cpu", dtype="float32")
    words = ["a red boat", "the cap", "a dog &amp; a cat " * 9, "", "\u00e9t\u00e9 " * 40, "x"]
    images = [
        Image.frombytes("RGB", (30 + 9 * index, 50), random.Random(index).randbytes(3 * 50 * (30 + 9 * index)))
        for index in range(6)
    ]
    images[1], images[2] = images[1].convert("P"), images[2].convert("L")

    contents = [image_files.saved(image, "PNG") for image in images]  # Pillow opens them, under ps3c's lock

    def texts(index: int) -> list[bytes]:
        length = (None, 8, 20)[index % 3]
        ids = encoder.tokenizer(words[index % 6 :], **({} if length is None else {"context_length": length}))
        return bits(ids, encoder.embed_texts(words[index % 6], progress=False).pooled)

    def pictures(index: int) -> list[bytes]:
        values = encoder.processor(images[index % 6])["pixel_values"]
        return bits(values, encoder.embed_images(contents[index % 6], progress=False).pooled)

    expected = [(texts(index), pictures(index)) for index in range(18)]
    encoder = ps3c.load(tmp_path / "tiny", device="cpu", dtype="float32")  # whose tokenizer is loaded by all at once
    limit, crew = Image.MAX_IMAGE_PIXELS, Crew()
    start = crew.barrier(THREADS)

    def worker(number: int):
        start.wait()
        for turn in range(max(FORWARDS // 5, 1)):
            index = (number + turn) % 18
            if texts(index) != expected[index][0]:
                figures.failed(f"text {index}: other bits than alone")
            if pictures(index) != expected[index][1]:
                figures.failed(f"image {index}: other bits than alone")
            figures.passed(2)

    for number in range(THREADS):
        crew.start(worker, number)
    crew.join()
    if Image.MAX_IMAGE_PIXELS != limit:
        figures.failed("Pillow's limit has changed")
    figures.finish()

"""One model from many threads, and any number of threads inside: always the same bits.

Also: a forked child computes, and threads that wait do not use up the processor.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import models
import numpy
import pytest
import torch

from ps3c.engine import core

COUNTS = (1, 2, 3, 4, 8, 64, 2, 1)
SHAPES = [(1, 128, 160), (1, 90, 40), (2, 64, 64), (1, 17, 300)]


@pytest.fixture(autouse=True)
def number_of_threads():
    """Tests set torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(model, index: int):
    """A forward pass whose sizes and arguments depend on `index`; all its tensors."""
    size = SHAPES[index % len(SHAPES)]
    arguments = {"num_look_close": 1 + index % 2}
    if index % 3 == 0:
        arguments["prompt"] = models.prompt(size[0], 192, seed=index)
    with torch.no_grad():
        output = model(models.image(*size, seed=index), **arguments)
    return [*output.hidden_states[-2:], *output.selection_maps, *output.selection_probs]


def same(first, second) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("count", [8] if "PS3C_ASAN" in os.environ else [8, 16])
def test_python_threads_on_one_model(count):
    model = models.ours("vision", "tiny")
    expected = [run(model, index) for index in range(count)]
    results, errors = {}, []

    def work(index):
        try:
            for _ in range(4):
                results.setdefault(index, []).append(run(model, index))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for index in range(count):
        assert len(results[index]) == 4
        assert all(same(result, expected[index]) for result in results[index]), index


def test_eight_python_threads_on_one_text_model():
    model = models.ours("text", "siglip2")
    texts = [
        torch.randint(1, 97, (1 + index % 3, 12), generator=torch.Generator().manual_seed(index)) for index in range(8)
    ]
    with torch.no_grad():
        expected = [model(text).prompt for text in texts]
    results = [None] * 8

    def work(index):
        with torch.no_grad():
            results[index] = [model(texts[index]).prompt for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(8):
        assert results[index] is not None
        assert all(torch.equal(result, expected[index]) for result in results[index])


@pytest.mark.parametrize("name", ["tiny", "patch14"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_thread_counts(name, dtype):
    """Any number of threads gives the same bits; so does the same number again."""
    model = models.ours("vision", name, dtype)
    width = model.vision_model.width
    pixels, prompt = models.image(2, 100, 140).to(dtype), models.prompt(2, width).to(dtype)
    outputs = []
    for threads in COUNTS:
        torch.set_num_threads(threads)
        with torch.no_grad():
            output = model(pixels, num_look_close=2, prompt=prompt)
        outputs.append([*output.hidden_states, *output.selection_maps, *output.selection_probs])
    assert all(same(outputs[0], other) for other in outputs[1:])


def test_text_thread_counts():
    model = models.ours("text", "causal")
    text = torch.randint(1, 97, (5, 12), generator=torch.Generator().manual_seed(1))
    outputs = []
    for threads in COUNTS:
        torch.set_num_threads(threads)
        with torch.no_grad():
            outputs.append(model(text))
    for output in outputs[1:]:
        assert torch.equal(outputs[0].pooled_output, output.pooled_output)
        assert torch.equal(outputs[0].prompt, output.prompt)


def test_an_image_does_not_depend_on_its_batch():
    model = models.ours("vision", "tiny")
    pixels, prompt = models.image(5, 100, 140), models.prompt(5, 192)
    with torch.no_grad():
        together = model(pixels, num_look_close=2, prompt=prompt)
        for index in range(5):
            alone = model(pixels[index : index + 1], num_look_close=2, prompt=prompt[index : index + 1])
            assert torch.equal(alone.last_hidden_state[0], together.last_hidden_state[index])
            assert all(torch.equal(a[0], b[index]) for a, b in zip(alone.selection_maps, together.selection_maps))


# ---- in processes of their own ---------------------------------------------------------------------------------------

TESTS = Path(__file__).resolve().parent
SECONDS = 300  # far more than any of them needs: they end, or they hang


def script(code, *arguments, threads=8):
    """Runs Python code in a process of its own, where up to `threads` threads are allowed, also on fewer processors.
    Returns what it prints, as JSON."""
    if "PS3C_ASAN" in os.environ:
        pytest.skip("minutes under sanitizers, where tests/c/test_threads.c tests the pool")
    path = os.pathsep.join([str(TESTS), *sys.path])
    environment = dict(os.environ, PYTHONPATH=path, PS3C_NUM_THREADS=str(threads))
    command = [sys.executable, "-c", f"import conftest\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MANY = """
import hashlib, json
import models, torch
digests = []
for dtype in (torch.float32, torch.bfloat16):
    model = models.ours("vision", "tiny", dtype)
    pixels = models.image(2, 100, 140).to(dtype)
    found = set()
    for threads in (1, 2, 3, 4, 8, 64, 5, 1):
        torch.set_num_threads(threads)
        with torch.no_grad():
            output = model(pixels, num_look_close=2)
        found.add(hashlib.sha256(output.last_hidden_state.float().numpy().tobytes()).hexdigest())
    digests.append(sorted(found))
print(json.dumps(digests))
"""


@pytest.mark.parametrize("threads", [8, 64])
def test_more_threads_than_processors(threads):
    assert [len(digests) for digests in script(MANY, threads=threads)] == [1, 1]


@pytest.mark.parametrize("threads", ["0", "-1", "two", "3x", "100000", "1 2"])
def test_an_invalid_number_in_the_environment(threads, monkeypatch):
    monkeypatch.setenv("PS3C_NUM_THREADS", threads)
    pixels, out = numpy.zeros((4, 4, 3), numpy.uint8), numpy.zeros((4, 2, 4), numpy.uint8)
    core.image_resize_columns(pixels, "bicubic", out, threads=1)  # a number from the caller
    with pytest.raises(ValueError, match=f"PS3C_NUM_THREADS: got '{threads}', expected 1 to 1024"):
        core.image_resize_columns(pixels, "bicubic", out)


FORK = """
import hashlib, json, multiprocessing, sys, threading, warnings
import models, torch
warnings.simplefilter("ignore", DeprecationWarning)  # fork of a process with threads
torch.set_num_threads(3)
model = models.ours("vision", "tiny")
pixels = models.image(1, 128, 160)

def forward():
    with torch.no_grad():
        output = model(pixels, num_look_close=1)
    return hashlib.sha256(output.last_hidden_state.numpy().tobytes()).hexdigest()

def child(queue):
    queue.put([forward(), forward()])

def children(count):
    fork = multiprocessing.get_context("fork")
    digests = []
    for _ in range(count):
        queue = fork.Queue()
        process = fork.Process(target=child, args=(queue,), daemon=True)
        process.start()
        digests += queue.get(timeout=100)
        process.join(100)
        assert process.exitcode == 0
    return digests

def busy(stop):
    while not stop.is_set():
        forward()

when, digests = sys.argv[1], []
if when == "after a load":
    digests = children(2)
elif when == "after a forward":
    digests = [forward(), *children(4)]
else:
    stop = threading.Event()
    thread = threading.Thread(target=busy, args=(stop,))
    thread.start()
    digests = children(10)
    stop.set()
    thread.join()
print(json.dumps([*digests, forward()]))
"""


@pytest.mark.parametrize("when", ["after a load", "after a forward", "during a forward of another thread"])
def test_a_forked_child_computes(when):
    digests = script(FORK, when)
    assert len(digests) >= 5 and len(set(digests)) == 1


CPU_TIME = """
import json, os, subprocess, sys, time
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import models, torch
model = models.ours("vision", "tiny")
pixels = models.image(1, 128, 160)

def seconds(threads):
    torch.set_num_threads(threads)
    with torch.no_grad():
        model(pixels, num_look_close=1)
        before = time.process_time()
        for _ in range(10):
            model(pixels, num_look_close=1)
    return time.process_time() - before

neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    took = [[seconds(1), seconds(2)] for _ in range(3)]
finally:
    for neighbour in neighbours:
        neighbour.kill()
        neighbour.wait()
print(json.dumps(took))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_waiting_threads_leave_the_processor_to_others():
    """Two threads and two other processes on one processor: the CPU time of ps3c, not the time on the clock."""
    took = script(CPU_TIME)
    one, two = (min(pair[i] for pair in took) for i in range(2))
    assert two <= 3 * one, took

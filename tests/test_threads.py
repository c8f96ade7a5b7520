"""One model from many threads, and any number of threads inside: always the same bits."""

import threading

import models
import pytest
import torch

SHAPES = [(1, 128, 160), (1, 90, 40), (2, 64, 64), (1, 17, 300)]


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


def test_eight_python_threads_on_one_model():
    model = models.ours("vision", "tiny")
    expected = [run(model, index) for index in range(8)]
    results, errors = {}, []

    def work(index):
        try:
            for _ in range(4):
                results.setdefault(index, []).append(run(model, index))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for index in range(8):
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
    """1 thread and 2 give the same bits; so does the same number again."""
    model = models.ours("vision", name, dtype)
    width = model.vision_model.width
    pixels, prompt = models.image(2, 100, 140).to(dtype), models.prompt(2, width).to(dtype)
    outputs = []
    for threads in (1, 2, 2, 1):
        torch.set_num_threads(threads)
        with torch.no_grad():
            output = model(pixels, num_look_close=2, prompt=prompt)
        outputs.append([*output.hidden_states, *output.selection_maps, *output.selection_probs])
    assert all(same(outputs[0], other) for other in outputs[1:])


def test_text_thread_counts():
    model = models.ours("text", "causal")
    text = torch.randint(1, 97, (5, 12), generator=torch.Generator().manual_seed(1))
    outputs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            outputs.append(model(text))
    assert torch.equal(outputs[0].pooled_output, outputs[1].pooled_output)
    assert torch.equal(outputs[0].prompt, outputs[1].prompt)


def test_an_image_does_not_depend_on_its_batch():
    model = models.ours("vision", "tiny")
    pixels, prompt = models.image(5, 100, 140), models.prompt(5, 192)
    with torch.no_grad():
        together = model(pixels, num_look_close=2, prompt=prompt)
        for index in range(5):
            alone = model(pixels[index : index + 1], num_look_close=2, prompt=prompt[index : index + 1])
            assert torch.equal(alone.last_hidden_state[0], together.last_hidden_state[index])
            assert all(torch.equal(a[0], b[index]) for a, b in zip(alone.selection_maps, together.selection_maps))

"""A forward on a GPU: streams, graphs, devices, memory, and synchronisation with the host."""

import copy
import gc
import threading

import gpu_support
import models
import pytest
import torch
from gpu_support import DEVICE, EVERY, EVERY_IDS, FLOAT32_ERROR, assert_same_bits, ours

pytestmark = gpu_support.needs_gpu

SIZES = [(1, 128, 160), (2, 130, 100)]


def image(batch=1, height=128, width=160, dtype=torch.float32, seed=0, device=DEVICE) -> torch.Tensor:
    return models.image(batch, height, width, seed).to(device, dtype)


def prompt(batch=1, dtype=torch.float32, device=DEVICE) -> torch.Tensor:
    return models.prompt(batch, 192).to(device, dtype)


# ---- the same result, however it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [0, 1, 2, "all"])
@pytest.mark.parametrize("name", ["tiny", "patch14", "radio_v2"])
def test_cpu_and_gpu_agree(name, looks):
    pixels = models.image(2, 130, 100)
    arguments = dict(num_look_close=looks)
    saved = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        mine = gpu_support.tensors(ours("vision", name)(pixels.to(DEVICE), **arguments))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = saved
    on_cpu = models.build_ours("vision", name)
    other = gpu_support.tensors(on_cpu(pixels, **arguments))
    assert mine.keys() == other.keys()
    for key, tensor in mine.items():
        if "maps" in key:
            assert torch.equal(tensor.cpu(), other[key]), key
        assert models.relative_error(tensor.cpu(), other[key]) <= FLOAT32_ERROR, key


@pytest.mark.parametrize("dtype", EVERY, ids=EVERY_IDS)
def test_every_run_gives_the_same_bits(dtype):
    model, pixels = ours("vision", "tiny", dtype), image(dtype=dtype)
    first = model(pixels, num_look_close=3, prompt=prompt(dtype=dtype))
    for _ in range(5):
        assert_same_bits(model(pixels, num_look_close=3, prompt=prompt(dtype=dtype)), first)


@pytest.mark.parametrize("dtype", EVERY, ids=EVERY_IDS)
@pytest.mark.parametrize("limit", [1, 1 << 22, 1 << 24, 1 << 30])
def test_bits_do_not_depend_on_the_grouping(limit, dtype):
    model, pixels = gpu_support.new("vision", "tiny", dtype), image(3, 96, 96, dtype)
    expected = model(pixels, num_look_close="all")
    model.vision_model.workspace_limit = limit
    assert_same_bits(model(pixels, num_look_close="all"), expected)


@pytest.mark.parametrize("dtype", EVERY, ids=EVERY_IDS)
def test_bits_do_not_depend_on_the_batch(dtype):
    model, pixels = ours("vision", "patch14", dtype), image(3, 90, 120, dtype)
    together = gpu_support.tensors(model(pixels, num_look_close=2))
    for index in range(3):
        alone = gpu_support.tensors(model(pixels[index : index + 1], num_look_close=2))
        for name, tensor in alone.items():
            assert torch.equal(tensor[0], together[name][index]), name


def test_strided_pixels():
    """Channels last, a crop, a flipped stride of a batch: read in place."""
    model = ours("vision", "tiny")
    whole = image(2, 150, 170)
    for pixels in (whole.to(memory_format=torch.channels_last), whole[:, :, 7:99, 5:160], whole.transpose(2, 3)):
        assert_same_bits(model(pixels, num_look_close=1), model(pixels.contiguous(), num_look_close=1))


# ---- streams, threads, graphs --------------------------------------------------------------------------------------


def test_work_runs_on_the_current_stream():
    """A second stream writes the pixels late. A forward on another stream would read the old values."""
    model, new = ours("vision", "tiny"), image(seed=1)
    expected = model(new, num_look_close=2)
    pixels = image(seed=2)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles: tens of milliseconds
        pixels.copy_(new)
        output = model(pixels, num_look_close=2)
    stream.synchronize()
    assert_same_bits(output, expected)


def test_two_threads_with_a_stream_each():
    model = ours("vision", "tiny")
    inputs = [image(seed=seed) for seed in range(2)]
    expected = [model(pixels, num_look_close=2) for pixels in inputs]
    torch.cuda.synchronize()
    failures = []

    def work(index):
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(20):
                    output = model(inputs[index], num_look_close=2)
                stream.synchronize()
            assert_same_bits(output, expected[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@pytest.mark.parametrize("dtype", EVERY, ids=EVERY_IDS)
@pytest.mark.parametrize(
    "arguments",
    [
        dict(num_look_close=0),
        dict(num_look_close=2),
        dict(num_look_close="all"),
        dict(num_token_look_close=100, smooth_selection_prob=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_graph_replays_on_new_pixels(size, arguments, dtype):
    model = ours("vision", "tiny", dtype)
    pixels, words = image(*size, dtype, seed=0), prompt(size[0], dtype)
    arguments = dict(arguments, prompt=words)
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        model(pixels, **arguments)
    torch.cuda.current_stream().wait_stream(warm_up)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(pixels, **arguments)
    for seed in (1, 2):
        other = image(*size, dtype, seed=seed)
        pixels.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(copy.deepcopy(dict(output)), model(other, **arguments))


def test_graph_of_the_text_tower():
    model = ours("text", "siglip2")
    tokens = torch.randint(2, 97, (3, 12), device=DEVICE)
    model(tokens)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(tokens)
    tokens.copy_(torch.randint(2, 97, (3, 12), device=DEVICE))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(output.prompt, model(tokens).prompt)


@pytest.mark.parametrize("looks", [0, 2, "all"])
def test_no_synchronisation_through_torch(looks):
    """torch raises an error if it synchronises. If the library synchronised, the graph tests above would fail."""
    model, pixels, words = ours("vision", "tiny"), image(2, 96, 96), prompt(2)
    maps = models.gt_maps(2, 12, 12, torch.float32).to(DEVICE)
    model(pixels, num_look_close=looks, prompt=words, gt_selection_maps=maps)
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(pixels, num_look_close=looks, prompt=words, gt_selection_maps=maps)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs a second GPU")
    second = torch.device("cuda", 1)
    expected = ours("vision", "tiny")(image(), num_look_close=2)
    model = gpu_support.new("vision", "tiny", device=second)
    output = model(image(device=second), num_look_close=2)
    assert torch.cuda.current_device() == 0
    assert all(tensor.device == second for tensor in gpu_support.tensors(output).values())
    assert models.relative_error(output.last_hidden_state.cpu(), expected.last_hidden_state.cpu()) <= FLOAT32_ERROR


# ---- arguments in the wrong place ----------------------------------------------------------------------------------


def test_tensors_on_another_device():
    model = ours("vision", "tiny")
    with pytest.raises(RuntimeError, match="pixel_values.*cpu.*cuda"):
        model(models.image(1, 90, 90), num_look_close=1)
    with pytest.raises(RuntimeError, match="prompt.*cpu.*cuda"):
        model(image(), num_look_close=1, prompt=models.prompt(1, 192))
    with pytest.raises(RuntimeError, match="pixel_values.*cuda.*cpu"):
        models.ours("vision", "tiny")(image(), num_look_close=1)


# ---- weights -------------------------------------------------------------------------------------------------------


def test_changed_weights_are_honoured():
    model, pixels = gpu_support.new("vision", "tiny"), image()
    before = model(pixels, num_look_close=1).last_hidden_state
    fresh = gpu_support.new("vision", "tiny")
    for name in ("trunk.blocks.3.mlp.fc1.weight", "trunk.pos_embed", "trunk.patch_embed.proj.weight"):
        for one in (model, fresh):
            one.vision_model.get_parameter(name).mul_(1.25)  # model has run, fresh has not
        after = model(pixels, num_look_close=1).last_hidden_state
        assert not torch.equal(after, before), name
        before = after
    assert torch.equal(before, fresh(pixels, num_look_close=1).last_hidden_state)


def test_model_moved_and_cast():
    model, pixels = gpu_support.new("vision", "tiny"), models.image(1, 90, 120)
    on_gpu = model(pixels.to(DEVICE), num_look_close=1).last_hidden_state
    model.cpu()
    on_cpu = model(pixels, num_look_close=1).last_hidden_state
    assert on_cpu.device.type == "cpu" and models.relative_error(on_gpu.cpu(), on_cpu) <= FLOAT32_ERROR
    model.cuda()
    assert torch.equal(model(pixels.to(DEVICE), num_look_close=1).last_hidden_state, on_gpu)
    model.half()
    pixels = pixels.to(DEVICE, torch.float16)
    half = model(pixels, num_look_close=1)
    assert half.last_hidden_state.dtype == torch.float16
    assert_same_bits(half, gpu_support.new("vision", "tiny", torch.float16)(pixels, num_look_close=1))


# ---- precision of float32 ------------------------------------------------------------------------------------------


def test_tf32_is_used_when_torch_allows_it():
    saved = torch.backends.cuda.matmul.allow_tf32
    model, pixels = ours("vision", "small"), image(2, 96, 96)
    results = {}
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            results[allowed] = model(pixels, num_look_close=0).last_hidden_state
    finally:
        torch.backends.cuda.matmul.allow_tf32 = saved
    error = models.relative_error(results[True].cpu(), results[False].cpu())
    # 10 bits of mantissa: far above float32's error, and a few thousandths at most.
    assert 1e-5 < error < 2e-2, error


# ---- memory --------------------------------------------------------------------------------------------------------


def test_out_of_memory_leaves_the_model_usable():
    model, pixels = ours("vision", "tiny"), image()
    expected = model(pixels, num_look_close=1)
    gc.collect()
    torch.cuda.empty_cache()
    many = torch.zeros(1, 3, 64, 64, device=DEVICE).expand(256, 3, 64, 64)
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        with pytest.raises((torch.cuda.OutOfMemoryError, MemoryError)):
            model(many, num_look_close="all")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_same_bits(model(pixels, num_look_close=1), expected)


def test_nothing_is_kept_between_calls():
    """After a forward, torch's allocator has only the outputs allocated."""
    model, pixels = ours("vision", "tiny"), image(2, 96, 96)
    model(pixels, num_look_close="all")
    gc.collect()
    before = torch.cuda.memory_allocated()
    for looks in (1, 2, "all", 0):
        output = model(pixels, num_look_close=looks)
        del output
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_the_device_stays_healthy():
    """No error of an earlier launch is pending."""
    ours("vision", "tiny")(image(), num_look_close=2)
    torch.cuda.synchronize()
    assert float(torch.ones(10, device=DEVICE).sum()) == 10

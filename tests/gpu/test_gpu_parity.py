"""PS3VisionModel and PS3TextModel on the GPU against ps3-torch: the CPU's tables of cases, and its measure.

float32 (TF32 off) is compared with ps3-torch on the CPU. In float16 and bfloat16 ps3-torch runs on the GPU on ps3c's
selection, in that dtype and, as the truth, in float32 on the rounded weights.
"""

import gpu_support
import models
import pytest
import test_parity_text as text
import test_parity_vision as vision
import torch
from cases import case
from gpu_support import DEVICE, FLOAT32_ERROR, HALF_IDS, HALVES, on_gpu, ours, theirs

pytestmark = gpu_support.needs_gpu


@pytest.fixture(autouse=True)
def _true_float32():
    """TF32 is off in torch, for the reference as for ps3c."""
    saved = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = saved


def forward(model, entry, dtype, arithmetic=None, reference=False):
    """The case's output on the model's device. arithmetic: inputs of `dtype`, computed with in this one."""
    encoder = model.vision_model
    device = next(model.parameters()).device
    encoder.num_hidden_layers_to_return = entry.args.get("layers", encoder.layers)
    pixels, args = entry.inputs(dtype, encoder.width)
    args = vision.float_maps(args) if reference else args
    if arithmetic is not None:
        pixels = pixels.to(arithmetic)
        args.update({"prompt": args["prompt"].to(arithmetic)} if "prompt" in args else {})
    if id(entry) in vision.PRETRAIN_IDS:
        args["output_hidden_states"] = False
    with torch.no_grad():
        return model(pixels.to(device), **on_gpu(args, device))


def forced(model, entry, dtype, arithmetic, probs):
    """The reference on ps3c's probabilities."""
    model.vision_model.forced_probs = probs
    try:
        return forward(model, entry, dtype, arithmetic, reference=True)
    finally:
        model.vision_model.forced_probs = None


def on_cpu(output):
    """The output's tensors on the CPU, in an object of the same form."""
    for name, value in list(output.items()):
        if isinstance(value, torch.Tensor):
            setattr(output, name, value.cpu())
        elif isinstance(value, (list, tuple)):
            setattr(output, name, [tensor.cpu() for tensor in value])
    return output


@pytest.mark.parametrize("entry", vision.BOTH, ids=str)
def test_vision_float32(entry):
    output = forward(ours("vision", entry.model), entry, torch.float32)
    assert all(tensor.device == DEVICE for tensor in vision.tensors(output).values())
    reference = models.theirs("vision", entry.model)
    mine, other = on_cpu(output), forward(reference, entry, torch.float32, reference=True)
    vision.assert_same_form(mine, other)
    vision.assert_same_maps(mine, other)
    truth = vision.tensors(other)
    errors = {name: models.relative_error(tensor, truth[name]) for name, tensor in vision.tensors(mine).items()}
    assert all(error <= FLOAT32_ERROR for error in errors.values()), errors  # `<=` is false for NaN


@pytest.mark.parametrize("dtype", HALVES, ids=HALF_IDS)
@pytest.mark.parametrize("entry", [entry for entry in vision.BOTH if entry.half], ids=str)
def test_vision_half(entry, dtype):
    mine = forward(ours("vision", entry.model, dtype), entry, dtype)
    probs = mine.selection_probs
    other = forced(theirs("vision", entry.model, dtype), entry, dtype, dtype, probs)
    exact = forced(theirs("vision", entry.model, torch.float32, rounded=dtype), entry, dtype, torch.float32, probs)
    vision.assert_same_form(mine, other)
    vision.assert_same_maps(mine, other)
    vision.assert_ratio(
        *(
            {name: tensor for name, tensor in vision.tensors(run).items() if "probs" not in name}
            for run in (mine, other, exact)
        )
    )


@pytest.mark.parametrize("dtype", HALVES, ids=HALF_IDS)
@pytest.mark.parametrize("name, batch", [("no_highres", 32), ("tiny", 6), ("patch14", 6)])
def test_half_probabilities(name, batch, dtype):
    pixels = models.image(batch, 60, 80).to(DEVICE, dtype)
    prompt = models.prompt(batch, models.vision_config(name)["hidden_size"]).to(DEVICE, dtype)
    model = ours("vision", name, dtype)
    runs = [
        {
            "bottom-up": model(pixels, num_look_close=0).selection_probs[0],
            "top-down": model(pixels, num_look_close=0, prompt=prompt).selection_probs[0],
        }
    ]
    for arithmetic, rounded in ((dtype, None), (torch.float32, dtype)):
        model = theirs("vision", name, arithmetic, rounded)
        with torch.no_grad():
            model(pixels.to(arithmetic), num_look_close=0, prompt=prompt.to(arithmetic))
        _, bottomup, topdown = model.vision_model.own_probs
        runs.append({"bottom-up": bottomup[0], "top-down": topdown[0]})
    vision.assert_ratio(*runs)


@pytest.mark.parametrize("dtype", gpu_support.EVERY, ids=gpu_support.EVERY_IDS)
def test_zero_prompt(dtype):
    entry = case("no_highres", (1, 96, 96), prompt="zero", num_look_close=0)
    for probs in forward(ours("vision", "no_highres", dtype), entry, dtype).selection_probs:
        assert bool((probs == 0.5).all())


@pytest.mark.parametrize("name", ["tiny", "radio_v1", "radio_v2_norm", "patch14"])
@pytest.mark.parametrize("size", [(2, 100, 90), (1, 17, 900)], ids=str)
def test_forward_low_res(name, size):
    pixels = models.image(*size)
    with torch.no_grad():
        mine = ours("vision", name).vision_model.forward_low_res(pixels.to(DEVICE), output_hidden_states=True)
        other = models.theirs("vision", name).vision_model.forward_low_res(pixels, output_hidden_states=True)
    assert models.relative_error(mine["x"].cpu(), other["x"]) <= FLOAT32_ERROR
    for a, b in zip(mine["hidden_states"], other["hidden_states"], strict=True):
        assert models.relative_error(a.cpu(), b) <= FLOAT32_ERROR


@pytest.mark.parametrize("name", models.TEXT)
@pytest.mark.parametrize("batch, length", [(1, 12), (5, 12), (3, 5), (1, 1)])
def test_text_float32(name, batch, length):
    tokens = text.ids(batch, length, padding=models.text_config(name).get("pad_id", 0))
    with torch.no_grad():
        mine = ours("text", name)(tokens.to(DEVICE))
        other = text.reference_run(models.theirs("text", name), tokens)
    for field in ("pooled_output", "prompt"):
        a, b = getattr(mine, field), getattr(other, field)
        assert a.device == DEVICE and a.shape == b.shape and a.dtype == b.dtype
        assert models.relative_error(a.cpu(), b) <= FLOAT32_ERROR, field


@pytest.mark.parametrize("dtype", HALVES, ids=HALF_IDS)
@pytest.mark.parametrize("name", models.TEXT)
def test_text_half(name, dtype):
    tokens = text.ids(96, 12, padding=models.text_config(name).get("pad_id", 0)).to(DEVICE)
    with torch.no_grad():
        runs = [
            ours("text", name, dtype)(tokens),
            text.reference_run(theirs("text", name, dtype), tokens),
            text.reference_run(theirs("text", name, torch.float32, dtype), tokens),
        ]
    vision.assert_ratio(*({field: getattr(run, field) for field in ("pooled_output", "prompt")} for run in runs))


@pytest.mark.parametrize("token", [-1, 97])
def test_token_ids_out_of_range(token):
    """The host cannot see the ids without waiting: whatever comes out, nothing out of bounds is read, and the model and
    the device are usable after it."""
    tokens = text.ids(2, 12).to(DEVICE)
    model = ours("text", "siglip")
    before = model(tokens).prompt
    wrong = tokens.clone()
    wrong[1, 3] = token
    try:
        model(wrong)
        torch.cuda.synchronize()
    except (ValueError, IndexError):
        pass
    assert torch.equal(model(tokens).prompt, before)

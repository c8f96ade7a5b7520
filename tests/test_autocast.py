"""torch.autocast: half-precision inputs of float32 weights, at least as close to float32 as in ps3-torch."""

import models
import pytest
import torch

HALVES = [torch.bfloat16, torch.float16]


def errors(output, exact) -> list[float]:
    pairs = [(output.last_hidden_state, exact.last_hidden_state)]
    pairs += zip(output.selection_probs, exact.selection_probs, strict=True)
    return [models.relative_error(a.float(), b) for a, b in pairs]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("prompted", [False, True])
def test_as_close_to_float32_as_the_reference(dtype, prompted):
    pixels, prompt = models.image(2, 128, 128).to(dtype), models.prompt(2, 192).to(dtype)
    ours, theirs = models.ours("vision", "tiny"), models.theirs("vision", "tiny")
    half = {"num_look_close": 0, **({"prompt": prompt} if prompted else {})}
    full = {"num_look_close": 0, **({"prompt": prompt.float()} if prompted else {})}
    with torch.no_grad():
        exact = theirs(pixels.float(), **full)
        with torch.autocast("cpu", dtype):
            mine, other = ours(pixels, **half), theirs(pixels, **half)
    assert mine.last_hidden_state.dtype == other.last_hidden_state.dtype == torch.float32
    assert all(a <= b for a, b in zip(errors(mine, exact), errors(other, exact), strict=True))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_form_of_a_pass(dtype):
    """Computed in the weights' dtype: the same bits as with inputs that were converted before."""
    pixels, prompt = models.image(1, 96, 80).to(dtype), models.prompt(1, 192).to(dtype)
    encoder = models.ours("vision", "tiny").vision_model
    forms = [
        lambda x, p: encoder(x, p, num_look_close=2, output_hidden_states=True).last_hidden_state,
        lambda x, p: encoder(x, p).pooled_output,
        lambda x, p: encoder.forward_low_res(x)["x"],
        lambda x, p: [encoder_steps := encoder.steps(x, prompt=p, num_look_close=1), *encoder_steps][0].outputs[
            "hidden_states"
        ][-1],
    ]
    with torch.no_grad():
        for form in forms:
            with torch.autocast("cpu", dtype):
                got = form(pixels, prompt)
            assert torch.equal(got, form(pixels.float(), prompt.float()))


def test_mixed_dtypes():
    model, pixels = models.ours("vision", "tiny", torch.bfloat16), models.image(1, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(pixels, num_look_close=1)
        assert output.last_hidden_state.dtype == torch.bfloat16
        assert torch.equal(output.last_hidden_state, model(pixels.bfloat16(), num_look_close=1).last_hidden_state)
        with pytest.raises(TypeError, match="pixel_values: got torch.float64"):
            model(pixels.double(), num_look_close=1)
        with pytest.raises(TypeError, match="pixel_values: got torch.uint8"):
            model(pixels.to(torch.uint8), num_look_close=1)


def test_without_autocast_a_dtype_is_refused():
    model, pixels = models.ours("vision", "tiny"), models.image(1, 64, 64).bfloat16()
    with torch.no_grad(), pytest.raises(TypeError, match="pixel_values: got torch.bfloat16, expected torch.float32"):
        model(pixels, num_look_close=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=False), pytest.raises(TypeError):
        model(pixels, num_look_close=1)

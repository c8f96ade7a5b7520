"""Arguments that have no value, no plain memory or no sensible size: the exception's type, and the name in it."""

import copy

import models
import numpy as np
import pytest
import torch

PIXELS = models.image(1, 64, 64)
IDS = torch.ones(1, 8, dtype=torch.int64)
META, TWO = torch.tensor(1, device="meta"), torch.tensor([1, 2])
NESTED = torch.nested.nested_tensor([torch.ones(3, 8, 8)])
JAGGED = torch.nested.nested_tensor([torch.ones(3, 8)], layout=torch.jagged)


def vision(**arguments):
    with torch.no_grad():
        return models.ours("vision", "tiny")(arguments.pop("pixel_values", PIXELS), **arguments)


def pretrain(**arguments):
    with torch.no_grad():
        return models.ours("vision", "tiny").vision_model(PIXELS, **arguments)


def text(ids):
    with torch.no_grad():
        return models.ours("text", "siglip2")(ids)


NO_NUMBERS = {
    "meta": META,
    "two": TWO,
    "float": torch.tensor(1.5),
    "many": torch.zeros(10**5),
    "array": np.array([1, 2]),
    "bool": True,
    "nested": NESTED,
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("name", ["num_look_close", "num_token_look_close", "only_select_first_n_scale"])
def test_no_number(name, value):
    looks = {"num_look_close": 1} if name.startswith("only") else {}
    # only_select_first_n_scale may have one number for each image: of another length is a ValueError
    kinds = (TypeError, ValueError) if value is TWO or name.startswith("only") else TypeError
    with pytest.raises(kinds, match=f"^{name}: got ") as caught:
        vision(**{**looks, name: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["num_look_close", "num_token_look_close", "only_select_first_n_scale"])
def test_numbers(name):
    looks = {"num_look_close": 1} if name.startswith("only") else {}
    expected = vision(**{**looks, name: 1}).last_hidden_state
    for value in (torch.tensor(1), torch.tensor(1, dtype=torch.uint8), np.int32(1)):
        assert torch.equal(vision(**{**looks, name: value}).last_hidden_state, expected)
    for value in (10**30, 10**6000, -(10**6000)):
        with pytest.raises(ValueError, match=f"^{name}: got "):
            vision(**{**looks, name: value})


@pytest.mark.parametrize(
    "value", [META, TWO, np.array([1, 2]), torch.zeros(10**5)], ids=["meta", "two", "array", "many"]
)
@pytest.mark.parametrize(
    "name", ["smooth_selection_prob", "output_hidden_states", "pool_gt_token_only", "pooled", "return_kv_cache"]
)
def test_no_flag(name, value):
    encoder = models.ours("vision", "tiny").vision_model
    call = {
        "pool_gt_token_only": lambda **options: pretrain(gt_selection_maps=torch.ones(1, 8, 8), **options),
        "pooled": lambda **options: encoder.steps(PIXELS, num_look_close=1, **options),
        "return_kv_cache": lambda **options: encoder.forward_low_res(PIXELS, **options),
    }.get(name, lambda **options: vision(num_look_close=1, **options))
    with pytest.raises(TypeError, match=f"^{name}: got .*, expected True or False$") as caught:
        call(**{name: value})
    assert len(str(caught.value)) < 250


def test_flags():
    expected = vision(num_look_close=1, smooth_selection_prob=True).selection_probs[0]
    for value in (1, np.bool_(True), torch.tensor(True), torch.tensor([1])):
        assert torch.equal(vision(num_look_close=1, smooth_selection_prob=value).selection_probs[0], expected)


@pytest.mark.parametrize("value", [NESTED, JAGGED], ids=["nested", "jagged"])
@pytest.mark.parametrize("name", ["pixel_values", "prompt", "gt_selection_maps", "is_global_text", "text"])
def test_nested_tensors(name, value):
    with pytest.raises(TypeError, match=f"^{name}: got a nested tensor"):
        if name == "text":
            text(value)
        elif name == "is_global_text":
            pretrain(is_global_text=value)
        else:
            vision(**{"num_look_close": 1, name: value})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64], ids=str)
def test_dtypes(dtype):
    for call in (
        lambda: pretrain(is_global_text=torch.ones(1, 1).to(dtype)),
        lambda: vision(num_look_close=1, prompt=torch.ones(1, 192).to(dtype)),
        lambda: vision(num_look_close=1, gt_selection_maps=torch.ones(1, 8, 8).to(dtype)),
        lambda: vision(num_look_close=1, pixel_values=PIXELS.to(dtype)),
        lambda: text(IDS.to(dtype)),
    ):
        with pytest.raises(TypeError, match="^(is_global_text|prompt|gt_selection_maps|pixel_values|text): got "):
            call()


def test_shapes_of_is_global_text():
    for shape in ((3, 1), (1,), (1, 2), (1, 1, 1)):
        with pytest.raises(ValueError, match=r"^is_global_text: got shape .*, expected \(1, 1\)$"):
            pretrain(is_global_text=torch.ones(shape, dtype=torch.bool))


HUGE = {
    "ids": (lambda: text(IDS.expand(2**40, 8)), ValueError, "text.shape"),
    "int32 ids": (lambda: text(IDS.int().expand(2**40, 8)), MemoryError, "no memory for text"),
    "most ids": (lambda: text(IDS.expand(2**31 - 1, 8)), MemoryError, "no memory for "),
    "pixels": (lambda: vision(num_look_close=1, pixel_values=PIXELS.expand(2**40, 3, 64, 64)), ValueError, "pixel_val"),
    "most pixels": (
        lambda: vision(num_look_close=1, pixel_values=PIXELS.expand(2**31 - 1, 3, 64, 64)),
        MemoryError,
        "no memory for ",
    ),
    "prompts": (lambda: vision(num_look_close=1, prompt=torch.ones(1, 192).expand(2**40, 192)), ValueError, "prompt: "),
    "wide prompt": (lambda: vision(num_look_close=1, prompt=torch.ones(1, 1).expand(1, 2**45)), ValueError, "prompt: "),
    "flags": (
        lambda: pretrain(is_global_text=torch.ones(1, 1, dtype=torch.bool).expand(2**40, 1)),
        ValueError,
        "is_global_text: ",
    ),
    "maps": (
        lambda: vision(num_look_close=1, gt_selection_maps=torch.ones(1, 1, 1).expand(2**40, 8, 8)),
        ValueError,
        "gt_selection_maps: ",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_views_larger_than_memory(name):
    call, exception, message = HUGE[name]
    with pytest.raises(exception, match=f"^{message}"):
        call()


@pytest.mark.parametrize("kind, value", [("vision", PIXELS), ("text", IDS)])
def test_empty_weights(kind, value):
    """As DeepSpeed ZeRO-3 leaves them between passes."""
    model = copy.deepcopy(models.ours(kind, {"vision": "tiny", "text": "siglip2"}[kind]))
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    message = r"^(trunk\.attn_pool\.latent: got an empty tensor|weight token_embedding\.weight: got shape \(0,\))"
    with torch.no_grad(), pytest.raises((TypeError, ValueError), match=message):
        model(value, **({"num_look_close": 1} if kind == "vision" else {}))


def test_attributes_of_the_model():
    for name in ("workspace_limit", "num_hidden_layers_to_return"):
        for value in (META, TWO):
            model = copy.deepcopy(models.ours("vision", "tiny"))
            setattr(model.vision_model, name, value)
            with torch.no_grad(), pytest.raises(TypeError, match=f"^{name}: got "):
                model(PIXELS, num_look_close=1)

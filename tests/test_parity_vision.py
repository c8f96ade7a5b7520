"""PS3VisionModel against ps3-torch.

float32: every output within a relative Frobenius error of 5e-6 and the same selection maps. float16 and bfloat16: on
ps3c's selection, an error against float32 arithmetic (on the same rounded weights and image) of at most 1.2 times
ps3-torch's own in that dtype.
"""

import os

import models
import pytest
import torch
from cases import FEATURES, PRETRAIN, by_model, case

FLOAT32_ERROR = 5e-6
HALF_RATIO = 1.2
HALVES = [torch.float16, torch.bfloat16]
BOTH = by_model(FEATURES) + by_model(PRETRAIN)
# Under sanitizers fewer cases: those that are marked, but not the large model's, in every dtype, and only float32 is
# compared.
ASAN = "PS3C_ASAN" in os.environ
HALF = [entry for entry in BOTH if entry.half and not (ASAN and entry.model == "siglip")]
PRETRAIN_IDS = {id(entry) for entry in PRETRAIN}


def float_maps(args: dict) -> dict:
    """Arguments for the reference, which truncates area means of integer and bool maps; ps3c reads them as float."""
    maps = args.get("gt_selection_maps")
    return args if maps is None or maps.is_floating_point() else {**args, "gt_selection_maps": maps.float()}


def forward(model, entry, dtype, reference=False):
    """The case's output. A PRETRAIN case runs with output_hidden_states=False."""
    pixels, args = entry.inputs(dtype, model.vision_model.width)
    args = float_maps(args) if reference else args
    depth = model.vision_model.layers
    model.vision_model.num_hidden_layers_to_return = entry.args.get("layers", depth)
    if id(entry) in PRETRAIN_IDS:
        args["output_hidden_states"] = False
    with torch.no_grad():
        return model(pixels, **args)


def tensors(output) -> dict:
    """Every tensor of an output but the selection maps, by name."""
    named = {}
    for name in ("last_hidden_state", "pooled_output"):
        if getattr(output, name) is not None:
            named[name] = getattr(output, name)
    for name in ("hidden_states", "selection_probs", "bottomup_selection_probs", "topdown_selection_probs"):
        for index, tensor in enumerate(getattr(output, name) or ()):
            named[f"{name}[{index}]"] = tensor
    return named


def assert_same_form(ours, theirs):
    """The same fields, shapes and dtypes; the same selection maps when `maps`."""
    mine, other = tensors(ours), tensors(theirs)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in mine.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in other.items()
    }
    assert (ours.selection_maps is None) == (theirs.selection_maps is None)


def assert_same_maps(ours, theirs):
    for scale, (mine, other) in enumerate(zip(ours.selection_maps or (), theirs.selection_maps or (), strict=True)):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        different = int((mine != other).sum())
        assert different == 0, f"scale {scale}: {different} of {mine.numel()} patches differ"


@pytest.mark.parametrize("entry", HALF if ASAN else BOTH, ids=str)
def test_float32(entry):
    ours = forward(models.ours("vision", entry.model), entry, torch.float32)
    theirs = forward(models.theirs("vision", entry.model), entry, torch.float32, reference=True)
    assert_same_form(ours, theirs)
    assert_same_maps(ours, theirs)
    other = tensors(theirs)
    errors = {name: models.relative_error(tensor, other[name]) for name, tensor in tensors(ours).items()}
    assert all(error <= FLOAT32_ERROR for error in errors.values()), errors  # `<=` is false for NaN


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("entry", HALF, ids=str)
def test_half(entry, dtype):
    ours = forward(models.ours("vision", entry.model, dtype), entry, dtype)
    if ASAN:
        return
    theirs = reference_run(models.theirs("vision", entry.model, dtype), entry, dtype, dtype, ours)
    exact = reference_run(
        models.theirs("vision", entry.model, torch.float32, rounded=dtype), entry, dtype, torch.float32, ours
    )
    assert_same_form(ours, theirs)
    assert_same_maps(ours, theirs)

    # Probabilities have a test of their own below: an image has too few different ones for a ratio of 1.2.
    mine, other, truth = (
        {name: tensor for name, tensor in tensors(run).items() if "probs" not in name} for run in (ours, theirs, exact)
    )
    assert_ratio(mine, other, truth)


def assert_ratio(mine: dict, other: dict, truth: dict):
    """Every tensor of `mine` is at most 1.2 times as far from `truth` as that of `other`."""
    failures = {}
    for name in mine:
        error, limit = (models.relative_error(run[name], truth[name]) for run in (mine, other))
        limit *= HALF_RATIO
        if not error <= limit:  # true for NaN
            failures[name] = f"{error:.3e} > {limit:.3e}"
    assert not failures, failures


def reference_run(model, entry, dtype, arithmetic, ours):
    """The reference on inputs of `dtype`, computing in `arithmetic`, on ps3c's selection; its probabilities its own."""
    encoder = model.vision_model
    encoder.num_hidden_layers_to_return = entry.args.get("layers", encoder.layers)
    pixels, args = entry.inputs(dtype, encoder.width)
    if "prompt" in args:
        args["prompt"] = args["prompt"].to(arithmetic)
    encoder.forced_probs = ours.selection_probs
    try:
        with torch.no_grad():
            output = model(
                pixels.to(arithmetic), output_hidden_states=id(entry) not in PRETRAIN_IDS, **float_maps(args)
            )
    finally:
        encoder.forced_probs = None
    return output


@pytest.mark.skipif(ASAN, reason="numbers only")
@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name, batch", [("no_highres", 32), ("tiny", 6), ("patch14", 6)])
def test_half_probabilities(name, batch, dtype):
    """Over several images, bottom-up and top-down: one has 16 different probabilities, whose errors are luck."""
    pixels, prompt = (
        models.image(batch, 60, 80).to(dtype),
        models.prompt(batch, models.vision_config(name)["hidden_size"]),
    )
    prompt = prompt.to(dtype)
    ours = models.ours("vision", name, dtype)
    runs = [
        {
            "bottom-up": ours(pixels, num_look_close=0).selection_probs[0],
            "top-down": ours(pixels, num_look_close=0, prompt=prompt).selection_probs[0],
        }
    ]
    for arithmetic, rounded in ((dtype, None), (torch.float32, dtype)):
        model = models.theirs("vision", name, arithmetic, rounded=rounded)
        with torch.no_grad():
            model(pixels.to(arithmetic), num_look_close=0, prompt=prompt.to(arithmetic))
        _, bottomup, topdown = model.vision_model.own_probs
        runs.append({"bottom-up": bottomup[0], "top-down": topdown[0]})
    assert_ratio(*runs)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=["float32", "float16", "bfloat16"])
def test_zero_prompt(dtype):
    """Every cosine with a prompt of zeros is 0 and every probability a half. (In float16 the reference has NaN.)"""
    model = models.ours("vision", "no_highres", dtype)
    pixels, args = case("no_highres", (1, 96, 96), prompt="zero", num_look_close=0).inputs(dtype, 192)
    for probs in model(pixels, **args).selection_probs:
        assert bool((probs == 0.5).all())


# ---- the other methods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "radio_v1", "radio_v2_norm", "patch14"])
@pytest.mark.parametrize("size", [(2, 100, 90), (1, 17, 900)], ids=str)
def test_forward_low_res(name, size):
    pixels = models.image(*size)
    with torch.no_grad():
        ours = models.ours("vision", name).vision_model.forward_low_res(pixels, output_hidden_states=True)
        theirs = models.theirs("vision", name).vision_model.forward_low_res(pixels, output_hidden_states=True)
    assert models.relative_error(ours["x"], theirs["x"]) <= FLOAT32_ERROR
    assert len(ours["hidden_states"]) == len(theirs["hidden_states"])
    for mine, other in zip(ours["hidden_states"], theirs["hidden_states"]):
        assert models.relative_error(mine, other) <= FLOAT32_ERROR


def test_forward_low_res_alone():
    pixels = models.image(1, 100, 90)
    with torch.no_grad():
        ours = models.ours("vision", "tiny").vision_model.forward_low_res(pixels)
    assert ours["hidden_states"] is None and ours["output_kv_cache"] is None
    assert ours["x"].shape == (1, 192)


def test_format_features_into_feature_maps():
    entry = case("tiny", (2, 130, 100), num_look_close=2)
    ours = forward(models.ours("vision", "tiny"), entry, torch.float32)
    mine = models.ours("vision", "tiny").vision_model.format_features_into_feature_maps(
        ours.last_hidden_state, ours.selection_maps
    )
    other = models.theirs("vision", "tiny").vision_model.format_features_into_feature_maps(
        ours.last_hidden_state, ours.selection_maps
    )
    assert len(mine) == len(other) == 3
    for a, b in zip(mine, other):
        assert torch.equal(a, b)


def test_encoder_positional_call():
    """The order that training code uses: image, prompt, gt maps, is_global_text."""
    pixels, prompt = models.image(2, 90, 90), models.prompt(2, 192)
    gt = models.gt_maps(2, 12, 12, torch.float32)
    global_text = torch.tensor([[True], [False]])
    with torch.no_grad():
        ours = models.ours("vision", "tiny").vision_model(pixels, prompt, gt, global_text, pool_gt_token_only=True)
        theirs = models.theirs("vision", "tiny").vision_model(pixels, prompt, gt, global_text, pool_gt_token_only=True)
    assert_same_maps(ours, theirs)
    for name, tensor in tensors(theirs).items():
        assert models.relative_error(tensors(ours)[name], tensor) <= FLOAT32_ERROR


# ---- where the reference fails or differs ----------------------------------------------------------------------------


def test_both_arguments_and_two_looks():
    """The reference fails on an unset variable; ps3c says which of the two to give."""
    entry = case("tiny", (1, 96, 96), num_look_close=2, num_token_look_close=20)
    with pytest.raises(UnboundLocalError):
        forward(models.theirs("vision", "tiny"), entry, torch.float32)
    with pytest.raises(ValueError, match="num_look_close.*num_token_look_close"):
        forward(models.ours("vision", "tiny"), entry, torch.float32)


@pytest.mark.parametrize("looks", [1, 2])
def test_negative_last_quota(looks):
    """Quotas of 3, 13 and 54 limited to the first scale are 70, 1 and -1, on which the reference's top-k fails.
    ps3c takes none of the last scale and the deficit from the first: 69, 1, 0, still 70 a look."""
    entry = case("four_scales", (1, 96, 96), num_look_close=looks, only_select_first_n_scale=1)
    with pytest.raises(RuntimeError, match="out of range"):
        forward(models.theirs("vision", "four_scales"), entry, torch.float32)
    model = models.ours("vision", "four_scales")
    free = 16  # patches of the first high-res scale, all taken; what is missing goes to the next
    output = forward(model, entry, torch.float32)
    taken = [int(maps.sum()) for maps in output.selection_maps]
    assert taken == [free, 70 - free, 0]


def test_selection_without_remainder_is_the_wheels():
    """The correction of quotas is the only one: with quotas given, the uncorrected wheel agrees but for ties."""
    entry = case("given_quotas", (1, 96, 96), num_look_close=2)
    ours = forward(models.ours("vision", "given_quotas"), entry, torch.float32)
    assert [int(maps.sum()) for maps in ours.selection_maps] == [40, 10]

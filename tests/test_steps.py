"""Passes in steps: the bits of a whole pass, what each step says it did, early stops, steps that fail."""

import os

import emulated
import models
import pytest
import torch
from core_support import VISION, random_weights, vision_arguments

from ps3c import _core

ASAN = "PS3C_ASAN" in os.environ

# name: (model, size of the batch, arguments of steps, workspace_limit)
CASES = {
    "one image": ("no_highres", (1, 96, 96), dict(num_look_close=2), None),
    "one look a step": ("no_highres", (2, 96, 128), dict(num_look_close=3, looks_per_step=1), None),
    "two looks a step": ("no_highres", (1, 96, 96), dict(num_look_close="all", looks_per_step=2), None),
    "chunks of one image": ("no_highres", (3, 70, 96), dict(num_look_close=2), 1),
    "all": ("odd+no_highres", (2, 96, 96), dict(num_look_close="all"), None),
    "a short last look": ("no_highres", (2, 96, 96), dict(num_token_look_close=150), None),
    "a short only look": ("no_highres", (1, 96, 96), dict(num_token_look_close=5), None),
    "no look": ("no_highres", (2, 96, 64), dict(num_look_close=0), None),
    "no token": ("no_highres", (2, 96, 64), dict(num_token_look_close=0), None),
    "first scales": ("no_highres", (3, 96, 96), dict(num_look_close=2, only_select_first_n_scale=[1, 2, 1]), 1),
    "prompt": ("tiny", (2, 80, 96), dict(num_look_close=1, prompt=True), None),
    "ground truth": ("no_highres", (2, 96, 96), dict(num_look_close=2, gt=True, smooth_selection_prob=True), 1),
    "adapter": ("radio_v2+no_highres", (2, 64, 64), dict(num_look_close=2), None),
}
SMALL = ["a short last look", "first scales"]  # for the emulated device
HALVES = [torch.float16, torch.bfloat16]


def model_of(name: str, dtype: torch.dtype = torch.float32):
    """The vision tower; NAME+no_highres: without the convolution network, whose image has 1512 x 1512 pixels."""
    if name.endswith("+no_highres"):
        models.VISION.setdefault(name, {**models.VISION[name.split("+")[0]], "highres_selection_feature": False})
    return models.ours("vision", name, dtype).vision_model


@pytest.fixture
def limited(monkeypatch):
    """limited(encoder, limit, layers): sets both on the encoder until the test ends."""

    def set_on(encoder, limit, layers=2):
        monkeypatch.setattr(encoder, "workspace_limit", limit)
        monkeypatch.setattr(encoder, "num_hidden_layers_to_return", layers)
        return encoder

    return set_on


def inputs_of(case: str, dtype: torch.dtype = torch.float32):
    """(model's name, pixels, keyword arguments, workspace_limit)"""
    name, size, arguments, limit = CASES[case]
    arguments, (batch, _, _) = dict(arguments), size
    if arguments.pop("prompt", False):
        arguments["prompt"] = models.prompt(batch, 192).to(dtype)
    if arguments.pop("gt", False):
        arguments["gt_selection_maps"] = models.gt_maps(batch, 13, 17, torch.bool)
    return name, models.image(*size).to(dtype), arguments, limit


def forward(encoder, pixels, looks_per_step=0, **arguments):
    """The whole pass; how it is cut into steps is ignored."""
    return encoder(pixels, output_hidden_states=True, **arguments)


def assert_same(outputs: dict, whole):
    """A Steps' outputs are forward's, bit for bit."""
    assert ("selection_maps" in outputs) == (whole.selection_maps is not None)
    for name in ("hidden_states", "selection_probs", "selection_maps"):
        for index, (mine, theirs) in enumerate(zip(outputs.get(name, ()), getattr(whole, name) or (), strict=True)):
            assert torch.equal(mine, theirs), (name, index)


def check(case: str, limited, dtype: torch.dtype = torch.float32):
    """Bits, pooled vectors, and what the steps say of themselves."""
    name, pixels, arguments, limit = inputs_of(case, dtype)
    encoder = limited(model_of(name, dtype), limit)
    whole = forward(encoder, pixels, **arguments)
    steps = encoder.steps(pixels, pooled=True, **arguments)
    done = list(steps)
    assert len(done) == steps.count == len(steps.plan.steps)
    assert_same(steps.outputs, whole)
    assert torch.equal(steps.outputs["pooled"], encoder.forward_low_res(pixels)["x"])
    assert_partition(steps, done, pixels.shape[0])
    return steps, done


def assert_partition(steps, done, batch: int):
    """Chunks follow each other, a low resolution before its looks; rows are those that takes and maps speak of."""
    plan, low = steps.plan, steps.plan.low_res_tokens
    seen = torch.zeros(batch, low + plan.selected_tokens, dtype=torch.int64)
    next_look, images = plan.looks, range(0)
    for step in done:
        if not step.looks:
            assert next_look == plan.looks and step.images.start == images.stop and not step.rows
            next_look, images = 0, step.images
            continue
        assert step.images == images and step.looks.start == next_look and len(step.rows) == len(step.looks)
        next_look = step.looks.stop
        for look, rows in zip(step.looks, step.rows, strict=True):
            assert rows.dtype == torch.int64 and rows.shape[0] == len(images)
            for image, places in zip(images, rows, strict=True):
                assert places.tolist() == sorted(places.tolist())
                seen[image, places] += 1
                assert scales_of(steps, image, places) == list(plan.takes[image][look])
    assert next_look == plan.looks and images.stop == batch
    assert (seen[:, :low] == 0).all() and (seen[:, low:] == 1).all()


def scales_of(steps, image: int, places: torch.Tensor) -> list:
    """How many of an image's tokens belong to each high-res scale, by its selection maps."""
    ends = torch.tensor([int(maps[image].sum()) for maps in steps.outputs["selection_maps"]]).cumsum(0)
    scales = torch.bucketize(places - steps.plan.low_res_tokens, ends, right=True)
    return torch.bincount(scales, minlength=len(ends)).tolist()


@pytest.mark.parametrize("case", CASES)
def test_same_bits(case, limited):
    steps, done = check(case, limited)
    arguments, limit = CASES[case][2:]
    assert len([step for step in done if not step.looks]) == (CASES[case][1][0] if limit else 1)
    if "looks_per_step" in arguments:
        assert {len(step.looks) for step in done[1:-1]} == {arguments["looks_per_step"]}


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("case", ["one look a step", "chunks of one image"])
def test_same_bits_half(case, dtype, limited):
    check(case, limited, dtype)


@pytest.mark.skipif(bool(emulated.missing()), reason=emulated.missing())
@pytest.mark.skipif(ASAN, reason="the kernels' own tests run under sanitizers")
@pytest.mark.parametrize("case", SMALL)
def test_same_bits_cuda(case, limited):
    with emulated.device():
        check(case, limited)


def test_tokens_of_a_look_stand_where_its_rows_say(limited):
    """A look's features, placed by its rows alone, are the map that all of them make."""
    encoder = limited(model_of("no_highres"), None, layers=1)
    pixels = models.image(1, 96, 96)
    steps = encoder.steps(pixels, num_look_close="all", looks_per_step=1)
    gathered = torch.zeros_like(steps.outputs["hidden_states"][0])
    for step in steps:
        features = steps.outputs["hidden_states"][0]
        gathered[:, : steps.plan.low_res_tokens] = features[:, : steps.plan.low_res_tokens]
        for rows in step.rows:
            gathered[:, rows[0]] = features[:, rows[0]]
    assert torch.equal(gathered, forward(encoder, pixels, num_look_close="all").last_hidden_state)


# ---- stops, failures, neighbours ------------------------------------------------------------------------------------


def test_an_early_stop_leaves_what_is_done(limited):
    """Steps in the middle of others' passes; what did not run is not touched; the model serves on."""
    encoder = limited(model_of("no_highres"), None, layers=1)
    pixels, other = models.image(2, 96, 96), models.image(1, 64, 80)
    whole, alone = (forward(encoder, x, num_look_close=3) for x in (pixels, other))
    steps = encoder.steps(pixels, num_look_close=3, looks_per_step=1)
    steps.outputs["hidden_states"][0].fill_(7)
    low, done = steps.plan.low_res_tokens, []
    for step in steps:
        assert torch.equal(forward(encoder, other, num_look_close=3).last_hidden_state, alone.last_hidden_state)
        done.append(step)
        if step.looks == range(1, 2):
            break
    features, expected = steps.outputs["hidden_states"][0], whole.last_hidden_state
    written = torch.zeros(features.shape[:2], dtype=torch.bool)
    written[:, :low] = True
    for rows in done[1].rows + done[2].rows:
        written.scatter_(1, rows, True)
    assert torch.equal(features[written], expected[written]) and (features[~written] == 7).all()
    assert (~written).any()
    for mine, theirs in zip(steps.outputs["selection_probs"], whole.selection_probs, strict=True):
        assert torch.equal(mine, theirs)
    del steps, features
    assert torch.equal(forward(encoder, pixels, num_look_close=3).last_hidden_state, expected)


def test_two_iterators_take_turns(limited):
    encoder = limited(model_of("no_highres"), 1)
    batches = [models.image(2, 96, 96), models.image(3, 70, 64)]
    both = [encoder.steps(pixels, num_look_close=2) for pixels in batches]
    while sum(next(steps, None) is not None for steps in both):
        pass
    for pixels, steps in zip(batches, both, strict=True):
        assert_same(steps.outputs, forward(encoder, pixels, num_look_close=2))


class Stopped(Exception):
    pass


def test_a_step_that_raised_runs_again(limited):
    encoder = limited(model_of("no_highres"), None)
    pixels = models.image(1, 96, 96)
    steps = encoder.steps(pixels, num_look_close=2, looks_per_step=1)
    run, fail = steps._run, [True, False, True, False, True, False]

    def stop_half_way(**arguments):
        if fail.pop(0):
            steps.outputs["hidden_states"][0].fill_(float("nan"))
            raise Stopped
        run(**arguments)

    steps._run = stop_half_way
    for _ in range(steps.count):
        before = steps.outputs["hidden_states"][0].clone()
        with pytest.raises(Stopped):
            next(steps)
        steps.outputs["hidden_states"][0].copy_(before)
        next(steps)
    with pytest.raises(StopIteration):
        next(steps)
    assert_same(steps.outputs, forward(encoder, pixels, num_look_close=2))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(num_look_close=1, looks_per_step=-1), ValueError, "looks_per_step: got -1, expected 0 or more"),
        (dict(num_look_close=1, looks_per_step=1.5), TypeError, "looks_per_step: got 1.5"),
        (dict(), ValueError, "num_look_close, num_token_look_close: got neither"),
        (dict(num_look_close=-3), ValueError, "num_look_close: got -3"),
        (dict(num_look_close=1, prompt=torch.zeros(1, 5)), ValueError, "prompt: got shape"),
        (dict(num_look_close=1, only_select_first_n_scale=9), ValueError, "only_select_first_n_scale: got 9"),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:40],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        model_of("no_highres").steps(models.image(1, 64, 64), **arguments)


def test_gradients_are_refused():
    with pytest.raises(NotImplementedError, match="pixel_values"):
        model_of("no_highres").steps(models.image(1, 64, 64).requires_grad_(), num_look_close=1)


# ---- the engine's own -----------------------------------------------------------------------------------------------


def test_bad_step_numbers():
    plan, arguments = vision_arguments(_core)
    inputs = [arguments.pop("weights"), arguments.pop("pixel_values")]
    for step in (-1, len(plan.steps), 2**62):
        with pytest.raises(ValueError, match=f"step: got {step}, expected 0 to {len(plan.steps) - 1}"):
            plan.run(*inputs, **arguments, step=step)
    with pytest.raises(TypeError, match="step: got"):
        plan.run(*inputs, **arguments, step="first")
    for step in (-1, 0, len(plan.steps)):
        with pytest.raises(ValueError, match=f"step: got {step}, expected a step of looks"):
            plan.rows(step, 0)
    with pytest.raises(ValueError, match="looks_per_step: got -2"):
        _core.VisionModel(VISION).plan(1, 64, 64, num_look_close=1, looks_per_step=-2)


def test_looks_in_any_order_and_a_workspace_anywhere():
    """Looks of a chunk do not see each other. The table of rows is found wherever the workspace begins."""
    plan, arguments = vision_arguments(_core)
    inputs = [arguments.pop("weights"), arguments.pop("pixel_values")]
    plan.run(*inputs, **arguments)
    hidden = [layer.clone() for layer in arguments["hidden_states"]]
    plan = _core.VisionModel(VISION).plan(
        2, 128, 128, num_look_close=2, prompt=True, gt_maps=True, hidden_states=2, looks_per_step=1
    )
    assert plan.steps == [(0, 2, 0, 0), (0, 2, 0, 1), (0, 2, 1, 1)]
    for start in (0, 4, 252):
        memory = torch.empty(plan.workspace_bytes + start, dtype=torch.uint8)
        arguments["workspace"] = memory[start:]
        for layer in arguments["hidden_states"]:
            layer.fill_(float("nan"))
        found = []
        for step in (0, 2, 1, 2):
            plan.run(*inputs, **arguments, step=step)
        for step in (1, 2):
            offset, shape = plan.rows(step, arguments["workspace"].data_ptr())
            assert shape == (1, 2, sum(plan.takes[0][step - 1]))
            found.append(memory[start + offset :][: 4 * shape[1] * shape[2]].view(torch.int32).view(shape)[0])
        both = torch.cat(found, dim=1).sort(dim=1).values
        assert torch.equal(both, torch.arange(plan.selected_tokens, dtype=torch.int32).expand(2, -1))
        assert all(torch.equal(mine, whole) for mine, whole in zip(arguments["hidden_states"], hidden, strict=True))


@pytest.mark.parametrize("mode, steps", [("pretrain", [(0, 3, 0, 0), (0, 3, 0, 1)]), ("low_res", [(0, 3, 0, 0)])])
def test_other_modes_have_steps_too(mode, steps):
    model = _core.VisionModel(VISION)
    plan = model.plan(3, 64, 64, mode=mode, hidden_states=1)
    generator = torch.Generator().manual_seed(3)
    inputs = random_weights(model), torch.randn(3, 3, 64, 64, generator=generator)
    assert plan.steps == steps

    def outputs():
        def maps():
            return [torch.full((3, *grid), 7.0) for grid in plan.grids[1:]] if mode == "pretrain" else ()

        hidden = [torch.full((3, plan.low_res_tokens, 32), 7.0) for _ in range(plan.hidden_states)]
        named = dict(hidden_states=hidden, pooled=torch.full((3, 32), 7.0))
        for name in ("selection_maps", "selection_probs", "bottomup_probs"):
            named[name] = maps()
        return named

    workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8)
    whole, stepped = outputs(), outputs()
    plan.run(*inputs, **whole, workspace=workspace)
    for step in range(len(steps)):
        plan.run(*inputs, **stepped, workspace=workspace, step=step)
    assert torch.equal(stepped["pooled"], whole["pooled"]) and not (whole["pooled"] == 7).any()
    for name in ("selection_maps", "selection_probs", "hidden_states"):
        assert all(map(torch.equal, stepped[name], whole[name])), name


def test_a_short_last_chunk_fits_its_workspace():
    """Fewer images leave room for more looks together: 4 x 1000 tokens, where a whole chunk has 3 x 1089."""
    model = _core.VisionModel(
        dict(VISION, depth=1, select_layers=[0], scales=[264, 528], max_select_num=[1000], separate_positions=False)
    )
    weights = random_weights(model)
    pixels = torch.randn(4, 3, 264, 264, generator=torch.Generator().manual_seed(4))

    def features(images):
        batch = len(images)
        plan = model.plan(batch, 264, 264, num_look_close=4)
        hidden = torch.empty(batch, plan.low_res_tokens + plan.selected_tokens, 32)
        maps, probs = ([torch.empty(batch, *grid) for grid in plan.grids[1:]] for _ in range(2))
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8)
        outputs = dict(hidden_states=[hidden], selection_maps=maps, selection_probs=probs)
        plan.run(weights, images, **outputs, workspace=workspace)
        return plan.steps, hidden

    steps, together = features(pixels)
    assert steps[0][1] == 3 and steps[-1] == (3, 1, 0, 4)
    assert torch.equal(together[3:], features(pixels[3:])[1])

"""Recorders of torch see none of the engine's work: a pass is refused by name while one is active."""

import io

import models
import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

IDS = torch.ones(1, 8, dtype=torch.int64)


class Vision(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = models.ours("vision", "tiny")

    def forward(self, pixels):
        return self.model(pixels, num_look_close=1).last_hidden_state


class LowRes(Vision):
    def forward(self, pixels):
        return self.model.vision_model.forward_low_res(pixels)["x"]


class Stepwise(Vision):
    """The iterator is made before the recording: only its steps are inside."""

    def __init__(self):
        super().__init__()
        self.steps = self.model.vision_model.steps(models.image(1, 64, 64), num_look_close=0)

    def forward(self, pixels):
        next(self.steps)
        return pixels + self.steps.outputs["hidden_states"][-1].sum()


class Text(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = models.ours("text", "siglip2")

    def forward(self, ids):
        return self.model(ids).prompt


TOWERS = {
    "vision": (Vision, models.image(1, 64, 64)),
    "low_res": (LowRes, models.image(1, 64, 64)),
    "steps": (Stepwise, models.image(1, 64, 64)),
    "text": (Text, IDS),
}


def traced(tower, value):
    torch.jit.trace(tower, value, check_trace=False)


def exported(tower, value):
    if torch.__version__ < "2.5":
        pytest.skip("dynamo=False has no name yet")
    torch.onnx.export(tower, (value,), io.BytesIO(), dynamo=False)


def fx(**options):
    return lambda tower, value: make_fx(tower, **options)(value)


RECORDERS = {
    "jit.trace": (traced, "torch.jit.trace"),
    "onnx": (exported, "torch.jit.trace"),
    "make_fx": (fx(), "make_fx"),
    "make_fx pre_dispatch": (fx(pre_dispatch=True), "make_fx"),
    "make_fx fake": (fx(tracing_mode="fake"), "make_fx|FakeTensorMode"),
    "make_fx symbolic": (fx(tracing_mode="symbolic"), "make_fx|FakeTensorMode"),
}


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("name", TOWERS)
def test_recorders_are_refused(name, recorder, grad):
    record, word = RECORDERS[recorder]
    kind, value = TOWERS[name]
    tower = kind().eval()
    with torch.set_grad_enabled(grad), pytest.raises(NotImplementedError, match=f"^({word}): got a pass of ps3c"):
        record(tower, value)
    with torch.no_grad():
        assert tower(value).isfinite().all()  # nothing of the recording is left


def test_a_pass_on_constants_is_refused_too():
    """The traced input is not the model's: a recording would keep the model's outputs as uninitialised constants."""
    tower, pixels = Vision(), models.image(1, 64, 64)
    with torch.no_grad(), pytest.raises(NotImplementedError, match="make_fx"):
        make_fx(lambda x: x + tower(pixels).sum())(torch.ones(1))


def test_torch_compile_computes():
    tower, pixels = Vision(), models.image(1, 64, 64)
    with torch.no_grad():
        assert torch.equal(torch.compile(tower, backend="eager")(pixels), tower(pixels))


@pytest.mark.parametrize("name", ["pixel_values", "prompt", "gt_selection_maps", "weights"])
def test_tangents_are_not_lost(name):
    model = models.build_ours("vision", "tiny")
    arguments = {
        "pixel_values": models.image(1, 64, 64),
        "prompt": models.prompt(1, 192),
        "gt_selection_maps": torch.ones(1, 8, 8),
    }
    with torch.no_grad(), forward_ad.dual_level():
        model(**arguments, num_look_close=1)  # inside a level, without tangents
        if name == "weights":
            weight = model.vision_model.trunk.blocks[1].norm1.weight
            call = lambda: torch.func.functional_call(  # noqa: E731
                model,
                {"vision_model.trunk.blocks.1.norm1.weight": forward_ad.make_dual(weight, torch.ones_like(weight))},
                (),
                {**arguments, "num_look_close": 1},
            )
        else:
            value = arguments[name]
            arguments[name] = forward_ad.make_dual(value, torch.ones_like(value))
            call = lambda: model(**arguments, num_look_close=1)  # noqa: E731
        with pytest.raises(NotImplementedError, match=f"^{name}: got a dual tensor"):
            call()


class Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise RuntimeError(f"not allowed here: {function}")


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["vision", "text"])
def test_the_error_of_a_dispatch_mode_is_passed_on(name):
    kind, value = TOWERS[name]
    tower = kind()
    with torch.no_grad():
        expected = tower(value)
        with Passing():
            assert torch.equal(tower(value), expected)
        with Refusing(), pytest.raises(RuntimeError, match="not allowed here: aten.empty"):
            tower(value)
        assert torch.equal(tower(value), expected)

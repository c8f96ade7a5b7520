"""What the tests of ps3c._core share: instances of the module by route, tiny models and all that their runs need."""

import importlib.machinery
import importlib.util

import pytest
import torch

from ps3c import _core as installed

HAS_EXCHANGE = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")  # torch 2.10 and later


def load_core(monkeypatch, dlpack):
    """A second instance of the extension module, with state of its own."""
    monkeypatch.setenv("PS3C_DLPACK", dlpack)
    loader = importlib.machinery.ExtensionFileLoader("ps3c._core", installed.__file__)
    core = importlib.util.module_from_spec(importlib.util.spec_from_loader("ps3c._core", loader))
    loader.exec_module(core)
    return core


@pytest.fixture(params=["exchange", "managed", "capsule"])
def route(request):
    """How torch lends its tensors: dlpack.c."""
    if request.param != "capsule" and not HAS_EXCHANGE:
        pytest.skip("this torch has no C exchange API")
    return request.param


@pytest.fixture
def core(route, monkeypatch):
    return load_core(monkeypatch, route)


@pytest.fixture
def operations(route, monkeypatch):
    """The tests' extension, whose TensorView borrows by the route."""
    from operations import load  # builds it: only tests that ask for it need it

    monkeypatch.setenv("PS3C_DLPACK", route)
    return load()


VISION = dict(
    width=32,
    depth=2,
    heads=2,
    mlp_hidden=64,
    patch=8,
    grid=4,
    norm_eps=1e-6,
    crop_positions=False,
    final_norm=True,
    scales=[32, 64, 128],
    max_select_num=[10, 40],
    separate_positions=True,
    select_layers=[0, 1],
    highres_features=False,
    adapter="none",
    pool_width=32,
    pool_heads=2,
    pool_hidden=64,
    pool_eps=1e-6,
)
TEXT = dict(
    width=32,
    depth=2,
    heads=2,
    mlp_hidden=64,
    context_length=8,
    vocab_size=50,
    output_dim=24,
    prompt_dim=32,
    norm_eps=1e-6,
    causal=False,
    class_token=False,
    pad_id=1,
    layer_scale=False,
    tanh_gelu=False,
    projection_linear=True,
    projection_bias=True,
    pool="last",
)


def random_weights(model, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(shape, generator=generator) * 0.2).to(dtype) for _, shape in model.weights]


def vision_arguments(core, config=None, **changes):
    """A VisionPlan and all that its run wants. config: changes of VISION."""
    model = core.VisionModel({**VISION, **(config or {})})
    plan = model.plan(2, 128, 128, num_look_close=2, prompt=True, gt_maps=True, hidden_states=2)
    generator = torch.Generator().manual_seed(2)

    def maps():
        return [torch.full((2, h, w), 7.0) for h, w in plan.grids[1:]]

    arguments = dict(
        weights=random_weights(model),
        pixel_values=torch.randn(2, 3, 128, 128, generator=generator),
        prompt=torch.randn(2, 32, generator=generator),
        gt_maps=torch.zeros(2, 6, 5),
        hidden_states=[torch.empty(2, plan.low_res_tokens + plan.selected_tokens, 32) for _ in range(2)],
        selection_maps=maps(),
        selection_probs=maps(),
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8),
    )
    arguments.update(changes)
    return plan, arguments


def text_arguments(core):
    model = core.TextModel(TEXT)
    plan = model.plan(3, 8)
    return plan, dict(
        weights=random_weights(model),
        ids=torch.arange(24).reshape(3, 8),
        pooled=torch.full((3, 24), float("nan")),
        prompt=torch.full((3, 32), float("nan")),
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8),
    )


def run(plan, arguments):
    first, second = ("weights", "pixel_values") if "pixel_values" in arguments else ("weights", "ids")
    rest = {key: value for key, value in arguments.items() if key not in (first, second)}
    plan.run(arguments[first], arguments[second], **rest)
    return arguments["hidden_states"][-1] if "hidden_states" in arguments else arguments["pooled"]

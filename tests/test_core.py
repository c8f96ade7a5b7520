"""ps3c._core: runs on tiny models, what they refuse, plans, configurations, parameters by name."""

import copy
import gc
import resource
import signal
import sys
import threading
import time
import types
import weakref

import numpy as np
import pytest
import torch
from core_support import TEXT, VISION, core, random_weights, route, run, text_arguments, vision_arguments  # noqa: F401
from torch import nn

from ps3c import _core as installed

# ---- runs ------------------------------------------------------------------------------------------------------------


def test_vision_run(core):
    plan, arguments = vision_arguments(core)
    features = run(plan, arguments)
    assert torch.isfinite(features).all() and features.std() > 0.1
    assert [int(m.sum()) for m in arguments["selection_maps"]] == [2 * sum(t) for t in zip(*plan.takes[0])]
    assert all(((p > 0) & (p < 1)).all() for p in arguments["selection_probs"])
    again, arguments = vision_arguments(core, pixel_values=arguments["pixel_values"].permute(3, 2, 1, 0).contiguous())
    arguments["pixel_values"] = arguments["pixel_values"].permute(3, 2, 1, 0)  # the same values, strided
    assert torch.equal(run(again, arguments), features)


def test_text_run(core):
    plan, arguments = text_arguments(core)
    pooled = run(plan, arguments).clone()
    assert torch.isfinite(pooled).all() and torch.isfinite(arguments["prompt"]).all()
    arguments["ids"] = arguments["ids"].repeat_interleave(2, dim=1)[:, ::2]
    assert torch.equal(run(plan, arguments), pooled)


def replaced(index, value):
    def change(arguments):
        arguments["weights"] = list(arguments["weights"])
        arguments["weights"][index] = value(arguments["weights"][index])

    return change


def assigned(name, value):
    def change(arguments):
        arguments[name] = value(arguments[name]) if callable(value) else value

    return change


def item(name, index, value):
    def change(arguments):
        arguments[name] = list(arguments[name])
        arguments[name][index] = value(arguments[name][index])

    return change


# change, exception, message: what came and what was expected
VISION_FAULTS = {
    "weights missing": (assigned("weights", lambda w: w[:-1]), ValueError, r"weights: got \d+ tensors, expected \d+"),
    "weights not a list": (assigned("weights", 3), TypeError, "weights: got int, expected a sequence of tensors"),
    "weight shape": (
        replaced(0, lambda w: w[:, 1:]),
        ValueError,
        r"weight trunk.pos_embed: got shape \(1, 15, 32\), expected \(1, 16, 32\)",
    ),
    "weight rank": (replaced(0, lambda w: w[0]), ValueError, r"weight trunk.pos_embed: got shape \(16, 32\)"),
    "weight dtype": (
        replaced(0, lambda w: w.half()),
        TypeError,
        "weight trunk.pos_embed: got float16, expected float32",
    ),
    "weight device": (replaced(0, lambda w: w.to("meta")), TypeError, "weight trunk.pos_embed: .*meta"),
    "weight strides": (
        replaced(0, lambda w: w.transpose(1, 2).contiguous().transpose(1, 2)),
        TypeError,
        "weight trunk.pos_embed: got strides .*, expected a contiguous tensor",
    ),
    "weight kind": (
        replaced(0, lambda w: None),
        TypeError,
        "weight trunk.pos_embed: got NoneType, expected a torch.Tensor",
    ),
    "pixels rank": (
        assigned("pixel_values", lambda x: x[0]),
        ValueError,
        r"pixel_values: got shape \(3, 128, 128\), expected \(2, 3, 128, 128\)",
    ),
    "pixels channels": (assigned("pixel_values", lambda x: x[:, :1]), ValueError, r"got shape \(2, 1, 128, 128\)"),
    "pixels dtype": (
        assigned("pixel_values", lambda x: x.bfloat16()),
        TypeError,
        "pixel_values: got bfloat16, expected float32",
    ),
    "pixels meta": (assigned("pixel_values", lambda x: x.to("meta")), TypeError, "pixel_values: .*meta"),
    "prompt missing": (assigned("prompt", None), ValueError, "prompt: got no tensor, expected one"),
    "prompt width": (
        assigned("prompt", lambda x: x[:, :31]),
        ValueError,
        r"prompt: got shape \(2, 31\), expected \(2, 32\)",
    ),
    "prompt list": (assigned("prompt", [[1.0]]), TypeError, "prompt: got list, expected a torch.Tensor"),
    "gt rank": (
        assigned("gt_maps", lambda x: x[0]),
        ValueError,
        r"gt_maps: got shape \(6, 5\), expected \(2, any, any\)",
    ),
    "gt complex": (assigned("gt_maps", lambda x: x.to(torch.complex64)), TypeError, "gt_maps: .*complex"),
    "global text": (assigned("global_text", torch.zeros(2, 1)), ValueError, "global_text: got a tensor, expected none"),
    "hidden count": (
        assigned("hidden_states", lambda x: x[:1]),
        ValueError,
        "hidden_states: got 1 tensors, expected 2",
    ),
    "hidden shape": (item("hidden_states", 1, lambda x: x[:, 1:]), ValueError, r"hidden_states\[1\]: got shape"),
    "hidden strides": (
        item("hidden_states", 1, lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)),
        TypeError,
        r"hidden_states\[1\]: got strides .*, expected a contiguous tensor",
    ),
    "maps none": (assigned("selection_maps", None), ValueError, "selection_maps: got 0 tensors, expected 2"),
    "maps swapped": (assigned("selection_maps", lambda x: x[::-1]), ValueError, r"selection_maps\[0\]: got shape"),
    "probs dtype": (
        item("selection_probs", 0, lambda x: x.double()),
        TypeError,
        r"selection_probs\[0\]: got float64, expected float32",
    ),
    "probs of the other mode": (
        assigned("bottomup_probs", lambda x: [torch.zeros(2, 8, 8)]),
        ValueError,
        "bottomup_probs: got 1 tensors, expected 0",
    ),
    "pooled unwanted": (
        assigned("pooled", lambda x: torch.zeros(2, 32)),
        ValueError,
        "pooled: got a tensor, expected none",
    ),
    "workspace small": (
        assigned("workspace", lambda x: x[:-1]),
        ValueError,
        r"workspace: got \d+ bytes, expected \d+ or more",
    ),
    "workspace dtype": (
        assigned("workspace", lambda x: x.view(torch.int8)),
        TypeError,
        "workspace: got int8, expected uint8",
    ),
    "threads": (assigned("threads", -1), ValueError, "threads: got -1, expected 0 to"),
    "level": (assigned("level", "sse9"), ValueError, "sse9"),
}


@pytest.mark.parametrize("fault", VISION_FAULTS)
def test_vision_faults(core, fault):
    change, exception, message = VISION_FAULTS[fault]
    plan, arguments = vision_arguments(core, global_text=None, bottomup_probs=(), pooled=None, threads=0, level=None)
    good = run(plan, arguments).clone()
    bad = dict(arguments)
    change(bad)
    with pytest.raises(exception, match=message):
        run(plan, bad)
    assert torch.equal(run(plan, arguments), good)


TEXT_FAULTS = {
    "ids dtype": (assigned("ids", lambda x: x.int()), TypeError, "ids: got int32, expected int64"),
    "ids shape": (assigned("ids", lambda x: x[:, 1:]), ValueError, r"ids: got shape \(3, 7\), expected \(3, 8\)"),
    "ids range": (assigned("ids", lambda x: x + 40), ValueError, "ids"),
    "ids negative": (assigned("ids", lambda x: x - 1), ValueError, "ids"),
    "pooled shape": (assigned("pooled", lambda x: x[:1]), ValueError, r"pooled: got shape .*, expected \(3, 24\)"),
    "prompt dtype": (assigned("prompt", lambda x: x.half()), TypeError, "prompt: got float16, expected float32"),
    "weight": (
        replaced(-1, lambda w: w[:1]),
        ValueError,
        r"weight prompt_proj.fc2.bias: got shape \(1,\), expected \(32,\)",
    ),
}


@pytest.mark.parametrize("fault", TEXT_FAULTS)
def test_text_faults(core, fault):
    change, exception, message = TEXT_FAULTS[fault]
    plan, arguments = text_arguments(core)
    good = run(plan, arguments).clone()
    bad = dict(arguments)
    change(bad)
    with pytest.raises(exception, match=message):
        run(plan, bad)
    assert torch.equal(run(plan, arguments), good)


def test_missing_arguments():
    plan, arguments = vision_arguments(installed)
    del arguments["workspace"]
    with pytest.raises(TypeError, match="got no 'workspace', expected a value"):
        run(plan, arguments)
    plan, arguments = text_arguments(installed)
    with pytest.raises(TypeError, match="got no 'prompt', expected a value"):
        plan.run(arguments["weights"], arguments["ids"], pooled=arguments["pooled"], workspace=arguments["workspace"])


def test_runs_keep_nothing(core):
    plan, arguments = vision_arguments(core)
    arrays = [w.numpy().copy() for w in arguments["weights"]]
    arguments["weights"] = [torch.from_numpy(a) for a in arrays]
    bad = dict(arguments, workspace=arguments["workspace"][:1])
    before = [sys.getrefcount(a) for a in arrays], [sys.getrefcount(w) for w in arguments["weights"]]
    for _ in range(3):
        run(plan, arguments)
        with pytest.raises(ValueError):
            run(plan, bad)
    assert before == ([sys.getrefcount(a) for a in arrays], [sys.getrefcount(w) for w in arguments["weights"]])
    del arguments, bad
    gc.collect()
    assert [sys.getrefcount(a) for a in arrays] == [count - 1 for count in before[0]]


def test_weights_may_go_during_a_run(core):
    """Another thread drops every weight from the list, and reuses its memory, while a run reads it."""
    plan, arguments = vision_arguments(core)
    expected = run(plan, arguments).clone()
    weights = arguments["weights"]
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            for i in range(len(weights)):
                weights[i] = weights[i].clone()
                torch.full_like(weights[i], float("nan"))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(30):
            assert torch.equal(run(plan, arguments), expected)
    finally:
        stop.set()
        thread.join()


def test_threads_share_a_plan(core):
    plan, arguments = vision_arguments(core)
    expected = run(plan, arguments).clone()
    failures = []

    def work():
        own = dict(arguments, workspace=torch.empty_like(arguments["workspace"]))
        for name in ("hidden_states", "selection_maps", "selection_probs"):
            own[name] = [torch.empty_like(t) for t in arguments[name]]
        for _ in range(5):
            if not torch.equal(run(plan, own), expected):
                failures.append("different")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_plan_outlives_model():
    plan, arguments = vision_arguments(installed)
    gc.collect()
    run(plan, arguments)


def test_interrupt():
    """Ctrl-C during a long run raises KeyboardInterrupt soon; the plan works afterwards."""
    config = dict(
        VISION, width=128, heads=2, mlp_hidden=512, pool_width=128, pool_hidden=512, depth=6, select_layers=[5]
    )
    model = installed.VisionModel(config)
    plan = model.plan(2, 128, 128, num_look_close="all")
    tokens = plan.low_res_tokens + plan.selected_tokens

    def maps():
        return [torch.empty(2, h, w) for h, w in plan.grids[1:]]

    arguments = dict(
        weights=random_weights(model),
        pixel_values=torch.zeros(2, 3, 128, 128),
        hidden_states=[torch.empty(2, tokens, 128)],
        selection_maps=maps(),
        selection_probs=maps(),
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8),
    )
    started = time.monotonic()
    run(plan, dict(arguments, level="naive", threads=1))
    whole = time.monotonic() - started
    timer = threading.Timer(0.1 * whole, signal.raise_signal, [signal.SIGINT])
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(plan, dict(arguments, level="naive", threads=1))
    assert time.monotonic() - started < 0.7 * whole
    timer.join()
    run(plan, arguments)
    assert torch.isfinite(arguments["hidden_states"][0]).all()


# ---- configurations and plans ----------------------------------------------------------------------------------------


class Unprintable(int):
    def __repr__(self):
        raise ValueError("too many digits")


class Interrupting(int):
    def __repr__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "change, exception, message",
    [
        ({"width": None}, TypeError, r"config\['width'\]: got NoneType, expected an integer"),
        ({"width": 32.0}, TypeError, r"config\['width'\]: got float, expected an integer"),
        (
            {"width": 1 << 70},
            ValueError,
            r"config\['width'\]: got 1180591620717411303424, expected an integer of 64 bits",
        ),
        ({"norm_eps": "x"}, TypeError, r"config\['norm_eps'\]: got str, expected a number"),
        ({"scales": 3}, TypeError, r"config\['scales'\]: got int, expected a list of integers"),
        ({"scales": list(range(17))}, ValueError, r"config\['scales'\]: got 17 entries, expected at most 16"),
        (
            {"max_select_num": [1]},
            ValueError,
            r"config\['max_select_num'\]: got 1 entries, expected 2, one for each scale",
        ),
        ({"adapter": "v3"}, ValueError, r"config\['adapter'\]: got 'v3', expected one of 'none', 'v1', 'v2'"),
        ({"adapter": 1}, TypeError, r"config\['adapter'\]: got int, expected a str"),
        ({"num_scales": 2}, ValueError, r"config\['num_scales'\]: got 2, expected 3, the length of the list"),
        ({"colour": 1}, ValueError, "config: got unknown name 'colour'"),
        ({"heads": 5}, ValueError, "heads"),
        (
            {"patch": 1, "scales": [32, 64, 1 << 16]},
            ValueError,
            r"scales: got 65536 for a patch size of 1, expected 2\^31 - 1 patches or less",
        ),
        ({"crop_positions": True, "grid": 7}, ValueError, "grid: got 7 with crop_positions, expected 16 or more"),
        ({"scales": [32, 128, 64]}, ValueError, "scales: got 64 after 128, expected ascending sizes"),
        ({"max_select_num": [0, 0]}, ValueError, "max_select_num: got only zeros, expected patches to take"),
        ({"pool_width": 64}, ValueError, "width: got 32, expected 64, the width of the attention pool that reads it"),
        ({"norm_eps": 10**400}, ValueError, r"config\['norm_eps'\]: got .*, expected a number in the range of float64"),
        (
            {"crop_positions": np.zeros(2)},
            TypeError,
            r"config\['crop_positions'\]: got ndarray, expected True or False",
        ),
        (
            {"width": Unprintable(1 << 70)},
            ValueError,
            "got a .*Unprintable that cannot be printed, expected an integer",
        ),
        ({"width": Interrupting(1 << 70)}, KeyboardInterrupt, None),
    ],
)
def test_config_faults(change, exception, message):
    with pytest.raises(exception, match=message):
        installed.VisionModel({**VISION, **change})


def test_config_missing_key():
    with pytest.raises(ValueError, match="config: got no 'depth', expected a value"):
        installed.VisionModel({key: value for key, value in VISION.items() if key != "depth"})
    with pytest.raises(TypeError, match="config: got list, expected a dict"):
        installed.TextModel([])


class Shrinking:
    """Says that it has two entries, and has none."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise IndexError(index)


@pytest.mark.parametrize(
    "change, exception, message",
    [
        ({"num_look_close": -1}, ValueError, "num_look_close: got -1, expected None"),
        ({"num_look_close": -2}, ValueError, "num_look_close: got -2, expected None"),
        ({"num_look_close": 1.5}, TypeError, "num_look_close: got float, expected None, 'all' or an integer"),
        ({"num_look_close": "some"}, ValueError, "num_look_close: got 'some', expected None"),
        ({"num_token_look_close": [3]}, TypeError, "num_token_look_close: got list, expected None"),
        ({"first_n_scales": [1]}, ValueError, "first_n_scales: got 1 entries, expected 2, one for each"),
        ({"first_n_scales": 1}, TypeError, "first_n_scales: got int, expected None or a sequence"),
        ({"first_n_scales": [1, 9]}, ValueError, "first_n_scales: got 9, expected 1 to 2"),
        ({"dtype": "int8"}, ValueError, "dtype: got 'int8', expected one of 'float32', 'float16', 'bfloat16'"),
        ({"device": ("tpu", 0)}, ValueError, "device: got 'tpu', expected one of 'cpu', 'cuda'"),
        ({"device": "cpu"}, TypeError, "device: got 'cpu', expected a tuple"),
        ({"device": ("cpu", 1)}, ValueError, r"device: got \('cpu', 1\), expected"),
        ({"mode": "train"}, ValueError, "mode: got 'train', expected one of"),
        ({"workspace_limit": -1}, ValueError, "workspace_limit: got -1, expected 0 to"),
        ({"hidden_states": 9}, ValueError, "hidden_states: got 9, expected 1 to 2"),
        ({"first_n_scales": Shrinking()}, ValueError, "first_n_scales: got a sequence that changed during reading"),
        ({"batch": 2}, TypeError, "got 'batch' by position and by name, expected it once"),
    ],
)
def test_plan_faults(change, exception, message):
    model = installed.VisionModel(VISION)
    arguments = {**({} if "num_token_look_close" in change else {"num_look_close": 1}), **change}
    with pytest.raises(exception, match=message):
        model.plan(2, 128, 128, **arguments)
    assert model.plan(2, 128, 128, num_look_close=1).looks == 1


def test_plan_sizes():
    model = installed.VisionModel(VISION)
    for sizes, message in [
        ((0, 128), "height: got 0, expected 1 to"),
        ((128, 1 << 31), "width: got 2147483648, expected 1 to"),
        ((1 << 21, 1 << 20), r"height: got 2097152 for a width of 1048576, expected 2\^40 pixels or less"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.plan(1, *sizes, num_look_close=1)
    with pytest.raises(TypeError, match="got 30 positional arguments, expected at most"):
        model.plan(*[1] * 30)


def test_select_layers_from_the_end():
    """-1 is the last block, as in ps3-torch."""
    features = []
    for layers in ([0, 1], [-2, -1]):
        plan, arguments = vision_arguments(installed, config={"select_layers": layers})
        features.append(run(plan, arguments))
    assert torch.equal(*features)


@pytest.mark.parametrize(
    "name, value, exception, message",
    [
        ("level", 3, TypeError, "level: got int, expected a str or None"),
        ("level", "avx2\0", ValueError, r"level: got 'avx2\\x00', expected a name"),
        ("level", "\udc80", ValueError, r"level: got '\\udc80', expected a name"),
        ("stream", "x", TypeError, "stream: got str, expected an integer"),
        ("stream", 1 << 70, ValueError, "stream: got 1180591620717411303424, expected an address"),
    ],
)
def test_run_settings(name, value, exception, message):
    plan, arguments = vision_arguments(installed)
    with pytest.raises(exception, match=message):
        run(plan, {**arguments, name: value})
    assert torch.isfinite(run(plan, arguments)).all()


def test_rows_of_a_step():
    plan, arguments = vision_arguments(installed)
    with pytest.raises(TypeError, match="step: got str, expected an integer"):
        plan.rows("first", arguments["workspace"].data_ptr())


def test_text_groups():
    """Texts run in groups that fit into the limit; the bits are the same."""
    model = installed.TextModel(TEXT)
    plans = [model.plan(16, 8, workspace_limit=limit) for limit in (0, 1)]
    assert plans[1].workspace_bytes < plans[0].workspace_bytes and plans[0].pooled_tokens == 1
    results = []
    for plan in plans:
        arguments = text_arguments(installed)[1]
        arguments["ids"] = torch.arange(16 * 8).reshape(16, 8) % 50
        arguments["pooled"], arguments["prompt"] = torch.empty(16, 24), torch.empty(16, 32)
        arguments["workspace"] = torch.empty(plan.workspace_bytes, dtype=torch.uint8)
        results.append(run(plan, arguments).clone())
    assert torch.equal(*results)


def test_models_and_plans_are_closed():
    plan, _ = vision_arguments(installed)
    for cls in (installed.VisionPlan, installed.TextPlan):
        with pytest.raises(TypeError):
            cls()
    with pytest.raises(AttributeError):
        plan.looks = 3
    with pytest.raises(TypeError):
        copy.deepcopy(plan)
    with pytest.raises(TypeError):
        type("Mine", (installed.VisionModel,), {})


@pytest.mark.parametrize("batch", [1 << 28, (1 << 31) - 1, 1 << 31, 1 << 55])
def test_no_memory_for_a_plan(batch):
    """An expanded tensor can have any batch: it is refused before the plan takes memory for each image."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MemoryError if batch < 1 << 31 else ValueError):
        installed.VisionModel(VISION).plan(batch, 128, 128, num_look_close=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


# ---- parameters by name ----------------------------------------------------------------------------------------------


def small_module():
    module = nn.Module()
    module.first = nn.Linear(2, 3)
    module.inner = nn.Module()
    module.inner.norm = nn.LayerNorm(3)
    module.scale = nn.Parameter(torch.ones(1))
    return module


NAMES = ["inner.norm.bias", "scale", "first.weight", "inner.norm.weight"]


def same_objects(found, module):
    return all(a is module.get_parameter(name) for a, name in zip(found, NAMES, strict=True))


def test_parameters_in_order():
    module = small_module()
    parameters = installed.Parameters(module, NAMES)
    assert same_objects(parameters.collect(), module)
    assert parameters.module is module and parameters.names == tuple(NAMES)


def test_parameters_follow_changes():
    module = small_module()
    parameters = installed.Parameters(module, NAMES)
    module.first.weight = nn.Parameter(torch.zeros(3, 2))
    assert same_objects(parameters.collect(), module)
    module.inner.norm = nn.LayerNorm(3)
    assert same_objects(parameters.collect(), module)
    other = nn.Module()
    other.norm = nn.LayerNorm(3)
    module.inner = other
    assert same_objects(parameters.collect(), module)
    module.half()
    assert same_objects(parameters.collect(), module) and parameters.collect()[1].dtype == torch.float16


def test_parameters_missing():
    module = small_module()
    parameters = installed.Parameters(module, NAMES)
    for break_it, message in [
        (lambda: delattr(module.first, "weight"), "Module has no parameter 'first.weight'"),
        (lambda: delattr(module.inner, "norm"), "Module has no parameter 'inner.norm.bias'"),
        (lambda: setattr(module, "inner", None), "Module has no parameter 'inner.norm.bias'"),
    ]:
        break_it()
        with pytest.raises(AttributeError, match=message):
            parameters.collect()
        module.first, module.inner = small_module().first, small_module().inner
        assert same_objects(parameters.collect(), module)
    module.first.weight = None
    with pytest.raises(TypeError, match="parameter 'first.weight' of Module: got None, expected a tensor"):
        parameters.collect()
    with pytest.raises(AttributeError, match="no parameter 'first.colour'"):
        installed.Parameters(module, ["first.colour"]).collect()
    with pytest.raises(TypeError, match="names: got int at 0, expected str"):
        installed.Parameters(module, [1])
    with pytest.raises((TypeError, AttributeError)):
        installed.Parameters(3, NAMES)
    with pytest.raises(TypeError, match="whose _modules is a int, expected a torch.nn.Module"):
        installed.Parameters(types.SimpleNamespace(_modules=3, _parameters={}), NAMES).collect()


def test_parameters_parametrized():
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    module = small_module()
    parameters = installed.Parameters(module, NAMES)
    plain = module.first.weight.detach().clone()
    nn.utils.parametrize.register_parametrization(module.first, "weight", Double())
    assert torch.equal(parameters.collect()[2], 2 * plain)


def test_parameters_check():
    module, seen = small_module(), []

    def check(path, child):
        seen.append(path)
        if isinstance(child, nn.Identity):
            raise ValueError(f"{path} is not what it was")

    parameters = installed.Parameters(module, NAMES, check)
    assert seen == ["inner", "inner.norm", "first"]
    parameters.collect()
    assert len(seen) == 3  # only when first met
    module.inner.norm = nn.Identity()
    with pytest.raises(ValueError, match="inner.norm is not what it was"):
        parameters.collect()


def test_parameters_watch_what_the_check_names():
    """A check returns (holder, attribute) pairs; it runs again when one changes, also one that appears."""
    module, seen = small_module(), []

    def check(path, child):
        seen.append(path)
        return [(child, "colour")]

    parameters = installed.Parameters(module, NAMES, check)
    parameters.collect()
    count = len(seen)
    parameters.collect()
    assert len(seen) == count
    module.first.colour = "red"
    parameters.collect()
    assert len(seen) > count
    for pairs in ([3], [("holder",)], [(module, 3)]):
        with pytest.raises(TypeError, match=r"(?s)check: got .*, expected \(holder, key\)"):
            installed.Parameters(module, NAMES, lambda path, child, pairs=pairs: pairs).collect()


def test_parameters_die_with_their_module():
    gone = []
    module = small_module()
    module.found = installed.Parameters(module, NAMES)  # a cycle
    module.inner.register_buffer("x", torch.zeros(1))
    weakref.finalize(module, gone.append, True)
    del module
    gc.collect()
    assert gone == [True]


def test_parameters_are_not_copied():
    with pytest.raises(TypeError):
        copy.deepcopy(installed.Parameters(small_module(), NAMES))


# ---- levels ----------------------------------------------------------------------------------------------------------


def test_levels():
    levels = installed.cpu_levels()
    assert levels[-2:] == ["portable", "naive"] and installed.cpu_level() in levels

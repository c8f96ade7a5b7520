"""No function of ps3c._core leaves memory, references, open files or threads behind: 10,000 calls each (leaks.py).

Models, plans and their attributes, runs of every form, steps, Parameters, images; refused configurations and requests,
among them the tables of tests/test_core*.py. Runs borrow tensors in each of the three ways. test_leaks_refused.py has
the runs that are refused.
"""

import threading

import core_support
import numpy as np
import pytest
import torch
from leaks import fewer, malloc_counter, measure, row
from torch import nn

from ps3c import _core

TINY = dict(
    core_support.VISION, width=8, depth=1, heads=1, mlp_hidden=8, grid=2, scales=[16, 32], max_select_num=[3]
) | dict(select_layers=[0], pool_width=8, pool_heads=1, pool_hidden=8)
CONV = dict(TINY, highres_features=True, conv_width=4, conv_out=4, conv_depth=1, conv_kernel=8)
TINY_TEXT = dict(
    core_support.TEXT, width=8, depth=1, heads=1, mlp_hidden=8, context_length=3, vocab_size=9, output_dim=8
) | dict(prompt_dim=8)
ROUTES = ["exchange", "managed", "capsule"] if core_support.HAS_EXCHANGE else ["capsule"]


class Raises:
    """An argument whose own methods fail."""

    def __index__(self):
        raise ValueError("index")

    __bool__ = __len__ = __float__ = __index__

    def __iter__(self):
        yield 1
        raise ValueError("iteration")

    def __getitem__(self, at):
        raise ValueError("item")


def table(test):
    """The rows of a parametrized test, as tuples."""
    return [values if isinstance(values, tuple) else (values,) for values in test.pytestmark[0].args[1]]


# ---- models, plans, machine -----------------------------------------------------------------------------------------


def attributes(plan, names):
    for name in names.split():
        getattr(plan, name)


def models():
    import test_core

    yield row("VisionModel", _core.VisionModel, TINY)
    yield row("VisionModel with a convolution", _core.VisionModel, CONV)
    yield row("TextModel", _core.TextModel, TINY_TEXT)
    yield row("VisionModel.weights", getattr, _core.VisionModel(TINY), "weights")
    yield row("TextModel.weights", getattr, _core.TextModel(TINY_TEXT), "weights")
    for name in ("cpu_levels", "cpu_level", "cuda_error"):
        yield row(name, getattr(_core, name))
    yield row("cuda_refused_products", _core.cuda_refused_products, raises=RuntimeError)
    yield row("cuda_error of a wrong type", _core.cuda_error, "x", raises=TypeError)
    for change, kind, message in table(test_core.test_config_faults):
        yield row(f"VisionModel: {message}", _core.VisionModel, {**core_support.VISION, **change}, raises=kind)
    for number, change in enumerate([{"width": 0}, {"pool": "mean"}, {"heads": 5}, {"norm_eps": Raises()}]):
        faults = (ValueError, TypeError)
        yield row(f"TextModel: fault {number}", _core.TextModel, {**TINY_TEXT, **change}, raises=faults)
    yield row("VisionModel of a list", _core.VisionModel, [], raises=TypeError)
    yield row("VisionModel without a key", _core.VisionModel, {"width": 8}, raises=ValueError)
    yield row("VisionModel: scales fail", _core.VisionModel, {**TINY, "scales": Raises()}, raises=ValueError)
    yield row("VisionModel: a scale fails", _core.VisionModel, {**TINY, "scales": [16, Raises()]}, raises=TypeError)


def plans():
    import test_core

    vision, text = _core.VisionModel(TINY), _core.TextModel(TINY_TEXT)
    plan = vision.plan(2, 32, 24, num_look_close=1, looks_per_step=1)
    forms = {
        "features": dict(num_look_close="all", prompt=True, gt_maps=True, smooth=True, pooled=True, looks_per_step=1),
        "patches": dict(num_token_look_close=3, first_n_scales=[1, 1], workspace_limit=1, hidden_states=1),
        "pretrain": dict(mode="pretrain", prompt=True, gt_maps=True, pool_gt_only=True, global_text=True),
        "low_res": dict(mode="low_res", dtype="bfloat16", hidden_states=1),
        "cuda": dict(num_look_close=1, device=("cuda", 0)),
    }
    for name, request in forms.items():
        raises = RuntimeError if name == "cuda" else ()
        yield row(f"VisionModel.plan {name}", vision.plan, 2, 32, 24, raises=raises, **request)
    yield row("TextModel.plan", text.plan, 2, 3)
    names = "workspace_bytes hidden_states low_res_tokens selected_tokens looks pooled_width image_sizes grids takes"
    yield row("VisionPlan's attributes", attributes, plan, names + " selection_maps steps")
    yield row("TextPlan's attributes", attributes, text.plan(2, 3), "workspace_bytes every_token pooled_tokens")
    yield row("VisionPlan.rows", plan.rows, 1, 1 << 20)
    yield row("VisionPlan.rows of a wrong step", plan.rows, 0, 0, raises=ValueError)
    yield row("VisionPlan.rows of a wrong type", plan.rows, "x", None, raises=TypeError)
    for cls in (_core.VisionPlan, _core.TextPlan):
        yield row(f"{cls.__name__} cannot be made", cls, raises=TypeError)
    large = _core.VisionModel(core_support.VISION)
    for change, kind, message in table(test_core.test_plan_faults):
        request = {**({} if "num_token_look_close" in change else {"num_look_close": 1}), **change}
        yield row(f"VisionModel.plan: {message}", large.plan, 2, 128, 128, raises=kind, **request)
    wrong = {
        "each fails": (TypeError, dict(num_look_close=1, first_n_scales=[1, Raises()])),
        "each is too large": (ValueError, dict(num_look_close=1, first_n_scales=[1, 1 << 70])),
        "each, then an unknown dtype": (ValueError, dict(num_look_close=1, first_n_scales=[1, 7])),
        "a truth fails": (TypeError, dict(num_look_close=1, first_n_scales=[1, 1], prompt=Raises())),
        "unknown name": (TypeError, dict(num_look_close=1, colour=1)),
        "twice": (TypeError, dict(num_look_close=1, batch=2)),
        "no memory": (MemoryError, dict(num_look_close=1, workspace_limit=(1 << 62), looks_per_step=0)),
    }
    for name, (kind, request) in wrong.items():
        sizes = (1 << 28, 128, 128) if kind is MemoryError else (2, 128, 128)
        yield row(f"VisionModel.plan: {name}", large.plan, *sizes, raises=kind, **request)
    yield row("VisionModel.plan of four sizes", large.plan, 1, 2, 3, 4, raises=TypeError)
    yield row("TextModel.plan: too long", text.plan, 1, 99, raises=ValueError)
    yield row("TextModel.plan: wrong type", text.plan, 1, 2.0, raises=TypeError)


# ---- runs -----------------------------------------------------------------------------------------------------------


def tiny_run(core, config=TINY, batch=1, **request):
    """A plan of a tiny vision model and the keyword arguments of its run."""
    model = core.VisionModel(config)
    plan = model.plan(batch, 32, 24, **request)
    tokens, maps = plan.low_res_tokens + plan.selected_tokens, [torch.empty(batch, *grid) for grid in plan.grids[1:]]
    dtype = getattr(torch, request.get("dtype", "float32"))
    wanted = request.get("mode", "features")
    named = dict(
        weights=core_support.random_weights(model, dtype),
        pixel_values=torch.ones(batch, 3, 32, 24, dtype=dtype),
        hidden_states=[torch.empty(batch, tokens, 8, dtype=dtype) for _ in range(plan.hidden_states)],
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8),
    )
    if wanted != "low_res":
        named["selection_probs"] = [torch.empty_like(one, dtype=dtype) for one in maps]
        if plan.selection_maps:
            named["selection_maps"] = [torch.empty_like(one, dtype=dtype) for one in maps]
    if wanted == "pretrain":
        named["bottomup_probs"] = [torch.empty_like(one, dtype=dtype) for one in maps]
        named["topdown_probs"] = [torch.empty_like(one, dtype=dtype) for one in maps] if request.get("prompt") else None
    if wanted != "features" or request.get("pooled"):
        named["pooled"] = torch.empty(batch, plan.pooled_width, dtype=dtype)
    for name, value in (
        ("prompt", torch.ones(batch, 8, dtype=dtype)),
        ("gt_maps", torch.ones(batch, 3, 2)),
        ("global_text", torch.ones(batch, 1)),
    ):
        if request.get(name):
            named[name] = value
    return plan, named


def tiny_text(core):
    model = core.TextModel(TINY_TEXT)
    plan = model.plan(1, 3)
    return plan, dict(
        weights=core_support.random_weights(model),
        ids=torch.tensor([[1, 2, 3]]),
        pooled=torch.empty(1, 8),
        prompt=torch.empty(1, 8),
        workspace=torch.empty(plan.workspace_bytes, dtype=torch.uint8),
    )


def in_a_thread(function, **named):
    thread = threading.Thread(target=function, kwargs=named)
    thread.start()
    thread.join()


def each_core():
    """The module once for each way to borrow tensors; the first is torch's own."""
    for route in ROUTES:
        patch = pytest.MonkeyPatch()
        yield route, core_support.load_core(patch, route)
        patch.undo()


def runs():
    yield from by_each_route(runs_of)
    for route, core in each_core():
        plan, named = tiny_run(core, num_look_close=1, config=CONV)  # resizes to 1512 x 1512 pixels
        yield row(f"{route}: VisionPlan.run, a convolution", plan.run, calls=40, **named)


def runs_of(core, route):
    forms = {
        "a look": dict(num_look_close=1),
        "all options": dict(num_look_close="all", prompt=True, gt_maps=True, smooth=True, pooled=True),
        "patches, two images": dict(num_token_look_close=3, first_n_scales=[1, 1], batch=2),
        "pretrain": dict(mode="pretrain", prompt=True, gt_maps=True, pool_gt_only=True, global_text=True),
        "low_res, bfloat16": dict(mode="low_res", dtype="bfloat16", hidden_states=0),
    }
    for name, request in forms.items():
        plan, named = tiny_run(core, **request)
        yield row(f"{route}: VisionPlan.run, {name}", plan.run, **named)
    plan, named = tiny_run(core, num_look_close=1)
    yield row(f"{route}: VisionPlan.run of a step", plan.run, step=0, **named)
    yield row(f"{route}: VisionPlan.run with settings", plan.run, level="naive", threads=2, **named)
    yield row(f"{route}: VisionPlan.check", plan.check, **named)
    yield row(f"{route}: VisionPlan.run in a new thread", in_a_thread, plan.run, calls=2000, **named)
    plan, named = tiny_text(core)
    yield row(f"{route}: TextPlan.run", plan.run, **named)


def by_each_route(rows_of):
    """By the first route 10,000 calls each, by the others fewer in `make test`."""
    for route, core in each_core():
        rows = rows_of(core, route)
        yield from rows if route == ROUTES[0] else fewer(500, rows)


# ---- parameters by name, images -------------------------------------------------------------------------------------


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parameters():
    import test_core

    names, module = test_core.NAMES, test_core.small_module()
    found = _core.Parameters(module, names)
    changing, parametrized, missing, gone = (test_core.small_module() for _ in range(4))
    nn.utils.parametrize.register_parametrization(parametrized.first, "weight", Double())
    missing.first.weight = None
    followed, norms = _core.Parameters(changing, names), [nn.LayerNorm(3), nn.LayerNorm(3)]
    of_missing = _core.Parameters(missing, names)
    of_gone = _core.Parameters(gone, names)
    del gone.inner.norm

    def replaced():
        changing.inner.norm = norms[norms[0] is changing.inner.norm]
        followed.collect()

    def watch(path, module, keys=("training", "forward")):  # references of defaults are counted
        return [(vars(module), keys[0]), (type(module), keys[1])]

    def refuse(path, module):
        raise ValueError(path)

    yield row("Parameters", _core.Parameters, module, names)
    yield row("Parameters with a check", _core.Parameters, module, names, watch)
    yield row("Parameters whose check raises", _core.Parameters, module, names, refuse, raises=ValueError)
    pairs = [(1,)]
    yield row("Parameters whose check errs", _core.Parameters, module, names, lambda *_: pairs, raises=TypeError)
    yield row("Parameters of a missing name", _core.Parameters, module, ["first.colour", "x.y"], raises=AttributeError)
    yield row("Parameters of no str", _core.Parameters, module, ["scale", 1], raises=TypeError)
    yield row("Parameters of no module", _core.Parameters, 3, names, raises=(TypeError, AttributeError))
    yield row("Parameters.collect", found.collect)
    yield row("Parameters.collect after a change", replaced, calls=5000)
    yield row("Parameters.collect, parametrized", _core.Parameters(parametrized, names).collect)
    yield row("Parameters.collect of None", of_missing.collect, raises=TypeError)
    yield row("Parameters.collect of a module that is gone", of_gone.collect, raises=AttributeError)
    yield row("Parameters.names and module", attributes, found, "names module")


def images():
    import test_core_images

    pixels, mean, std = np.ones((5, 7, 3), np.uint8), [0.5] * 3, (0.5, 0.5, 0.5)
    out, wide = np.empty((3, 5, 7), np.float32), np.empty((5, 4, 4), np.uint8)
    yield row("image_normalize", _core.image_normalize, pixels, mean, std)
    yield row("image_normalize with out", _core.image_normalize, pixels, mean, std, out)
    for arguments, kind, message in table(test_core_images.test_image_normalize_faults):
        yield row(f"image_normalize: {message}", _core.image_normalize, *arguments, raises=kind)
    fails = [0.5, Raises(), 0.5]
    yield row("image_normalize: a number fails", _core.image_normalize, pixels, fails, std, raises=TypeError)
    yield row("image_normalize: mean fails", _core.image_normalize, pixels, Raises(), std, raises=ValueError)
    columns, rows = _core.image_resize_columns, _core.image_resize_rows
    yield row("image_resize_columns", columns, pixels, "bicubic", wide, threads=1)
    yield row("image_resize_rows", rows, wide, "bilinear", 3, mean, std, threads=1)
    yield row("image_resize_columns: filter", columns, pixels, "nearest", wide, raises=ValueError)
    yield row("image_resize_columns: level", columns, pixels, "bicubic", wide, level="sse9", raises=ValueError)
    yield row("image_resize_columns: out", columns, pixels, "bicubic", wide[:3], raises=ValueError)
    yield row("image_resize_rows: pixels", rows, pixels, "bicubic", 3, mean, std, raises=ValueError)
    yield row("image_resize_rows: std", rows, wide, "bicubic", 3, mean, [1], raises=ValueError)
    yield row("image_resize_rows: height", rows, wide, "bicubic", 0, mean, std, raises=ValueError)
    yield row("image_resize_rows: level", rows, wide, "bicubic", 3, mean, std, level="sse9", raises=ValueError)


GROUPS = {"models": models, "plans": plans, "runs": runs, "parameters": parameters, "images": images}


@pytest.mark.skipif(malloc_counter() is None, reason="needs glibc 2.33, which counts malloc's bytes (mallinfo2)")
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_stays(group, figures, tmp_path):
    measure(__file__, group, figures, tmp_path)

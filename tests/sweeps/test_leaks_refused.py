"""No refused run of ps3c._core leaves memory, references, open files or threads behind (leaks.py).

The tables of tests/test_core.py (wrong dtypes, shapes, devices and values, missing weights), tensors of every kind that
ps3c does not read, and arguments whose own methods raise. Each in the three ways to borrow a tensor of torch.
"""

import core_support
import pytest
import torch
from leaks import malloc_counter, measure, row
from test_leaks_core import Raises, by_each_route, in_a_thread, tiny_run


class Drops(list):
    """A list of weights that loses one while it is read."""

    def __iter__(self):
        yield from [*super().__iter__()][:-1]


class Wrapper(torch.Tensor):
    """A tensor without memory."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (1, 3, 32, 24))

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        raise NotImplementedError


def strange_tensors():
    """Tensors that ps3c does not read."""
    plain = torch.ones(1, 3, 32, 24)
    yield "sparse", plain.to_sparse()
    yield "meta", plain.to("meta")
    yield "complex", torch.complex(plain, plain)
    yield "conjugate", torch.complex(plain, plain).conj()
    yield "negative", torch.complex(plain, plain).conj().imag
    yield "quantised", torch.quantize_per_tensor(plain, 1.0, 0, torch.quint8)
    yield "nested", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    yield "without memory", Wrapper()
    yield "of nine dimensions", torch.ones([1] * 9)
    yield "of unknown numbers", plain.to(torch.float8_e5m2)
    yield "of gradients", plain.clone().requires_grad_()
    yield "lazy zeros", torch._efficientzerotensor(1, 3, 32, 24)
    yield "no tensor", Raises()


def refused_tables(core, route):
    import test_core

    defaults = dict(threads=0, level=None)
    for name, (change, kind, _) in test_core.VISION_FAULTS.items():
        plan, named = core_support.vision_arguments(core, global_text=None, bottomup_probs=(), pooled=None, **defaults)
        change(named)
        yield row(f"{route}: VisionPlan.run: {name}", plan.run, raises=kind, **named)
    for name, (change, kind, _) in test_core.TEXT_FAULTS.items():
        plan, named = core_support.text_arguments(core)
        change(named)
        yield row(f"{route}: TextPlan.run: {name}", plan.run, raises=kind, **named)


def refused_kinds(core, route):
    plan, named = tiny_run(core, num_look_close=1)
    for name, tensor in strange_tensors():
        kinds = (TypeError, ValueError)
        # requires_grad is the Python package's to refuse; of lazy zeros torch may make memory
        raises = () if name == "of gradients" else kinds
        bad = {**named, "pixel_values": tensor}
        yield row(f"{route}: pixel_values {name}", plan.run, raises=raises, calls=2000, **bad)
        if name not in ("of gradients", "negative"):
            bad = {**named, "hidden_states": [tensor]}
            yield row(f"{route}: hidden_states {name}", plan.run, raises=kinds, calls=2000, **bad)


def refused_values(core, route):
    plan, named = tiny_run(core, num_look_close=1)
    weights = named["weights"]
    wrong = {
        "last weight is None": (TypeError, dict(weights=[*weights[:-1], None])),
        "weights fail": (ValueError, dict(weights=Raises())),
        "weights shrink": (ValueError, dict(weights=Drops(weights))),
        "a truth fails": (TypeError, dict(tf32=Raises())),
        "a number fails": (TypeError, dict(threads=Raises())),
        "no stream": (TypeError, dict(stream="x")),
        "level is bytes": (TypeError, dict(level=b"avx2")),
        "wrong step": (ValueError, dict(step=99)),
        "unknown name": (TypeError, dict(colour=1)),
        "surrogate level": (ValueError, dict(level="\udcff")),
    }
    for name, (kind, change) in wrong.items():
        yield row(f"{route}: VisionPlan.run: {name}", plan.run, raises=kind, **{**named, **change})
    yield row(f"{route}: VisionPlan.run without arguments", plan.run, raises=TypeError)
    yield row(f"{route}: VisionPlan.run of three", plan.run, weights, None, None, raises=TypeError)
    yield row(f"{route}: VisionPlan.run twice", plan.run, weights, raises=TypeError, **named)
    bad = {**named, "workspace": torch.empty(0, dtype=torch.uint8)}
    yield row(f"{route}: VisionPlan.run in a new thread, refused", in_a_thread, quiet(plan.run), calls=2000, **bad)


def quiet(function):
    def call(**named):
        with pytest.raises(ValueError):
            function(**named)

    return call


GROUPS = {
    "tables": lambda: by_each_route(refused_tables),
    "kinds": lambda: by_each_route(refused_kinds),
    "values": lambda: by_each_route(refused_values),
}


@pytest.mark.skipif(malloc_counter() is None, reason="needs glibc 2.33, which counts malloc's bytes (mallinfo2)")
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_stays(group, figures, tmp_path):
    measure(__file__, group, figures, tmp_path)

"""Hostile values of an argument, each with what a call may do with it.

A table's row is (name, make, allowed). make(valid, random) returns the hostile value; valid is a valid one of the same
argument. allowed: ANSWER, if the call must treat it as its plain copy; UNCOPIED, if that copy would not fit into
memory; and the exceptions that may refuse it.
"""

import fractions
import operator
import random
from typing import Any

import numpy as np
import torch

ANSWER, UNCOPIED = "answer", "answer without comparison"
T, V, N, M = TypeError, ValueError, NotImplementedError, MemoryError

Table = list[tuple[str, Any, tuple]]


def text(value: Any) -> str:
    """A short name of a value."""
    try:
        return repr(value).replace("\n", " ")[:40]
    except Exception:
        return f"a {type(value).__name__}"


def values(allowed: tuple, *several: Any) -> Table:
    """A row for each value."""
    return [(text(value), lambda v, r, value=value: value, allowed) for value in several]


def dtypes(allowed: tuple, *several: torch.dtype) -> Table:
    """A row for each dtype to which the valid tensor is converted."""
    return [(str(dtype)[6:], lambda v, r, dtype=dtype: v.to(dtype), allowed) for dtype in several]


class Plain(torch.Tensor):
    """A subclass without any behaviour of its own."""


class Index:
    def __index__(self) -> int:
        return 1


class Proxy:
    """Says that it is a tensor, and is none."""

    @property
    def __class__(self):
        return torch.Tensor


class Odd:
    """Its truth value and its text raise."""

    def __bool__(self):
        raise ValueError("no truth")

    def __repr__(self):
        raise RuntimeError("no text")


def storage_freed(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.untyped_storage().resize_(0)
    return value


def quantised(value: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(value.float(), 1.0, 0, torch.quint8)


def nested(value: torch.Tensor, layout) -> torch.Tensor:
    return torch.nested.nested_tensor([value.float(), value.float()], layout=layout)


def spread(value: torch.Tensor, random: random.Random) -> torch.Tensor:
    """The same values in every second place of a larger tensor, along one dimension."""
    dim = random.choice([dim for dim in range(value.dim()) if value.shape[dim] > 1] or [0])
    shape = list(value.shape)
    shape[dim] = 2 * shape[dim] + 1
    wide = torch.zeros(shape, dtype=value.dtype)
    narrow = wide.narrow(dim, 1, shape[dim] - 1)[(slice(None),) * dim + (slice(None, None, 2),)]
    return narrow.copy_(value)


def permuted(value: torch.Tensor, random: random.Random) -> torch.Tensor:
    order = random.sample(range(value.dim()), value.dim())
    back = [order.index(dim) for dim in range(value.dim())]
    return value.permute(order).contiguous().permute(back)


def shifted(value: torch.Tensor, random: random.Random) -> torch.Tensor:
    """The same values, one element after an aligned address."""
    room = torch.empty(value.numel() + 1, dtype=value.dtype)
    return room[1:].view(value.shape).copy_(value)


def one_value(number: float):
    """A copy whose random element is `number`."""

    def make(value: torch.Tensor, random: random.Random) -> torch.Tensor:
        value = value.clone()
        value.view(-1)[random.randrange(value.numel())] = number
        return value

    return make


def in_inference_mode(value: torch.Tensor, random: random.Random) -> torch.Tensor:
    with torch.inference_mode():
        return value.clone()


def expanded(value: torch.Tensor, random: random.Random) -> torch.Tensor:
    """Stride 0 along one dimension, whose first element stands for all."""
    dim = random.randrange(value.dim())
    return value.narrow(dim, 0, 1).expand(value.shape)


# Tensors in other memory: the values are those of the copy.
MEMORY: Table = [
    ("every second element", spread, (ANSWER,)),
    ("permuted memory", permuted, (ANSWER,)),
    ("off the alignment", shifted, (ANSWER,)),
    ("stride 0", expanded, (ANSWER,)),
    ("a subclass", lambda v, r: v.as_subclass(Plain), (ANSWER,)),
    ("an inference tensor", in_inference_mode, (ANSWER,)),
    ("a view of a view", lambda v, r: v[None][0].flip(0).flip(0), (ANSWER,)),
]
FLOATS: Table = [
    ("a parameter", lambda v, r: torch.nn.Parameter(v), (ANSWER,)),
    ("requires grad", lambda v, r: v.clone().requires_grad_(), (ANSWER,)),
    ("NaN", one_value(float("nan")), (ANSWER,)),
    ("infinity", one_value(float("inf")), (ANSWER,)),
    ("-infinity", one_value(-float("inf")), (ANSWER,)),
    ("near the end of float32", one_value(3e38), (ANSWER,)),
    ("denormal", one_value(1e-42), (ANSWER,)),
    ("-0.0", one_value(-0.0), (ANSWER,)),
    ("all NaN", lambda v, r: torch.full_like(v, float("nan")), (ANSWER,)),
]
# No dense tensor of values.
KINDS: Table = [
    ("meta", lambda v, r: v.to("meta"), (T,)),
    ("sparse", lambda v, r: v.to_sparse(), (T,)),
    ("sparse rows", lambda v, r: v.reshape(len(v), -1).to_sparse_csr(), (T,)),
    ("nested", lambda v, r: nested(v, torch.strided), (T,)),
    ("jagged", lambda v, r: nested(v, torch.jagged), (T,)),
    ("quantised", lambda v, r: quantised(v), (T,)),
    ("complex", lambda v, r: v.to(torch.complex64), (T,)),
    ("conjugate", lambda v, r: v.to(torch.complex64).conj(), (T,)),
    ("negative bit", lambda v, r: v.to(torch.complex64).conj().imag, (T,)),
    ("float8", lambda v, r: v.float().to(torch.float8_e4m3fn), (T,)),
    ("freed storage", lambda v, r: storage_freed(v), (T, V)),
    ("a list", lambda v, r: v[:2].tolist(), (T,)),
    ("a list of tensors", lambda v, r: list(v[:2]), (T,)),
    ("an array", lambda v, r: v.float().numpy(), (T,)),
    ("a long string", lambda v, r: "x" * 5000, (T,)),
    ("a number", lambda v, r: 1.0, (T,)),
    ("True", lambda v, r: True, (T,)),
    ("a dict", lambda v, r: {"x": v}, (T,)),
    ("the class", lambda v, r: torch.Tensor, (T,)),
    ("a proxy", lambda v, r: Proxy(), (T,)),
    ("an odd object", lambda v, r: Odd(), (T,)),
    ("packed bits", lambda v, r: torch.empty(v.shape, dtype=torch.bits8), (T,)),
]
SHAPES: Table = [
    ("one dimension more", lambda v, r: v[None], (V,)),
    ("one dimension less", lambda v, r: v[0], (V,)),
    ("a scalar", lambda v, r: v.reshape(-1)[0], (V,)),
    ("eight dimensions", lambda v, r: v.reshape(1, 1, 1, 1, 1, 1, 1, -1), (V,)),
    ("sixty-four dimensions", lambda v, r: v.reshape(*[1] * 63, -1), (V, T)),
    ("no images", lambda v, r: v[:0], (V,)),
    ("nothing", lambda v, r: torch.empty(0, dtype=v.dtype), (V,)),
    ("2^40 images", lambda v, r: v[:1].expand(2**40, *v.shape[1:]), (V,)),
    ("2^31 images", lambda v, r: v[:1].expand(2**31, *v.shape[1:]), (V,)),
]
LAST: Table = [
    ("last too long", lambda v, r: torch.cat([v, v[..., :1]], -1), (V,)),
    ("last 2^40", lambda v, r: v[..., :1].expand(*v.shape[:-1], 2**40), (V,)),
]
NOT_FLOAT32: Table = [
    *dtypes((T,), torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int64, torch.uint16)
]
OTHER_BATCH: Table = [("nine images more", lambda v, r: torch.cat([v, *[v[:1]] * 9]), (V,))]


def integers(least: int, more: tuple, beyond: tuple = (V,), bools: tuple = (T,)) -> Table:
    """Rows for an integer of `least` or more.

    more, beyond: what may happen to a very large one, and to one of more than 64 bits. bools: to a truth value.
    """
    good = [1, np.int64(1), np.uint8(1), Index(), torch.tensor(1), torch.tensor([1])]
    good += [torch.tensor(1, dtype=torch.uint8)]
    wrong = [-1, -(2**31), -(2**63), -(2**63) - 1, -(10**1000), -(10**5000), -(10**9000)]
    large = [2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1]
    huge = [2**63, 2**64, 10**30, 10**1000, 10**5000, 10**9000]
    kinds = [1.0, 1.5, float("nan"), float("inf"), 1 + 0j, fractions.Fraction(1), b"1", [1], (1,), {}]
    kinds += [{1}, range(1), object(), int, Odd(), Proxy(), "a".encode, np.array([1, 2]), np.array(1.0)]
    kinds += [torch.tensor(1.0)]
    kinds += [torch.tensor([1, 2]), torch.zeros(10**4), torch.tensor(1, device="meta")]
    kinds += [torch.ones(1, dtype=torch.int64).expand(2**40), list(range(10**4))]
    return [
        *values((ANSWER,), *good),
        *values((V,), *(number for number in wrong if number < least)),
        *values(more, *large),
        *values(beyond, *huge),
        *values(bools, True, np.True_, torch.tensor(True)),
        *values((ANSWER, T), torch.tensor(1).to_sparse()),
        *values((T,), *kinds),
    ]


WORDS: Table = values((V,), "ALL", "", " all", "all\0", "1", "x" * 5000, "\udcff")
TRUTHS: Table = values((ANSWER,), 0, 1, None, "", "no", [], [0], np.True_, torch.tensor(True), torch.tensor([0.0]))
NO_TRUTHS: Table = values(
    (T,), torch.tensor([1, 0]), torch.zeros(10**4), np.array([1, 2]), torch.tensor(1, device="meta"), Odd()
)
FLAGS: Table = [*TRUTHS, *NO_TRUTHS]


def canonical_tensor(value: Any) -> Any:
    """A contiguous copy in memory of its own."""
    if type(value) is not Proxy and isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor).contiguous().clone()
    return value


def canonical_number(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, list, tuple)) else int(operator.index(value))

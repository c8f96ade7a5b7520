"""Functions that the operation tests share: dtypes in NumPy, random data, comparison."""

import functools
import hashlib
import zlib

import numpy as np
import torch

from . import operations
from .tolerances import ARITHMETIC, ROUNDING, SMALLEST


class _Operations:
    """ops.gemm is operations.gemm on one thread, unless the call sets threads."""

    def __getattr__(self, name):
        return functools.partial(getattr(operations, name), threads=1)


ops = _Operations()
_naive_results = {}


def naive(name, *arguments, **keywords):
    """The naive level's result, computed once for all levels that are compared with it."""
    key = hashlib.sha256()
    for value in (name, *arguments, *sorted(keywords.items())):
        for part in value if isinstance(value, tuple) else (value,):
            is_array = isinstance(part, np.ndarray)
            key.update(repr((part.shape, part.strides, part.dtype) if is_array else part).encode())
            key.update(part.tobytes() if is_array else b"")
    if key.digest() not in _naive_results:
        _naive_results[key.digest()] = getattr(ops, name)(*arguments, level="naive", **keywords)
    return _naive_results[key.digest()]


LEVELS = operations.cpu_levels()
DTYPES = ["float32", "float16", "bfloat16"]
TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def encode(values, dtype):
    """Rounds values to a dtype and returns float32, float16, or uint16 for bfloat16."""
    values = np.asarray(values)
    if dtype == "bfloat16":
        return (
            torch.from_numpy(np.ascontiguousarray(values, np.float32))
            .bfloat16()
            .view(torch.int16)
            .numpy()
            .view(np.uint16)
        )
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def decode(array, dtype):
    """The values, as float64."""
    assert array.dtype == (np.uint16 if dtype == "bfloat16" else np.dtype(dtype))
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return array.astype(np.float64)


def to_torch(array, dtype):
    """The same values as a torch tensor of the dtype."""
    if dtype == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))


def from_torch(tensor, dtype):
    if dtype == "bfloat16":
        return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def generator(*key):
    """The same numbers in every run and in every order of tests."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def random(shape, dtype, *key, scale=1.0, shift=0.0):
    """Normal values of dtype, and what they are in float64."""
    array = encode(generator(shape, *key).normal(shift, scale, shape), dtype)
    return array, decode(array, dtype)


def assert_close(got, want, magnitude, operation, dtype, times=1.0, what=""):
    """got: the operation's array. want, magnitude: float64, of its shape or broadcast to it."""
    got = decode(got, dtype)
    want = np.broadcast_to(want, got.shape)
    error = ARITHMETIC[operation] * np.broadcast_to(magnitude, got.shape)
    allowed = times * (error + ROUNDING[dtype] * (np.abs(want) + error) + SMALLEST[dtype])
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(got - want) <= allowed) & ~((got == want) | (np.isnan(got) & np.isnan(want)))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.nanmax(np.abs(got - want) / allowed)
        raise AssertionError(
            f"{operation} {dtype} {what}: {wrong.sum()} of {got.size} values wrong, first at {at}: got {got[at]}, "
            f"expected {want[at]} within {allowed[at]:.3g}; at most {ratio:.3g} times the tolerance"
        )


def assert_same(got, want, what=""):
    """Bit for bit, whatever the values."""
    assert got.dtype == want.dtype and got.shape == want.shape, (what, got.dtype, want.dtype, got.shape, want.shape)
    if got.tobytes() != want.tobytes():
        differ = np.ascontiguousarray(got).reshape(-1).view(np.uint8) != np.ascontiguousarray(want).reshape(-1).view(
            np.uint8
        )
        at = np.unravel_index(np.flatnonzero(differ)[0] // got.itemsize, got.shape)
        raise AssertionError(f"{what}: first difference at {tuple(map(int, at))}: {got[at]} and {want[at]}")

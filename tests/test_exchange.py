"""Tensors between torch and the engine: what is read, what is refused and how it is named, who keeps what alive."""

import gc
import os
import resource
import sys

import numpy as np
import pytest
import torch
from core_support import operations, route  # noqa: F401  (fixtures)
from torch import nn


def row_major_bytes(tensor):
    tensor = tensor.detach().contiguous()
    return bytes(tensor.flatten().view(torch.uint8).numpy()) if tensor.numel() else b""


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_route(operations, route):
    assert operations.TensorView(torch.zeros(3)).route == route


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"]
)
def test_dtypes(operations, dtype):
    tensor = torch.tensor([0, 1, 2, 3, 100]).to(getattr(torch, dtype))
    view = operations.TensorView(tensor)
    assert (view.dtype, view.device, view.shape) == (dtype, ("cpu", 0), (5,))
    assert view.tobytes() == row_major_bytes(tensor)


STRIDED = {
    "plain": lambda x: x,
    "transposed": lambda x: x.transpose(0, 2),
    "every second": lambda x: x[:, ::2],
    "offset": lambda x: x[1:, 1:, 1:],
    "broadcast": lambda x: x[:1].expand(7, -1, -1),
    "size one": lambda x: x[:, :, :1],
    "empty": lambda x: x[:, :0],
    "no dimension": lambda x: x[0, 0, 0],
    "channels last": lambda x: x[None].contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("kind", STRIDED)
def test_strides(operations, kind):
    tensor = STRIDED[kind](torch.arange(60, dtype=torch.float32).reshape(3, 4, 5))
    view = operations.TensorView(tensor)
    assert view.shape == tuple(tensor.shape)
    assert all(a == b for a, b, size in zip(view.strides, tensor.stride(), tensor.shape) if size > 1)
    assert view.data_ptr == tensor.data_ptr()
    assert view.tobytes() == row_major_bytes(tensor)


def test_no_copy(operations):
    tensor = torch.zeros(4)
    view = operations.TensorView(tensor)
    tensor[2] = 1.0
    assert view.tobytes() == row_major_bytes(torch.tensor([0.0, 0, 1, 0]))


def test_parameters_and_subclasses(operations):
    class Mine(torch.Tensor):
        pass

    base = torch.arange(6, dtype=torch.float32)
    for tensor in (nn.Parameter(base), base.clone().requires_grad_(), base.as_subclass(Mine), nn.Buffer(base)):
        assert operations.TensorView(tensor).tobytes() == row_major_bytes(base)


def test_more_types_than_are_remembered(operations):
    for i in range(20):
        tensor = torch.full((2,), float(i)).as_subclass(type(f"Mine{i}", (torch.Tensor,), {}))
        for _ in range(2):
            assert np.frombuffer(operations.TensorView(tensor).tobytes(), np.float32).tolist() == [i, i]


# ---- what is refused -------------------------------------------------------------------------------------------------


REFUSED = {
    "complex": (lambda: torch.tensor([1 + 2j]), "complex"),
    "conjugate": (lambda: torch.tensor([1 + 2j]).conj(), "conjugate"),
    "negative": (lambda: torch.tensor([1 + 2j]).conj().imag, "negative bit"),
    "negative view": (lambda: torch._neg_view(torch.ones(3)), "negative bit"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse_coo"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "sparse_csr"),
    "meta": (lambda: torch.zeros(3, device="meta"), "meta"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8), "quantised"),
    "float8": (lambda: torch.zeros(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "uint16": (lambda: torch.zeros(3, dtype=torch.uint16), "uint16"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
    "zero tensor": (lambda: torch._efficientzerotensor((3,)), "without memory"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(operations, kind):
    make, word = REFUSED[kind]
    tensor = make()
    with pytest.raises(TypeError) as caught:
        operations.TensorView(tensor, "prompt")
    assert str(caught.value).startswith("prompt: got a") and word in str(caught.value)
    assert operations.TensorView(torch.zeros(3)).shape == (3,)  # nothing is left behind


@pytest.mark.parametrize("thing", [[1.0], None, 3.0, "x", torch.float32, nn.Linear(2, 2)])
def test_not_a_tensor(operations, thing):
    with pytest.raises(TypeError, match=f"prompt: got {type(thing).__name__}, expected a torch.Tensor"):
        operations.TensorView(thing, "prompt")


@pytest.mark.parametrize(
    "dtype, name",
    [
        (np.float32, "float32"),
        (np.float16, "float16"),
        (np.uint16, "bfloat16"),
        (np.int64, "int64"),
        (np.bool_, "bool"),
    ],
)
def test_arrays(operations, dtype, name):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)[:, ::-1, 1:]
    view = operations.TensorView(array, "prompt")
    assert view.shape == (2, 3, 3) and view.strides == (12, -4, 1) and view.dtype == name
    assert view.data_ptr == array.ctypes.data


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros(3, ">f4"), "foreign byte order"),
        (np.zeros(13, np.uint8)[1:].view(np.float32), "not aligned"),
        (np.zeros(3, np.complex64), "dtype complex64"),
        (np.zeros(3, object), "dtype object"),
        (np.zeros(3, np.uint32), "dtype uint32"),
        (np.zeros((1,) * 9, np.float32), "9 dimensions"),
    ],
)
def test_arrays_that_are_refused(operations, array, words):
    with pytest.raises((TypeError, ValueError), match=rf"^prompt: got .*{words}"):
        operations.TensorView(array, "prompt")


def test_pretending_to_be_a_tensor(operations):
    class Proxy:
        __class__ = torch.Tensor

    with pytest.raises(TypeError, match="got Proxy, expected a torch.Tensor"):
        operations.TensorView(Proxy())


def test_too_many_dimensions(operations):
    with pytest.raises(ValueError, match="tensor: got 9 dimensions, expected at most 8"):
        operations.TensorView(torch.zeros([1] * 9))
    assert operations.TensorView(torch.zeros([1] * 8)).shape == (1,) * 8


# ---- who keeps what alive --------------------------------------------------------------------------------------------


def owned_tensor():
    """A tensor, and the array that it holds a reference to while its memory is in use."""
    array = np.arange(5, dtype=np.float32)
    return torch.from_numpy(array), array


def test_view_outlives_tensor(operations):
    tensor, array = owned_tensor()
    before = sys.getrefcount(array)
    view = operations.TensorView(tensor)
    del tensor
    assert sys.getrefcount(array) == before
    assert np.frombuffer(view.tobytes(), np.float32).tolist() == [0, 1, 2, 3, 4]
    del view
    assert sys.getrefcount(array) == before - 1


def test_tensor_outlives_view(operations):
    tensor, array = owned_tensor()
    before = sys.getrefcount(array)
    view = operations.TensorView(tensor)
    del view
    assert sys.getrefcount(array) == before
    assert tensor.tolist() == [0, 1, 2, 3, 4]
    del tensor
    assert sys.getrefcount(array) == before - 1


def test_release_is_final_and_repeatable(operations):
    tensor, array = owned_tensor()
    before = sys.getrefcount(array)
    view = operations.TensorView(tensor)
    del tensor
    view.release()
    assert sys.getrefcount(array) == before - 1
    view.release()
    assert view.route is None and view.data_ptr == 0
    with pytest.raises(ValueError, match="released"):
        view.tobytes()


def test_new_data_is_seen(operations):
    tensor = torch.zeros(3)
    operations.TensorView(tensor)
    tensor.data = torch.ones(2, dtype=torch.float64)  # what module.double() does to a Parameter
    view = operations.TensorView(tensor)
    assert (view.shape, view.dtype, view.data_ptr) == ((2,), "float64", tensor.data_ptr())


@pytest.mark.filterwarnings("ignore")
def test_no_leak(operations):
    tensor, array = owned_tensor()
    refused = [make() for make, _ in REFUSED.values()]
    before = sys.getrefcount(tensor), sys.getrefcount(array)

    def rounds(count):
        for _ in range(count):
            for _ in range(200):
                operations.TensorView(tensor)
            for other in refused:
                with pytest.raises(TypeError):
                    operations.TensorView(other)
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    warm = rounds(20)
    grown = rounds(100) - warm
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # the sanitizer keeps freed memory for a while
        assert grown < 1024  # KiB; 52 bytes lost by each of the 20000 views would be as much
    assert (sys.getrefcount(tensor), sys.getrefcount(array)) == before

"""Tensors that dlpack_producer.c lends to ps3c._core, for dlpack_points.py.

A loan's memory ends at a page without access. An input's pages cannot be written. Once the deleter has run, an input's
pages cannot be read, and an output's cannot be written.
"""

import ctypes
import sys

import pytest
import torch
from core_support import load_core

LEND, RAISE, FAIL_SILENTLY, LEND_NOTHING = range(4)
READ_ONLY, IS_COPIED = 1, 2
NO_ACCESS, READ, STAYS = 0, 1, -1
CODES = {
    torch.float32: (2, 32),
    torch.float16: (2, 16),
    torch.bfloat16: (4, 16),
    torch.int64: (0, 64),
    torch.uint8: (1, 8),
}

ROUTE, producer = sys.argv[1], ctypes.PyDLL(sys.argv[2])
producer.producer_offer_bytes.restype = ctypes.c_size_t
producer.producer_memory.restype = ctypes.c_void_p
producer.producer_memory.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
producer.producer_exchange.restype = producer.producer_capsule.restype = ctypes.py_object
producer.producer_capsule.argtypes = [ctypes.py_object, ctypes.c_int]
producer.producer_capsule_name.argtypes = [ctypes.py_object]
producer.producer_capsule_name.restype = ctypes.c_char_p


class DlTensor(ctypes.Structure):
    """ps3c_dl_tensor of csrc/binding/dlpack.h."""

    _fields_ = [
        ("data", ctypes.c_uint64),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Offer(ctypes.Structure):
    """The first part of dlpack_producer.c's offer."""

    _fields_ = [
        ("tensor", DlTensor),
        ("object", ctypes.c_void_p),
        ("hook", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("pages", ctypes.c_uint64),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("answer", ctypes.c_int32),
        ("no_deleter", ctypes.c_int32),
        ("protect_after", ctypes.c_int32),
        ("lent", ctypes.c_int32),
        ("deleted", ctypes.c_int32),
        ("unlocked", ctypes.c_int32),
    ]


NOWHERE = ctypes.cast(8, ctypes.POINTER(ctypes.c_int64))  # an address that nobody can read


def lent_type(which: int) -> type:
    """A type of tensors that are lent as their offers say. which: dlpack_producer.c's producer_exchange."""
    return type("Lent", (torch.Tensor,), {"__dlpack_c_exchange_api__": producer.producer_exchange(which)})


LENT = lent_type(0)


class Loan:
    """A tensor argument that the producer lends. output: the run writes to it."""

    def __init__(self, tensor: torch.Tensor, output: bool = False, kind: type = LENT):
        self.object = torch.empty(0).as_subclass(kind)
        self.offer = Offer.from_buffer(bytearray(producer.producer_offer_bytes()))
        self.output, self.like = output, tensor
        self.bytes = tensor.numel() * tensor.element_size()
        # An input has room after it, so that its data can be moved to an address that is not aligned.
        self.room = 0 if output else 64
        self.data = producer.producer_memory(ctypes.byref(self.offer), self.bytes + self.room, 64)
        if not output:
            self.write(tensor)
        self.shape = (ctypes.c_int64 * 8)(*tensor.shape)
        self.strides = (ctypes.c_int64 * 8)(*torch.empty(tensor.shape).stride())
        code, bits = CODES[tensor.dtype]
        self.offer.tensor = DlTensor(self.data, 1, 0, tensor.dim(), code, bits, 1, self.shape, self.strides, 0)
        self.offer.object, self.offer.major, self.offer.minor = id(self.object), 1, 3
        self.offer.protect_after = READ if output else NO_ACCESS
        producer.producer_add(ctypes.byref(self.offer))
        self.references = sys.getrefcount(self.object)

    def write(self, tensor: torch.Tensor, at: int = 0):
        """Puts the tensor's elements, in row-major order, `at` bytes after the start of the memory."""
        producer.producer_protect(ctypes.byref(self.offer), 3)
        content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        ctypes.memmove(self.data + at, content, len(content))
        self.before = ctypes.string_at(self.data, self.bytes + self.room)
        producer.producer_protect(ctypes.byref(self.offer), 3 if self.output else READ)

    def content(self) -> bytes:
        producer.producer_protect(ctypes.byref(self.offer), READ)
        return ctypes.string_at(self.data, self.bytes + self.room)

    def hook(self, function):
        """Calls the function before the tensor is lent."""
        self._hook = function
        self.offer.hook = id(function)

    def problem(self, lent: int, deleted: int | None = None) -> str:
        """What is wrong with what became of the loan; "" if nothing is. lent: how often it was lent to the engine.

        deleted: how often the deleter ran, if not once for each time that it was taken over.
        """
        offer = self.offer
        if deleted is None:
            deleted = 0 if ROUTE == "exchange" or offer.no_deleter else lent
        if (offer.lent, offer.deleted, offer.unlocked) != (lent, deleted, 0):
            return f"lent {offer.lent}, deleted {offer.deleted} and {offer.unlocked} of it without the GIL, " + (
                f"expected {lent} and {deleted}"
            )
        if self.object is not None and sys.getrefcount(self.object) != self.references:
            return f"{sys.getrefcount(self.object) - self.references} references to the tensor stay"
        return ""

    def close(self):
        producer.producer_unmap(ctypes.byref(self.offer))


# ---- capsules --------------------------------------------------------------------------------------------------------

torch_to_dlpack = torch.utils.dlpack.to_dlpack


class Capsules:
    """How to_dlpack, which the route "capsule" calls, makes capsules of loans."""

    versioned = False  # named "dltensor_versioned"
    repeat = False  # the same capsule each time
    drop = False  # an exception once the capsule was made
    made: dict = {}


def to_dlpack(tensor):
    if type(tensor).__name__ != "Lent":
        return torch_to_dlpack(tensor)
    if Capsules.repeat and id(tensor) in Capsules.made:
        return Capsules.made[id(tensor)]
    capsule = producer.producer_capsule(tensor, Capsules.versioned)
    if Capsules.drop:
        raise BufferError("dropped")
    Capsules.made[id(tensor)] = capsule
    return capsule


def core_of_route():
    """An instance of ps3c._core that borrows by ROUTE. It keeps the to_dlpack of torch that it finds now."""
    torch.utils.dlpack.to_dlpack = to_dlpack
    with pytest.MonkeyPatch.context() as patch:
        return load_core(patch, ROUTE)

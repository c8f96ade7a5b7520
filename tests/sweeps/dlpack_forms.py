"""Tensors of DLPack as no library should make them: what is wrong, how to make it so, and what the engine must do."""

import random

MOST, LEAST = 2**63 - 1, -(2**63)
# The engine reads any dtype of gt_maps, and any number of bytes of a workspace that is large enough.
ANY_SIZE = {"gt_maps", "workspace"}
ANY_STRIDES = {"pixel_values", "gt_maps", "ids", "global_text"}


def _set(field: str, value: int):
    def change(loan):
        setattr(loan.offer.tensor, field, value)

    return change


def _no_shape(loan):
    loan.offer.tensor.shape = None
    return loan.like.dim() > 0


def _no_strides(loan):
    loan.offer.tensor.strides = None


def _sizes(which: str, dimension: int, value):
    """Sets a size or a stride. value: a number, or a function of the present one."""

    def change(loan):
        if dimension >= loan.like.dim() or (which == "strides" and loan.like.shape[dimension] == 1):
            return False
        numbers = getattr(loan, which)
        numbers[dimension] = value(numbers[dimension]) if callable(value) else value

    return change


def _single_strides(value: int):
    """Strides of dimensions of size 1, which nobody uses."""

    def change(loan):
        for dimension, size in enumerate(loan.like.shape):
            if size == 1:
                loan.strides[dimension] = value

    return change


def _offset(bytes_: int):
    """The data starts bytes_ after the pointer."""

    def change(loan):
        loan.offer.tensor.data -= bytes_
        loan.offer.tensor.byte_offset = bytes_

    return change


def _unaligned(bytes_: int):
    """The same data at an odd address."""

    def change(loan):
        if loan.output or loan.like.element_size() == 1:
            return False
        loan.write(loan.like, bytes_)
        loan.offer.tensor.data += bytes_

    return change


def _order(generator: random.Random):
    """The same tensor in another order in memory, partly backwards."""
    seed = generator.random()

    def change(loan):
        own, tensor = random.Random(seed), loan.like
        flipped = [d for d in range(tensor.dim()) if own.random() < 0.5]
        order = own.sample(range(tensor.dim()), tensor.dim())
        if loan.output:
            return False
        memory = tensor.flip(flipped).permute(order).contiguous()
        loan.write(memory)
        for place, dimension in enumerate(order):
            loan.strides[dimension] = memory.stride(place)
        for dimension in flipped:
            first = (tensor.shape[dimension] - 1) * loan.strides[dimension]
            loan.offer.tensor.data += first * tensor.element_size()
            loan.strides[dimension] *= -1

    return change


def _dtype(code: int, bits: int, lanes: int):
    def change(loan):
        dl = loan.offer.tensor
        if (dl.code, dl.bits, dl.lanes) == (code, bits, lanes):
            return False
        dl.code, dl.bits, dl.lanes = code, bits, lanes

    return change


def _same_bytes(count: int):
    """A shape of `count` dimensions of size 1."""

    def change(loan):
        if loan.like.dim() == count:
            return False
        loan.offer.tensor.ndim = count
        for i in range(8):
            loan.shape[i] = 1

    return change


def forms(generator: random.Random, argument: str):
    """(what, change of a loan, what must follow). A change that returns False does not apply.

    What must follow: "right" bits, "refused", "either", or "any" result.
    """
    large = "any" if argument == "workspace" else "refused"
    yield "no strides", _no_strides, "right"
    yield "an offset", _offset(64), "right"
    yield "an offset beyond the pointer", _offset(1 << 40), "either"
    for value in (0, -1, MOST, LEAST):
        yield f"strides {value} of single dimensions", _single_strides(value), "right"
    for i in range(3):
        yield f"order {i}", _order(generator), "right" if argument in ANY_STRIDES else "either"
    for bytes_ in (1, 2, 3, 5):
        yield f"{bytes_} bytes off", _unaligned(bytes_), "either"
    yield "no shape", _no_shape, "refused"
    for ndim in (-1, -(2**31), 9, 64, 2**31 - 1):
        yield f"{ndim} dimensions", _set("ndim", ndim), "refused"
    for ndim in (0, 1, 5, 8):
        yield f"{ndim} single dimensions", _same_bytes(ndim), "refused"
    for dimension in range(4):
        yield f"size {dimension} is 2^48", _sizes("shape", dimension, 2**48), large
        for size in (0, -1, -2, LEAST, MOST, MOST // 2):
            yield f"size {dimension} is {size}", _sizes("shape", dimension, size), "refused"
        for power in (41, 42) if argument in ANY_SIZE else (16, 31, 32):  # less is read: no view says where memory ends
            change = _sizes("shape", dimension, lambda size, power=power: size + 2**power)
            yield f"size {dimension} is 2^{power} more", change, large
        yield f"size {dimension} is negated", _sizes("shape", dimension, lambda size: -size), "refused"
        for stride in (MOST, LEAST, MOST // 2, LEAST // 2, 2**61, -(2**61), 2**60 + 1):
            yield f"stride {dimension} is {stride}", _sizes("strides", dimension, stride), "refused"
    for offset in (2**64 - 1, 2**64 - 4096, 2**63, 2**64 - 2**32):
        yield f"offset {offset}", _set("byte_offset", offset), "refused"
    yield "no data", _set("data", 0), "refused"
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 12, 17, 255):
        for bits in (0, 1, 4, 7, 8, 16, 24, 32, 64, 128, 255):
            wide = argument == "gt_maps" and bits > 32  # it may be read as such, beyond the memory
            if generator.random() < 0.3 and not wide:
                yield f"dtype {code}, {bits} bits", _dtype(code, bits, 1), "any" if argument == "gt_maps" else "refused"
    for lanes in (0, 2, 4, 65535):
        yield f"{lanes} lanes", _set("lanes", lanes), "refused"
    for device in (0, 2, 3, 4, 7, 8, 10, 12, 13, 14, 15, 99, -1, 2**31 - 1, -(2**31)):
        yield f"device {device}", _set("device_type", device), "refused"
    for index in (1, -1, 2**31 - 1):
        yield f"device index {index}", _set("device_id", index), "either"

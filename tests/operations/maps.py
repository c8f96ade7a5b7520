"""Functions that the tests of selection maps share: torch's resizing of maps, and ground truth of every dtype."""

import torch
import torch.nn.functional as F

from .support import from_torch, generator

GT_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}


def nearest(x, size):
    return F.interpolate(x.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).to(x.dtype)


def area(x, size):
    """The mean in float32, rounded to a floating dtype; the mean of integers and bool stays float32."""
    mean = F.interpolate(x.unsqueeze(1).float(), size=size, mode="area").squeeze(1)
    return mean.to(x.dtype) if x.is_floating_point() else mean


def ground_truth(kind, shape):
    """A few soft blobs: zero, small, and large areas, negatives where the dtype has them."""
    values = generator(shape, kind).normal(size=shape) * 3 * (generator(shape, kind, 1).uniform(size=shape) > 0.7)
    values[:, shape[1] // 2 :] = 0
    return torch.from_numpy(values.clip(0) if kind == "uint8" else values).to(GT_DTYPES[kind])


def as_numpy(tensor, kind):
    return from_torch(tensor, kind) if kind == "bfloat16" else tensor.numpy()

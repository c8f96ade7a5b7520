"""torch tensors for the engine: dtypes, checks, memory for outputs and workspace, settings of a run.

Tensors go by reference: the engine reads parameters and inputs where torch keeps them and writes outputs that torch
allocated. Nothing is copied unless a parameter is not contiguous.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .. import _arguments

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def device_of(tensor: torch.Tensor) -> tuple[str, int]:
    return (tensor.device.type, tensor.device.index or 0)


def empty(what: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """torch.empty, with MemoryError where memory cannot be had."""
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:
        if device.type == "cuda" and isinstance(error, torch.cuda.OutOfMemoryError):
            raise  # scripts catch this one; its text says what the allocator holds
        size = 1
        for length in shape:
            size *= length
        raise MemoryError(
            f"no memory for {what}: {size * dtype.itemsize} bytes of {dtype} {tuple(shape)} on {device}"
        ) from error


def run_arguments(plan: Any, device: torch.device) -> dict[str, Any]:
    """Workspace and settings of one run."""
    return {"workspace": workspace(plan, device), **settings(device)}


def workspace(plan: Any, device: torch.device) -> torch.Tensor:
    return empty("the workspace", (plan.workspace_bytes,), torch.uint8, device)


def settings(device: torch.device) -> dict[str, Any]:
    """Threads, stream and precision of one run, as torch has them now."""
    cuda = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "stream": torch.cuda.current_stream(device).cuda_stream if cuda else 0,
        "tf32": cuda and _allows_tf32(),
    }


def _allows_tf32() -> bool:
    """May float32 products use TF32? torch.backends.cuda.matmul.allow_tf32, which set_float32_matmul_precision sets."""
    matmul = torch.backends.cuda.matmul
    try:
        return matmul.allow_tf32
    except RuntimeError:  # torch 2.9 and later refuse the old name once the new one was assigned
        return matmul.fp32_precision == "tf32"


def workspace_limit(value: int | None) -> int:
    """A model's workspace_limit as a plan wants it; 0 where it is None."""
    return 0 if value is None else _arguments.positive("workspace_limit", value)


def check_tensor(name: str, value: Any) -> torch.Tensor:
    """value, if it is a dense, real, unquantised tensor with values; else TypeError, which names the argument."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got a sparse tensor ({value.layout}), expected a dense one: call .to_dense()")
    if value.is_quantized:
        raise TypeError(f"{name}: got a quantised tensor ({value.dtype}), expected a plain one: call .dequantize()")
    if value.is_meta:
        raise TypeError(f"{name}: got a meta tensor, which has no values")
    if value.is_complex():
        raise TypeError(
            f"{name}: got a {'conjugate ' if value.is_conj() else ''}complex tensor ({value.dtype}), "
            "expected a real one"
        )
    if value.is_neg():
        raise TypeError(f"{name}: got a tensor with the negative bit set, expected plain memory: call .resolve_neg()")
    return value


def check_weights(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """dtype of a model's weights. TypeError: one that cannot be computed with, or weights without memory."""
    check_tensor("weights", tensors[0])
    dtype = tensors[0].dtype
    if dtype not in DTYPES:
        raise TypeError(f"weights: got {dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    return dtype


def check_grad(inputs: dict[str, torch.Tensor | None], training: bool, tensors: Sequence[torch.Tensor]) -> None:
    """NotImplementedError where gradients are wanted: a forward pass of ps3c has none."""
    if not torch.is_grad_enabled():
        return
    hint = "ps3c computes forward passes only, without gradients"
    for name, tensor in inputs.items():
        if tensor is not None and tensor.requires_grad:
            raise NotImplementedError(
                f"{name}: got a tensor that requires grad, but {hint}: run under torch.no_grad(), or pass "
                f"{name}.detach()"
            )
    if training and any(tensor.requires_grad for tensor in tensors):
        raise NotImplementedError(
            f"the model is in train() mode with parameters that require grad, but {hint}: call .eval() or "
            ".requires_grad_(False), or run under torch.no_grad()"
        )

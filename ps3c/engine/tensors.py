"""torch tensors for the engine: dtypes, checks, memory for outputs and workspace, settings of a run.

Tensors go by reference: the engine reads parameters and inputs where torch keeps them and writes outputs that torch
allocated. Nothing is copied unless a parameter is not contiguous.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

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
        if not _is_about_memory(error):
            raise  # of a mode of the caller, such as a TorchDispatchMode, that sees this allocation
        size = 1
        for length in shape:
            size *= length
        raise MemoryError(
            f"no memory for {what}: {size * dtype.itemsize} bytes of {dtype} {tuple(shape)} on {device}"
        ) from error


def _is_about_memory(error: RuntimeError) -> bool:
    """Did torch's allocator raise it? An error of a mode (TorchDispatchMode, TorchFunctionMode) says something else."""
    text = str(error)
    return any(words in text for words in ("allocate memory", "not enough memory", "out of memory", "overflow"))


def converted(name: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """value.to(dtype). TypeError: a dtype that torch cannot convert. MemoryError: no memory for the result."""
    try:
        return value.to(dtype)
    except RuntimeError as error:  # NotImplementedError is one
        _check_memory(name, value, error)
        raise TypeError(f"{name}: got {value.dtype}, expected a dtype that torch converts to {dtype}") from error


def contiguous(name: str, value: torch.Tensor) -> torch.Tensor:
    """value.contiguous(). MemoryError: no memory for the result."""
    try:
        return value.contiguous()
    except RuntimeError as error:
        _check_memory(name, value, error)
        raise


def _check_memory(name: str, value: torch.Tensor, error: RuntimeError) -> None:
    """MemoryError where torch had no memory for a copy of value."""
    if _is_about_memory(error):
        raise MemoryError(f"no memory for {name}: a copy of {value.dtype} {tuple(value.shape)}") from error


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
    if not issubclass(type(value), torch.Tensor):  # isinstance is also true for proxies that only report the class
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.is_nested:
        raise TypeError(f"{name}: got a nested tensor, expected a dense one: call .to_padded_tensor()")
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
    if _is_freed(value):
        raise TypeError(f"{name}: got a tensor whose memory was freed (its storage has 0 bytes), expected values")
    return value


def _is_freed(value: torch.Tensor) -> bool:
    """Was the storage resized to 0, as FSDP does with parameters between passes?"""
    try:
        return value.numel() > 0 and value.untyped_storage().nbytes() == 0
    except Exception:  # a kind of tensor without a storage, or a size that is a symbol; it is refused elsewhere
        return False


def check_weights(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """dtype of a model's weights. TypeError: one that cannot be computed with, or weights without memory."""
    check_tensor("weights", tensors[0])
    check_tangents(("weights", tensor) for tensor in tensors)
    dtype = tensors[0].dtype
    if dtype not in DTYPES:
        raise TypeError(f"weights: got {dtype}, expected torch.float32, torch.float16 or torch.bfloat16")
    return dtype


# ---- recorders ------------------------------------------------------------------------------------------------------

_MODES_IN_USE = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_PRE_DISPATCH_MODES_IN_USE = getattr(torch._ops, "_len_torch_dispatch_stack_pre_dispatch", lambda: 0)
_RECORDERS = {"ProxyTorchDispatchMode": "make_fx", "FakeTensorMode": "FakeTensorMode"}


def check_recording() -> None:
    """NotImplementedError while a recorder of torch is active: it would not see what the engine computes.

    The recording would hold uninitialised outputs: torch.jit.trace, torch.onnx.export, make_fx, FakeTensorMode.
    """
    if torch.jit.is_tracing():
        _refuse_recording("torch.jit.trace")
    if _MODES_IN_USE() or _PRE_DISPATCH_MODES_IN_USE():
        from torch.utils import _python_dispatch

        modes = list(getattr(_python_dispatch, "_get_current_dispatch_mode_stack", list)())
        modes += getattr(torch._ops, "_get_current_dispatch_mode_stack_pre_dispatch", list)()
        if _PRE_DISPATCH_MODES_IN_USE() and not modes:
            _refuse_recording("make_fx")
        for mode in modes:
            for kind in type(mode).__mro__:
                if kind.__name__ in _RECORDERS:
                    _refuse_recording(_RECORDERS[kind.__name__])


def _refuse_recording(name: str) -> None:
    raise NotImplementedError(
        f"{name}: got a pass of ps3c, expected operations of torch: ps3c computes in an engine of its own, of which a "
        "recording would hold only uninitialised memory; call the model outside and pass its results in"
    )


def check_tangents(named: Iterable[tuple[str, torch.Tensor]]) -> None:
    """NotImplementedError where a tensor has a tangent of forward-mode differentiation, which the engine would lose."""
    if forward_ad._current_level < 0:
        return
    for name, tensor in named:
        if tensor.is_floating_point() and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{name}: got a dual tensor (torch.autograd.forward_ad), expected one without a tangent: ps3c computes "
                "forward passes only; pass unpack_dual(...).primal"
            )


def autocast_is_on(device: torch.device) -> bool:
    """Is the code inside torch.autocast for the device?"""
    try:
        return torch.is_autocast_enabled(device.type)
    except TypeError:  # before torch 2.4: one function a device
        return torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled()


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

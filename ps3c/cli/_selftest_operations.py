"""Every kernel on small random inputs, at one level and at the naive one. For `ps3c check`.

Shapes are awkward on purpose: token counts beside multiples of the vector length, odd numbers of channels, heads of 72.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .. import _core

DTYPES = ("float32", "float16", "bfloat16")
# Two results, each rounded once to the dtype after float32 arithmetic, may differ by so much of the values' size. A
# GPU rounds a product once more before its activation.
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}

_GRID = [(28, 28, 4, 4), (56, 84, 8, 12)]  # two scales: height, width, rows, columns
_TOKENS = 4 * 4 + 8 * 12


def _random(shape: tuple[int, ...], dtype: str, name: str, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Normal values as the kernels take them (bfloat16 as uint16), the same at every call."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values = (torch.randn(shape, generator=generator) * scale + shift).to(getattr(torch, dtype))
    return values.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else values.numpy()


def _decoded(array: np.ndarray) -> np.ndarray:
    """float64 values; uint16 is bfloat16."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def _gemm(dtype: str, **how: Any) -> Any:
    x, residual = _random((2, 49, 145), dtype, "x"), _random((2, 49, 72), dtype, "residual")
    weight, bias = _random((72, 145), dtype, "weight", scale=0.1), _random((72,), dtype, "bias")
    return _core.op_gemm(x, weight, bias, act="gelu", residual=residual, dtype=dtype, **how)


def _gemm_tanh(dtype: str, **how: Any) -> Any:
    x, weight = _random((1, 97, 64), dtype, "x"), _random((37, 64), dtype, "weight", scale=0.1)
    return _core.op_gemm(x, weight, act="gelu_tanh", dtype=dtype, **how)


def _attention(dtype: str, **how: Any) -> Any:
    q, k, v = (_random((2, 49, 144), dtype, name) for name in "qkv")
    cached_k, cached_v = (_random((1, 31, 144), dtype, name) for name in ("cached_k", "cached_v"))
    return _core.op_attention(q, k, v, heads=2, cached_k=cached_k, cached_v=cached_v, dtype=dtype, **how)


def _causal_attention(dtype: str, **how: Any) -> Any:
    q, k, v = (_random((3, 17, 64), dtype, name) for name in "qkv")
    return _core.op_attention(q, k, v, heads=4, causal=True, dtype=dtype, **how)


def _attention_pool(dtype: str, **how: Any) -> Any:
    query, keys_values = _random((1, 1, 144), dtype, "query"), _random((2, 49, 288), dtype, "keys_values")
    return _core.op_attention_pool(query, keys_values, heads=2, dtype=dtype, **how)


def _layernorm(dtype: str, **how: Any) -> Any:
    x, bias = _random((2, 49, 145), dtype, "x", shift=0.3), _random((145,), dtype, "bias")
    weight = _random((145,), dtype, "weight", shift=1)
    return _core.op_layernorm(x, weight, bias, act="gelu", dtype=dtype, **how)


def _l2_normalize(dtype: str, **how: Any) -> Any:
    return _core.op_l2_normalize(_random((2, 49, 145), dtype, "x"), dtype=dtype, **how)


def _patch_gather(dtype: str, **how: Any) -> Any:
    return _core.op_patch_gather(_random((1, 3, 61, 90), dtype, "pixels"), 7, _GRID, dtype=dtype, **how)


def _position_add(dtype: str, **how: Any) -> Any:
    x, table = _random((1, _TOKENS, 72), dtype, "x"), _random((36, 72), dtype, "table")
    return _core.op_position_add(x, table, _GRID, dtype=dtype, **how)


def _depthwise(dtype: str, **how: Any) -> Any:
    x, weight = _random((1, 7 * 9, 19), dtype, "x"), _random((19, 1, 7, 7), dtype, "weight", scale=0.2)
    return _core.op_depthwise(x, weight, _random((19,), dtype, "bias"), 7, 9, dtype=dtype, **how)


def _cosine(dtype: str, **how: Any) -> Any:
    return _core.op_cosine(_random((2, 49, 145), dtype, "x"), _random((2, 145), dtype, "prompt"), dtype=dtype, **how)


def _max_pool(dtype: str, **how: Any) -> Any:
    return _core.op_max_pool(_random((2, 13, 11), "float32", "x"), 5, 7, dtype=dtype, **how)


def _probability(dtype: str, **how: Any) -> Any:
    return _core.op_probability(*(_random((97,), "float32", name) for name in ("low", "high")), dtype=dtype, **how)


def _expand(dtype: str, **how: Any) -> Any:
    probs = np.abs(_random((1, 5, 5), "float32", "probs"))
    return _core.op_expand(probs, 10, 13, smooth=True, dtype=dtype, **how)


def _rank(dtype: str, **how: Any) -> Any:
    coarse = _random((2, 5, 7), dtype, "probs")
    return _core.op_rank(np.ascontiguousarray(coarse.repeat(2, 1).repeat(2, 2)), dtype=dtype, **how)  # with equals


def _assign_looks(dtype: str, **how: Any) -> Any:
    grids = [(4, 5, 4, 5), (8, 10, 8, 10)]
    rank = [_core.op_rank(_random((1, h, w), "float32", f"{h}"), level="naive") for h, w, _, _ in grids]
    ends = np.array([[[3, 6, 9], [10, 25, 50]]], np.int32)
    positions, row_of, maps = _core.op_assign_looks(rank, grids, ends, dtype=dtype, **how)
    return [*positions, *row_of, *maps]


def _token_embedding(dtype: str, **how: Any) -> Any:
    ids = np.arange(24, dtype=np.int64).reshape(3, 8) * 5 % 23
    table, positions = _random((23, 19), dtype, "table"), _random((8, 19), dtype, "positions")
    return _core.op_token_embedding(ids, table, positions, dtype=dtype, **how)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "product, GELU, residual": _gemm,
    "product, tanh GELU": _gemm_tanh,
    "attention, cached keys": _attention,
    "attention, causal": _causal_attention,
    "attention pool": _attention_pool,
    "LayerNorm": _layernorm,
    "L2 norm": _l2_normalize,
    "patches": _patch_gather,
    "positions": _position_add,
    "depthwise convolution": _depthwise,
    "cosine": _cosine,
    "max pool": _max_pool,
    "probability": _probability,
    "probability map": _expand,
    "rank": _rank,
    "looks": _assign_looks,
    "token embedding": _token_embedding,
}
_WHOLE = ("rank", "looks", "max pool")  # results that must be the same, not only near


def names() -> list[str]:
    return list(_OPERATIONS)


def compare(name: str, dtype: str, level: str) -> float:
    """The greatest difference from the naive level, in tolerances: above 1 is a fault; infinite for NaN or a shape."""
    results = []
    for which in (level, "naive"):
        values = _OPERATIONS[name](dtype, level=which, threads=torch.get_num_threads())
        results.append(list(values) if isinstance(values, (list, tuple)) else [values])
    tolerance = 0.0 if name in _WHOLE else TOLERANCE[dtype]
    return max(_difference(got, want, tolerance) for got, want in zip(*results))


def _difference(got: np.ndarray, want: np.ndarray, tolerance: float) -> float:
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if tolerance == 0 or not want.size:
        return 0.0 if got.tobytes() == want.tobytes() else float("inf")
    got, want = _decoded(got), _decoded(want)
    if not np.isfinite(got).all():
        return float("inf")
    size = np.sqrt(np.mean(want * want)) + np.abs(want)
    return float((np.abs(got - want) / (tolerance * size + 1e-30)).max())

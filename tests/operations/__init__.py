"""Tests of single operations, and the extension that they call: `operations.gemm(...)` and so on."""

from .extension import load, operations

__all__ = ["load", "operations"]

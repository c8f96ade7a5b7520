"""Fixtures of the sweeps: the line of figures, a tiny checkpoint, photographs."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "user"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from support import Figures

# The sweeps that `make asan` runs: fast, and about memory.
UNDER_SANITIZERS = {"test_dlpack.py", "test_operation_arguments.py"}
if "PS3C_ASAN" in os.environ:
    collect_ignore = [
        file.name for file in Path(__file__).parent.glob("test_*.py") if file.name not in UNDER_SANITIZERS
    ]


@pytest.fixture
def figures(request, record_property):
    """Counts of this test's trials: call `finish()` at the end."""
    return Figures(record_property, request.node.nodeid.split("/")[-1])

"""Fixtures of the sweeps: the line of figures, a tiny checkpoint, photographs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "user"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from support import Figures


@pytest.fixture
def figures(request, record_property):
    """Counts of this test's trials: call `finish()` at the end."""
    return Figures(record_property, request.node.nodeid.split("/")[-1])

import pytest

from .support import DTYPES, LEVELS


@pytest.fixture(params=LEVELS)
def level(request):
    """Every instruction set that this processor has, "naive" included."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param

"""Functions that the GPU tests share: the skip mark, models on the GPU, the reference on the GPU.

The tests run wherever torch sees a GPU and ps3c was built with its CUDA library: `pytest tests/gpu`. Elsewhere each is
skipped with the reason.
"""

import functools
import shutil
from pathlib import Path

import models
import pytest
import reference
import torch


def missing() -> str:
    """The reason why the tests cannot run here, or an empty string."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    return ""


needs_gpu = pytest.mark.skipif(bool(missing()), reason=f"needs an NVIDIA GPU: {missing()}")
DEVICE = torch.device("cuda", 0)
FLOAT32_ERROR = 5e-6
HALF_RATIO = 1.2
HALVES = [torch.float16, torch.bfloat16]
HALF_IDS = ["float16", "bfloat16"]
EVERY = [torch.float32, *HALVES]
EVERY_IDS = ["float32", *HALF_IDS]


def new(kind: str, name: str, dtype: torch.dtype = torch.float32, device: torch.device = DEVICE):
    """ps3c's model on the GPU, a new one that the caller may change."""
    return models.build_ours(kind, name).to(device=device, dtype=dtype)


def ours(kind: str, name: str, dtype: torch.dtype = torch.float32):
    """ps3c's model on the GPU, shared by tests. They may change only the number of returned layers."""
    model = _ours(kind, name, dtype)
    if kind == "vision":
        model.vision_model.num_hidden_layers_to_return = model.vision_model.layers
    return model


@functools.lru_cache(maxsize=4)
def _ours(kind: str, name: str, dtype: torch.dtype):
    return new(kind, name, dtype)


@functools.lru_cache(maxsize=4)
def theirs(kind: str, name: str, dtype: torch.dtype = torch.float32, rounded: torch.dtype = None):
    """The reference's on the GPU, as models.theirs."""
    model = models.build(reference.load(), kind, name)
    model.load_state_dict(models._state(kind, name))
    return model.to(rounded or dtype).to(device=DEVICE, dtype=dtype)


def on_gpu(arguments: dict, device: torch.device = DEVICE) -> dict:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in arguments.items()}


def tensors(output) -> dict:
    """Every tensor of an output, by name."""
    named = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor):
            named[name] = value
        for index, tensor in enumerate(value if isinstance(value, (list, tuple)) else ()):
            named[f"{name}[{index}]"] = tensor
    return named


def assert_same_bits(one, other):
    """Two outputs hold the same tensors, bit for bit."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.to(second[name].device), second[name]), name


def cuda_include() -> Path:
    """The toolkit's headers. Skips the test where there are none."""
    nvcc = shutil.which("nvcc")
    places = [Path(nvcc).resolve().parent.parent / "include"] if nvcc else []
    for place in [*places, Path("/usr/local/cuda/include")]:
        if (place / "cuda_runtime_api.h").is_file():
            return place
    pytest.skip("needs CUDA's toolkit: no cuda_runtime_api.h beside nvcc or in /usr/local/cuda")

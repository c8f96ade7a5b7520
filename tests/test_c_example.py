"""examples/encode.c, the C library's example, against the Python package: same weights, image and features."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from ps3c import PS3VisionConfig, PS3VisionModel, _core
from ps3c.torch_api.vision_config import engine_config

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ADAPTERS = {"none": 0, "v1": 1, "v2": 2}
FROM_LENGTHS = ("num_scales", "num_select_layers")

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
    reason="the example is built with make and a C compiler, and one of them is missing",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    # A sanitized Python preloads libasan; the compiler and make must not inherit it.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(
        ["make", "-s", "-j2", "-C", str(EXAMPLES), "encode", f"BUILD={folder}", "CFLAGS=-O2 -Werror"],
        check=True,
        env=environment,
    )
    return folder / "encode"


def make_model(**changes):
    torch.manual_seed(0)
    config = dict(
        model_name="vit_tiny_patch16_224",
        class_token=False,
        pool="map",
        img_size=64,
        hidden_size=192,
        ps3_scales=[64, 128, 256],
        select_based_on_layer=[0, 3, 6, 11],
        max_select_num=64,
        highres_selection_module_hidden_dim=32,
        highres_selection_module_out_dim=24,
        highres_selection_module_depth=1,
        highres_selection_module_kernel_size=108,
    )
    model = PS3VisionModel(PS3VisionConfig(**{**config, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def write_model(encoder, folder):
    config = engine_config(encoder)
    lines = []
    for name, value in config.items():
        if name in FROM_LENGTHS:
            continue
        values = value if isinstance(value, list) else [ADAPTERS[value] if name == "adapter" else value]
        lines.append(
            " ".join([name, *(repr(float(one)) if isinstance(one, float) else str(int(one)) for one in values)])
        )
    (folder / "model.txt").write_text("\n".join(lines) + "\n")
    state = encoder.state_dict()
    with open(folder / "weights.bin", "wb") as file:
        for name, shape in _core.VisionModel(config).weights:
            assert tuple(state[name].shape) == tuple(shape)
            file.write(state[name].numpy().astype(np.float32).tobytes())


def encode(program, folder, image, looks, environment=None):
    (folder / "image.bin").write_bytes(image.numpy().tobytes())
    names = [str(folder / name) for name in ("model.txt", "weights.bin", "image.bin")]
    sizes = [str(size) for size in image.shape[-2:]]
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        [str(program), *names, *sizes, str(looks), str(folder / "features.bin")],
        capture_output=True,
        text=True,
        env={**clean, **(environment or {})},
    )


@pytest.mark.parametrize("looks", [0, 2, "all"])
@pytest.mark.parametrize("size", [(256, 256), (90, 201)])
def test_features_are_those_of_python(program, tmp_path, size, looks):
    model = make_model()
    write_model(model.vision_model, tmp_path)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = model(image, num_look_close=looks).last_hidden_state[0]
    result = encode(program, tmp_path, image, looks)
    assert result.returncode == 0, result.stderr
    features = torch.from_numpy(np.fromfile(tmp_path / "features.bin", dtype=np.float32)).reshape(-1, 192)
    assert features.shape == expected.shape
    # The program's kernels are compiled by the same rules, so the same instruction set gives nearly the same bits.
    assert torch.linalg.norm(features - expected) <= 1e-6 * torch.linalg.norm(expected)


def test_bad_files_get_a_sentence(program, tmp_path):
    model = make_model()
    write_model(model.vision_model, tmp_path)
    image = torch.zeros(1, 3, 64, 64)
    weights = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(weights[:-4])
    result = encode(program, tmp_path, image, 1)
    assert result.returncode == 1 and "weights.bin" in result.stderr
    (tmp_path / "weights.bin").write_bytes(weights)
    result = encode(program, tmp_path, image, -5)
    assert result.returncode == 1 and "num_look_close: got -5" in result.stderr
    result = encode(program, tmp_path, image, 1, {"PS3C_CPU_LEVEL": "pentium"})
    assert result.returncode == 1 and "PS3C_CPU_LEVEL: got 'pentium'" in result.stderr
    (tmp_path / "model.txt").write_text("width 100\nheads 3\n")
    result = encode(program, tmp_path, image, 1)
    assert result.returncode == 1 and "heads" in result.stderr

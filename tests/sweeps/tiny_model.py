"""The smallest model that ps3c can load: a trunk of one layer and 8 channels, scales of 16 and 32 pixels.

A pass takes about as long as its Python code, so that a sweep can make 10,000 of them.
"""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRUNK = "ps3c_test_tiny"
VISION = dict(
    model_name=TRUNK,
    hidden_size=8,
    pool="map",
    img_size=16,
    ps3_scales=[16, 32],
    select_based_on_layer=[0],
    max_select_num=4,
    separate_pos_emb=True,
    highres_selection_feature=False,
)
TEXT = dict(
    output_dim=8,
    prompt_proj_dim=8,
    context_length=8,
    vocab_size=512,
    width=8,
    heads=1,
    layers=1,
    mlp_ratio=1.0,
    no_causal_mask=True,
    pool_type="last",
    proj_bias=True,
    norm_kwargs={"eps": 1e-6},
)


def register(name: str = TRUNK, width: int = 8, patch: int = 8, img_size: int = 16) -> None:
    """Makes a trunk of one layer known to ps3c in this process."""
    from ps3c.torch_api.architectures import ARCHITECTURES, Architecture

    ARCHITECTURES[name] = Architecture(width, 1, 1, 1.0, patch, img_size, False)


def write_checkpoint(folder: Path, image_size: int = 32, **vision) -> Path:
    """Writes a checkpoint of both towers with random weights. image_size: of the processor. vision: other settings."""
    from ps3c import PS3Config, PS3TextConfig, PS3VisionConfig

    register()
    make = runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))
    folder.mkdir(parents=True, exist_ok=True)
    towers = dict(
        vision_config=PS3VisionConfig(**{**VISION, **vision}).to_dict(), text_config=PS3TextConfig(**TEXT).to_dict()
    )
    config = PS3Config(**towers)
    entries = {**config.to_dict(), "architectures": ["PS3Model"], "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(entries))
    image = {"image_size": image_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    make["write_tokenizer"](folder, TEXT["context_length"])
    make["write_weights"](folder, config, 0)
    return folder

"""Writes a checkpoint with random weights and the sizes of PS3-1.5K-SigLIP2, to try ps3c without a download.

    python examples/make_checkpoint.py FOLDER [--seed N] [--tiny]

The folder has the files of a published checkpoint: config.json, model.safetensors (vision and text tower, logit_scale
and logit_bias, bfloat16, 2.4 GB), preprocessor_config.json and tokenizer_config.json. It also has a small tokenizer,
which this script trains. --tiny writes a model of 2 MB for images of 256 pixels, which runs in less than a second.

LayerNorm weights are near 1, matrices are scaled by their fan-in, biases and position tables are not zero. So attention
and selection depend on the image. But the results of random weights have no meaning.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from ps3c import PS3Config, PS3Model, PS3TextConfig, PS3VisionConfig

VISION = dict(
    model_name="vit_so400m_patch14_siglip_378",
    hidden_size=1152,
    pool="map",
    ps3_scales=[378, 756, 1512],
    select_based_on_layer=[0, 9, 18, 26],
    max_select_num=2560,
    separate_pos_emb=True,
    highres_selection_feature=True,
    highres_selection_module_hidden_dim=512,
    highres_selection_module_out_dim=512,
    highres_selection_module_depth=3,
    highres_selection_module_kernel_size=28,
)
TEXT = dict(
    output_dim=1152,
    prompt_proj_dim=1152,
    context_length=64,
    vocab_size=256000,
    width=1152,
    heads=16,
    layers=27,
    mlp_ratio=3.7362,
    no_causal_mask=True,
    pool_type="last",
    proj_bias=True,
    act_kwargs={"approximate": "tanh"},
    norm_kwargs={"eps": 1e-6},
)
TINY_VISION = dict(
    VISION,
    model_name="test_vit",
    class_token=False,
    img_size=64,
    hidden_size=64,
    ps3_scales=[64, 128, 256],
    select_based_on_layer=[0, 2, 4, 5],
    max_select_num=80,
    highres_selection_module_hidden_dim=16,
    highres_selection_module_out_dim=24,
    highres_selection_module_depth=1,
    highres_selection_module_kernel_size=56,
)
TINY_TEXT = dict(
    TEXT, output_dim=64, prompt_proj_dim=64, context_length=32, vocab_size=512, width=64, heads=2, layers=3
)
LOGITS = {"logit_scale": 4.0, "logit_bias": -10.0}  # before exp; similar to SigLIP's trained values
SENTENCES = [
    "A tall spire with a cross at the top of the building.",
    "A green rope on the green and red boat.",
    "The officer's cap, the medals on her uniform and the flag behind her.",
    "Small letters on a sign far away; a face in a crowd; the hands of a clock.",
]
NOISE = 16_777_259  # a prime: no row length divides it, so the rows of a matrix differ


class Noise:
    """Normally distributed numbers. One block is reused from random offsets: a billion numbers take seconds."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.block = torch.randn(NOISE, generator=self.generator).to(torch.bfloat16)

    def __call__(self, shape) -> torch.Tensor:
        count = torch.Size(shape).numel()
        first = int(torch.randint(NOISE, (1,), generator=self.generator))
        if first + count <= NOISE:
            return self.block[first : first + count].clone().reshape(shape)
        turned = torch.cat([self.block[first:], self.block[:first]])
        whole, rest = divmod(count, NOISE)
        return torch.cat([turned] * whole + [turned[:rest]]).reshape(shape)


def random_weight(name: str, shape, noise: Noise) -> torch.Tensor:
    """Random bfloat16 values for a parameter. The scale depends on the kind of parameter, which its name tells."""
    values = noise(shape)
    if name.endswith("bias"):
        return 0.1 * values
    if ".blocks." in name and name.startswith("vision_model.highres") and name.split(".")[-2].isdigit():
        return 0.5 + 0.1 * values  # the ConvNeXt blocks' layer scale
    if values.ndim == 1 and name.endswith("weight"):
        return 1.0 + 0.1 * values  # LayerNorm
    if "pos_emb" in name or name.endswith("positional_embedding"):
        return 0.3 * values
    if name.endswith(("latent", "prior_prompt", "token_embedding.weight")):
        return values
    return values / values[0].numel() ** 0.5


def write_weights(folder: Path, config: PS3Config, seed: int) -> int:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in PS3Model(config).state_dict().items()}
    noise = Noise(seed)
    tensors = {name: random_weight(name, shape, noise) for name, shape in shapes.items()}
    tensors.update({name: torch.tensor(value, dtype=torch.bfloat16) for name, value in LOGITS.items()})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in tensors.values())


def write_tokenizer(folder: Path, context_length: int) -> None:
    """Writes a byte-pair tokenizer with at most 512 tokens. It encodes any text; most of the 256,000 ids are unused."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.token_to_id("<eos>"))]
    )
    where = folder / "tokenizer"
    where.mkdir(exist_ok=True)
    tokenizer.save(str(where / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "add_prefix_space": True,  # transformers 4 would take False
    }
    (where / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    ours = {"tokenizer_name": where.name, "context_length": context_length, "clean": "canonicalize"}
    (folder / "tokenizer_config.json").write_text(json.dumps(ours, indent=2))


def write_checkpoint(folder: Path, tiny: bool = False, seed: int = 0) -> int:
    """Writes all files of a checkpoint. Returns the number of parameters."""
    vision, text = (TINY_VISION, TINY_TEXT) if tiny else (VISION, TEXT)
    folder.mkdir(parents=True, exist_ok=True)
    config = PS3Config(vision_config=PS3VisionConfig(**vision).to_dict(), text_config=PS3TextConfig(**text).to_dict())
    entries = {**config.to_dict(), "architectures": ["PS3Model"], "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(entries, indent=2))
    image = {
        "image_size": vision["ps3_scales"][-1],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2))
    write_tokenizer(folder, text["context_length"])
    return write_weights(folder, config, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="write a model of 2 MB that runs in less than a second")
    arguments = parser.parse_args()

    begin = time.perf_counter()
    count = write_checkpoint(arguments.folder, arguments.tiny, arguments.seed)
    print(f"{arguments.folder}: {count / 1e6:.1f} million parameters in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()

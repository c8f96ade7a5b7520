"""ps3c with the transformers versions that it promises to work with, each in a process of its own.

A version is installed aside, in .cache/transformers, with those of its requirements that the environment does not
meet; everything else, torch above all, is the environment's. The checks are in transformers_matrix.py.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import models
import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

import ps3c

TESTS = Path(__file__).resolve().parent
VERSIONS = ["transformers==4.46.3", "transformers>=4.57,<4.58", "transformers>=5"]


def pip(*arguments) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def unmet(folder: Path) -> list:
    """Requirements of the packages in folder that neither it nor the environment meets."""
    here = {d.metadata["Name"].lower().replace("_", "-"): d for d in distributions(path=[str(folder)])}
    found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions() if d.metadata["Name"]}
    found.update((name, d.version) for name, d in here.items())
    missing = []
    for distribution in here.values():
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                version = found.get(requirement.name.lower().replace("_", "-"))
                if version is None or not requirement.specifier.contains(version, prereleases=True):
                    missing.append(f"{requirement.name}{requirement.specifier}")
    return sorted(set(missing))


def installed(version: str) -> Path:
    folder = (
        TESTS.parent / ".cache" / "transformers" / version.replace("transformers", "").strip("=<>").replace("<", "-")
    )
    if not (folder / ".ready").exists():
        pip("--target", str(folder), version)
        for _ in range(10):
            missing = unmet(folder)
            if not missing:
                break
            pip("--upgrade", "--target", str(folder), *missing)
        assert not unmet(folder)
        (folder / ".ready").touch()
    return folder


def prepare(folder: Path) -> None:
    """A combined checkpoint, a tokenizer, and what the models in it give here."""
    text = {**models.text_config("clip"), "context_length": 12}  # causal, with layer scale: names that 4.46 changes
    model = ps3c.PS3Model(ps3c.PS3Config(text_config=text, vision_config=models.vision_config("tiny"))).eval()
    model.load_state_dict(models.random_weights(model, seed=4))
    model.save_pretrained(folder / "checkpoint")
    path = folder / "checkpoint" / "model.safetensors"
    save_file(
        {**load_file(path), "logit_scale": torch.ones(1), "logit_bias": torch.ones(1)}, path, metadata={"format": "pt"}
    )
    image, ids = models.image(2, 70, 100), torch.arange(24).reshape(2, 12) * 3
    torch.save(
        {
            "state": model.state_dict(),
            "image": image,
            "ids": ids,
            "features": model.encode_image(image, num_look_close=2).last_hidden_state,
            "prompt": model.encode_text(ids).prompt,
            "tokens": [[4, 2, 3, 1, 1, 0], [2, 0, 0, 0, 0, 0]],
        },
        folder / "expected.pt",
    )
    words = Tokenizer(
        tokenizer_models.WordLevel({"[PAD]": 0, "[UNK]": 1, "photo": 2, "of": 3, "a": 4}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder / "tokenizer"
    )
    letters = Tokenizer(tokenizer_models.BPE({"a": 0, "\u0120": 1, "b": 2, "<pad>": 3}, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    (folder / "bytes").mkdir()
    letters.save(str(folder / "bytes" / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (folder / "bytes" / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers(version, tmp_path):
    prepare(tmp_path)
    paths = [installed(version), TESTS, Path(ps3c.__file__).parent.parent]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    result = subprocess.run(
        [sys.executable, str(TESTS / "transformers_matrix.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().splitlines()[-1].startswith("9 checks with transformers "), result.stdout
    assert result.stdout.split()[-1].startswith(re.search(r"\d", version).group()), result.stdout

"""What ps3c promises of every transformers version, run in a process of its own: `transformers_matrix.py FOLDER`.

FOLDER holds a combined checkpoint, a small tokenizer's folder and `expected.pt`, made by test_transformers_matrix.py
with another transformers. Every check prints its name; the first that fails ends the process.
"""

import copy
import json
import pickle
import shutil
import sys
import warnings
from pathlib import Path

import reference

reference.declare_torchvision_operators()

import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import ps3c  # noqa: E402

FOLDER = Path(sys.argv[1])
CHECKPOINT = FOLDER / "checkpoint"
EXPECTED = torch.load(FOLDER / "expected.pt")
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def raises(exception, words: str, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except exception as error:
        assert words in str(error), f"{words!r} is not in {error}"
    else:
        raise AssertionError(f"no {exception.__name__}")


@check
def numbers_are_the_same():
    vision = ps3c.PS3VisionModel.from_pretrained(CHECKPOINT)
    text = ps3c.PS3TextModel.from_pretrained(CHECKPOINT)
    both = ps3c.PS3Model.from_pretrained(CHECKPOINT)
    for model, tower in ((vision, "vision_model"), (text, "text_model")):
        for name, value in getattr(model, tower).state_dict().items():
            assert torch.equal(value, EXPECTED["state"][f"{tower}.{name}"]), name
    for outputs in (
        vision(EXPECTED["image"], num_look_close=2),
        both.encode_image(EXPECTED["image"], num_look_close=2),
    ):
        assert torch.equal(outputs.last_hidden_state, EXPECTED["features"])
    for outputs in (text(EXPECTED["ids"]), both.encode_text(EXPECTED["ids"])):
        assert torch.equal(outputs.prompt, EXPECTED["prompt"])


@check
def dtype_keywords():
    for keyword in ("dtype", "torch_dtype"):
        for dtype in (torch.bfloat16, torch.float16):
            model = ps3c.PS3VisionModel.from_pretrained(CHECKPOINT, **{keyword: dtype})
            assert {p.dtype for p in model.parameters()} == {dtype}
            assert model(EXPECTED["image"].to(dtype), num_look_close=1).last_hidden_state.dtype == dtype
    model.save_pretrained(FOLDER / "half")
    assert ps3c.PS3VisionModel.from_pretrained(FOLDER / "half", dtype="auto").dtype == torch.float16


@check
def missing_parameters_are_initialised():
    state = load_file(CHECKPOINT / "model.safetensors")
    (FOLDER / "missing").mkdir()
    (FOLDER / "missing" / "config.json").write_text((CHECKPOINT / "config.json").read_text())
    for kept in (sorted(state)[::2], sorted(state)[1::2], []):
        path = FOLDER / "missing" / "model.safetensors"
        save_file({name: state[name] for name in kept}, path, metadata={"format": "pt"})
        for name, value in ps3c.PS3Model.from_pretrained(FOLDER / "missing").state_dict().items():
            assert not value.is_meta and torch.isfinite(value).all() and value.abs().max() < 8, name
            assert name not in kept or torch.equal(value, state[name]), name
            if value.ndim > 1 and name not in kept and "pos_emb_residual" not in name:
                assert 1e-4 < value.std() < 2, name


@check
def saved_and_loaded_again():
    model = ps3c.PS3Model.from_pretrained(CHECKPOINT)
    model.save_pretrained(FOLDER / "again", max_shard_size="4MB")
    again = ps3c.PS3Model.from_pretrained(FOLDER / "again", output_loading_info=True)
    assert not again[1]["missing_keys"] and not again[1]["unexpected_keys"], again[1]
    assert all(torch.equal(a, b) for a, b in zip(again[0].parameters(), model.parameters()))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.encode_text(EXPECTED["ids"]).prompt, EXPECTED["prompt"])
    config = ps3c.PS3VisionConfig.from_pretrained(CHECKPOINT)
    assert type(config) is ps3c.PS3VisionConfig and config.ps3_scales == [64, 128, 256]
    assert ps3c.PS3VisionModel.from_pretrained(CHECKPOINT, max_select_num=32).config.max_select_num == 32


@check
def automatic_classes():
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    assert type(AutoModel.from_pretrained(CHECKPOINT)) is ps3c.PS3Model
    AutoConfig.register("ps3", ps3c.PS3Config)
    AutoConfig.register("ps3_vision_model", ps3c.PS3VisionConfig)
    AutoModel.register(ps3c.PS3VisionConfig, ps3c.PS3VisionModel)
    (CHECKPOINT / "preprocessor_config.json").write_text(json.dumps(dict(image_size=64, mean=[0.5] * 3, std=[0.5] * 3)))
    assert type(AutoImageProcessor.from_pretrained(CHECKPOINT)) is ps3c.PS3ImageProcessor


@check
def errors():
    raises(OSError, "nowhere", ps3c.PS3VisionModel.from_pretrained, FOLDER / "nowhere")
    state = load_file(CHECKPOINT / "model.safetensors")
    for name in ("wrong", "broken"):
        (FOLDER / name).mkdir()
        (FOLDER / name / "config.json").write_text((CHECKPOINT / "config.json").read_text())
    state["vision_model.prior_prompt"] = torch.zeros(7)
    save_file(state, FOLDER / "wrong" / "model.safetensors", metadata={"format": "pt"})
    load = ps3c.PS3VisionModel.from_pretrained
    raises(RuntimeError, "prior_prompt", load, FOLDER / "wrong", dtype=torch.float16)
    (FOLDER / "broken" / "model.safetensors").write_bytes(b"nothing that can be read")
    raises(OSError, "model.safetensors cannot be read", load, FOLDER / "broken", dtype=torch.float16)
    assert torch.get_default_dtype() == torch.float32


@check
def switches_are_accepted():
    for attention in ("eager", "sdpa", "flash_attention_2"):
        model = ps3c.PS3VisionModel.from_pretrained(CHECKPOINT, attn_implementation=attention)
    model.gradient_checkpointing_enable()
    ps3c.PS3TextModel.from_pretrained(CHECKPOINT).gradient_checkpointing_enable()
    with torch.device("meta"):
        assert next(ps3c.PS3VisionModel(model.config).parameters()).is_meta


@check
def processor_and_tokenizer():
    processor = ps3c.PS3ImageProcessor(image_size=(48, 64))
    processor.save_pretrained(FOLDER / "processor")
    image = Image.new("LA", (70, 50), (90, 200))
    wanted = processor(image)["pixel_values"][0]
    assert wanted.shape == (3, 48, 64)
    assert torch.equal(ps3c.PS3ImageProcessor.from_pretrained(FOLDER / "processor")(image)["pixel_values"][0], wanted)
    tokenizer = ps3c.PS3Tokenizer(str(FOLDER / "tokenizer"), context_length=6, clean="canonicalize")
    tokenizer.save_pretrained(FOLDER / "ps3_tokenizer")
    for one in (tokenizer, ps3c.PS3Tokenizer.from_pretrained(FOLDER / "ps3_tokenizer")):
        assert one(["A photo_of, the dog", "photo"]).tolist() == EXPECTED["tokens"]
        assert repr(one).startswith("PS3Tokenizer(") and len(one) == 5
        assert (one.pad_token_id, one.vocab_size, one.is_fast) == (0, 5, True)
        assert one.encode("a photo") == [4, 2] and one.pad({"input_ids": [[4], [4, 2]]})["input_ids"] == [
            [4, 0],
            [4, 2],
        ]
    (CHECKPOINT / "tokenizer_config.json").write_text(json.dumps({"tokenizer_name": "words", "context_length": 6}))
    shutil.copytree(FOLDER / "tokenizer", CHECKPOINT / "words")
    found = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    assert type(found) is ps3c.PS3Tokenizer and found("a photo").tolist() == [[4, 2, 0, 0, 0, 0]]


@check
def ids_are_those_of_the_tokenizers_files():
    tokenizer = ps3c.PS3Tokenizer(str(FOLDER / "bytes"), context_length=4)
    assert tokenizer("ab").tolist() == [[1, 0, 2, 3]]  # the space in front is tokenizer.json's


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    with torch.no_grad():
        for function in CHECKS:
            function()
            print("ok", function.__name__)
    print(f"{len(CHECKS)} checks with transformers {transformers.__version__}")

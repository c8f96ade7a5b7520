"""No call of the classes of ps3-torch's API leaves memory, references, open files or threads behind (leaks.py).

Successes: forward with each option, changing sizes and quotas, steps, the low resolution, feature maps, texts, the
tokenizer, the image processor. Refusals: the tables of tests/test_bad_input.py and test_python_bad_input.py.
"""

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tiny_model
import torch
from leaks import fewer, malloc_counter, measure, row
from test_leaks_core import table

import ps3c


def vision_model(**changes):
    tiny_model.register()
    return ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**{**tiny_model.VISION, **changes})).eval().requires_grad_(False)


def text_model(**changes):
    return ps3c.PS3TextModel(ps3c.PS3TextConfig(**{**tiny_model.TEXT, **changes})).eval().requires_grad_(False)


def forward():
    model, pixels = vision_model(), torch.ones(1, 3, 32, 24)
    encoder = model.vision_model
    prompt, maps, words = torch.ones(1, 8), torch.ones(1, 3, 2), torch.ones(1, 1)
    forms = {
        "no look": dict(num_look_close=0),
        "a look": dict(num_look_close=1),
        "all looks": dict(num_look_close="all"),
        "patches": dict(num_token_look_close=2),
        "prompt": dict(num_look_close=1, prompt=prompt),
        "gt_selection_maps": dict(num_look_close=1, gt_selection_maps=maps),
        "smooth_selection_prob": dict(num_look_close=1, smooth_selection_prob=True),
        "only_select_first_n_scale": dict(num_look_close=1, only_select_first_n_scale=1),
        "only_select_first_n_scale, a list": dict(num_look_close=1, only_select_first_n_scale=[1]),
        "pre-training": dict(output_hidden_states=False),
        "pre-training, all options": dict(
            output_hidden_states=False,
            prompt=prompt,
            gt_selection_maps=maps,
            is_global_text=words,
            pool_gt_token_only=True,
            smooth_selection_prob=True,
        ),
    }
    for name, arguments in forms.items():
        yield row(f"forward: {name}", model, pixels, **arguments)
    yield row("forward of a strided batch", model, torch.ones(2, 32, 24, 3).permute(0, 3, 1, 2), num_look_close=1)
    half = vision_model().bfloat16()
    yield row("forward in bfloat16", half, pixels.bfloat16(), num_look_close=1)
    yield row("forward_low_res", encoder.forward_low_res, pixels, output_hidden_states=True)


def others():
    yield from fewer(4000, other_calls())


def constructed():
    model, pixels, state = vision_model(), torch.ones(1, 3, 32, 24), {"number": 0}
    quotas = [[1 + number] for number in range(6)]  # more than there are configurations in the cache

    def changing_quotas():
        state["number"] += 1
        model.vision_model.max_select_num_each_scale = quotas[state["number"] % len(quotas)]
        model(pixels, num_look_close=1)

    yield row("forward of changing quotas", changing_quotas, calls=400)
    yield row("PS3VisionModel", vision_model, calls=200)
    yield row("PS3TextModel", text_model, calls=200)


def other_calls():
    model, half, pixels = vision_model(), vision_model().bfloat16(), torch.ones(1, 3, 32, 24)
    encoder = model.vision_model
    outputs = model(pixels, num_look_close=1)
    state = {"number": 0}

    def changing_sizes():
        state["number"] += 1  # of 4,087 sizes, more than there are calls: every plan is a new one
        height, width = 1 + state["number"] % 61, 1 + state["number"] // 61 % 67
        model(torch.ones(1, 3, height, width), num_look_close=1)

    def stepwise(stop=99):
        for number, _ in enumerate(encoder.steps(pixels, num_look_close="all", pooled=True, looks_per_step=1)):
            if number == stop:
                break

    def in_autocast():
        with torch.autocast("cpu", torch.bfloat16):
            half(pixels, num_look_close=1)

    def in_a_thread():
        thread = threading.Thread(target=model, args=(pixels,), kwargs={"num_look_close": 1})
        thread.start()
        thread.join()

    def replaced():
        encoder.prior_prompt = torch.nn.Parameter(encoder.prior_prompt.detach().clone(), requires_grad=False)
        model(pixels, num_look_close=1)

    yield row("steps", stepwise)
    yield row("steps, the first only", stepwise, 0)
    yield row("forward of changing sizes", changing_sizes)
    yield row("forward inside torch.autocast", in_autocast)
    yield row("forward in a new thread", in_a_thread)
    yield row("forward after a weight was replaced", replaced)
    yield row("format_features", encoder.format_features_into_feature_maps, outputs[0], outputs.selection_maps)
    yield row(
        "format_features of no maps", encoder.format_features_into_feature_maps, outputs[0], None, raises=ValueError
    )
    yield row("resize_to_scale_i", encoder.resize_to_scale_i, pixels, 1)
    yield row("max_highres_token_num", encoder.max_highres_token_num, pixels, 1)


def wide_model():
    """As the model of test_bad_input.py, of one layer."""
    import models

    tiny_model.register("ps3c_test_wide", 192, 16, 64)
    config = {**models.vision_config("no_highres"), "model_name": "ps3c_test_wide", "select_based_on_layer": [0]}
    return ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**config)).eval().requires_grad_(False)


def assigned(model, name, value):
    """The model's forward with a setting that it refuses."""
    model.vision_model.__dict__[name] = value
    return model


def refused():
    yield from fewer(2000, refused_arguments())


def refused_arguments():
    import models
    import test_bad_input
    import test_python_bad_input
    import test_steps

    model, image = wide_model(), models.image(1, 60, 80)
    for name, (pixels, kind, _) in test_bad_input.PIXELS.items():
        yield row(f"pixel_values {name}", model, pixels, raises=kind, num_look_close=1)
    for name, (arguments, kind, _) in test_bad_input.ARGUMENTS.items():
        if not {"num_token_look_close", "output_hidden_states"} & set(arguments) and name != "neither":
            arguments = {"num_look_close": 1, **arguments}
        yield row(f"argument: {name}", model, image, raises=kind, **arguments)
    for name, (arguments, named, kind, _) in test_python_bad_input.BAD_CALLS.items():
        yield row(f"call: {name}", model, *arguments, raises=kind, **named)
    for arguments, kind, message in table(test_steps.test_bad_arguments):
        yield row(f"steps: {message}", model.vision_model.steps, image, raises=kind, **arguments)
    for name, (quotas, kind, _) in test_bad_input.QUOTAS.items():
        bad = assigned(wide_model(), "max_select_num_each_scale", quotas)
        yield row(f"quotas: {name}", bad, image, raises=kind, num_look_close=1)
    for layers, kind in table(test_bad_input.test_hidden_layers_assigned):
        bad = assigned(wide_model(), "num_hidden_layers_to_return", layers)
        yield row(f"layers {layers}", bad, image, raises=kind, num_look_close=1)


def states():
    """Models in a state that forward refuses."""
    image = torch.ones(1, 3, 60, 80)
    grad = image.clone().requires_grad_(True)
    yield row("pixels that require grad", wide_model(), grad, raises=NotImplementedError, num_look_close=1)
    training = wide_model().train().requires_grad_(True)
    yield row("a model in training", training, image, raises=NotImplementedError, num_look_close=1)
    one = wide_model()
    one.vision_model.trunk.blocks[0].norm1.half()
    yield row("a weight of another dtype", one, image, raises=TypeError, num_look_close=1)
    one = wide_model()
    one.vision_model.prior_prompt = torch.nn.Parameter(torch.zeros(5), requires_grad=False)
    yield row("a weight of another shape", one, image, raises=ValueError, num_look_close=1)
    one = wide_model()
    del one.vision_model.selection_feature_proj.fc1.bias
    yield row("a missing weight", one, image, raises=AttributeError, num_look_close=1)
    one = wide_model()
    one.vision_model.trunk.blocks[0].mlp.fc1 = torch.nn.Identity()
    yield row("a layer of another type", one, image, raises=TypeError, num_look_close=1)
    low_res = wide_model().vision_model.forward_low_res
    yield row("return_kv_cache", low_res, image, raises=NotImplementedError, return_kv_cache=True)
    many = image.expand(1 << 30, 3, 60, 80)
    yield row("no memory", wide_model(), many, raises=MemoryError, num_look_close="all")


def texts():
    import test_bad_input

    model, ids = text_model(), torch.tensor([[1, 2, 3]])
    yield row("PS3TextModel", model, ids)
    yield row("PS3TextModel of int32", model, ids.int())
    yield row("PS3TextModel, every token", text_model(pool_type="none"), ids)
    yield row("PS3TextModel, causal with a class token", text_model(no_causal_mask=False, embed_cls=True), ids)
    narrow = text_model(vocab_size=97, context_length=12)
    for name, (bad, kind, _) in test_bad_input.IDS.items():
        yield row(f"PS3TextModel: {name}", narrow, bad, raises=kind)


def processors():
    from PIL import Image

    with TemporaryDirectory() as folder:
        tiny_model.write_checkpoint(Path(folder))
        tokenizer = ps3c.PS3Tokenizer.from_pretrained(folder)
        yield from fewer(4000, tokens(tokenizer))
        for kind in (ps3c.PS3Tokenizer, ps3c.PS3ImageProcessor):
            yield row(f"{kind.__name__}.from_pretrained", kind.from_pretrained, folder, calls=200)
            missing = f"{folder}/none"
            yield row(f"{kind.__name__}: no folder", kind.from_pretrained, missing, raises=OSError, calls=1000)

    processor = ps3c.PS3ImageProcessor(image_size=16, mean=0.5, std=0.5)
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "F"):
        yield row(f"PS3ImageProcessor {mode}", processor, Image.new(mode, (11, 7)), calls=4000)
    picture = Image.new("RGB", (16, 16))
    yield row("PS3ImageProcessor without a resize", processor, picture)
    yield row("PS3ImageProcessor of a tuple", processor, (picture, torch.zeros(2), {"id": 3}), calls=4000)
    yield row("PS3ImageProcessor of an array", processor, [[1]], raises=TypeError)
    yield row("PS3ImageProcessor without pixels", processor, Image.new("RGB", (0, 4)), raises=ValueError)
    for change in (dict(image_size=0), dict(image_size=16, std=-1), dict(image_size=16, interpolation="nearest")):
        yield row(f"PS3ImageProcessor {change}", ps3c.PS3ImageProcessor, raises=ValueError, **change)


def tokens(tokenizer):
    yield row("PS3Tokenizer", tokenizer, ["A tall spire.", "a rope &amp; a boat"])
    yield row("PS3Tokenizer of one text", tokenizer, "A tall spire.", context_length=4)
    yield row("PS3Tokenizer with transformers' options", tokenizer, ["a", "a b"], padding=True, return_tensors="pt")
    yield row("PS3Tokenizer.encode", tokenizer.encode, "a rope")
    yield row("PS3Tokenizer.decode", tokenizer.decode, [3, 4, 5])
    for bad, kind in [(3, TypeError), (["a", 3], TypeError), ([], ValueError)]:
        yield row(f"PS3Tokenizer of {bad}", tokenizer, bad, raises=kind)
    yield row("PS3Tokenizer: context_length", tokenizer, "a", context_length=-1, raises=ValueError)


GROUPS = {
    "forward": forward,
    "others": others,
    "constructed": constructed,
    "refused": refused,
    "states": lambda: fewer(2000, states()),
    "texts": texts,
    "processors": processors,
}


@pytest.mark.skipif(malloc_counter() is None, reason="needs glibc 2.33, which counts malloc's bytes (mallinfo2)")
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_stays(group, figures, tmp_path):
    measure(__file__, group, figures, tmp_path)

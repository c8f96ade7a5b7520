"""The Python API: names and shapes of parameters, first values, loading and saving, attributes, bad input."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import models
import numpy as np
import pytest
import reference
import torch
from safetensors.torch import load_file, save_file

import ps3c
from ps3c.torch_api.architectures import ARCHITECTURES, architecture_names, find_architecture

IMAGE = models.image(2, 70, 100)
IDS = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vision():
    """A tiny ps3c model with random weights. Tests must not change it."""
    return models.ours("vision", "tiny")


@pytest.fixture(scope="module")
def text():
    return models.ours("text", "siglip")


@pytest.fixture(scope="module")
def expected(vision):
    return vision(IMAGE, num_look_close=2).last_hidden_state.clone()


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def combined_model() -> ps3c.PS3Model:
    config = ps3c.PS3Config(text_config=models.text_config("clip"), vision_config=models.vision_config("tiny"))
    model = ps3c.PS3Model(config).eval().requires_grad_(False)
    model.load_state_dict(models.random_weights(model, seed=3))
    return model


@pytest.fixture(scope="module")
def combined():
    return combined_model()


@pytest.fixture
def checkpoint(tmp_path, combined):
    """A folder as the published ones: both towers, and the scores' two scalars."""
    combined.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {**state, "logit_scale": torch.ones(1), "logit_bias": torch.ones(1)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    return tmp_path


# ---- parameters -----------------------------------------------------------------------------------------------------


def both_states(kind: str, name: str):
    states = []
    for package in (reference.load(), ps3c):
        torch.manual_seed(0)
        states.append((models.build(package, kind, name).state_dict(), torch.rand(1)))
    return states


@pytest.mark.parametrize(
    "kind, name",
    [("vision", name) for name in models.VISION if name != "patch14"] + [("text", name) for name in models.TEXT],
)
def test_parameters_are_the_references(kind, name):
    """Names in order, shapes, dtypes, and for one seed the values and the state of the random generator."""
    (theirs, their_random), (ours, our_random) = both_states(kind, name)
    assert list(ours) == list(theirs)
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []
    assert torch.equal(our_random, their_random)


@pytest.mark.parametrize(
    "name",
    [
        "vit_so400m_patch14_siglip_384",
        "vit_large_patch16_siglip_384",
        "vit_base_patch16_siglip_gap_256",
        "vit_small_patch32_224",
        "vit_giant_patch14_224",
        "vit_so400m_patch16_siglip_512",
        "flexivit_small",
        "vit_gigantic_patch14_224",
    ],
)
def test_architecture_sizes_are_timms(name):
    """One block of each size: timm's trunk and ours have the same parameters."""
    reference.load()
    import timm

    architecture = find_architecture(name)
    theirs = timm.create_model(name, num_classes=0, global_pool="map", class_token=False, depth=1)
    shapes = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    assert shapes["blocks.0.mlp.fc1.weight"] == (architecture.mlp_hidden, architecture.width)
    assert shapes["patch_embed.proj.weight"] == (architecture.width, 3, architecture.patch, architecture.patch)
    assert shapes["pos_embed"] == (1, (architecture.img_size // architecture.patch) ** 2, architecture.width)
    assert theirs.blocks[0].attn.num_heads == architecture.heads
    assert theirs.blocks[0].norm1.eps == architecture.norm_eps
    gelu = {"GELU": "erf", "GELUTanh": "tanh"}[type(theirs.blocks[0].mlp.act).__name__]
    assert gelu == architecture.gelu


def test_architecture_table_is_timms():
    """Every name of the table is timm's, with its depth and class token."""
    reference.load()
    import timm.models.vision_transformer as timm_vit
    from timm import list_models

    names = {name for name in ARCHITECTURES if not name.startswith("ps3c_test_")}  # other tests add theirs
    assert names <= set(list_models(module="vision_transformer"))

    class Recorded(Exception):
        pass

    class Recorder(torch.nn.Module):
        def __init__(self, **kwargs):
            raise Recorded(kwargs)

    original, timm_vit.VisionTransformer = timm_vit.VisionTransformer, Recorder
    try:
        for name in names:
            with pytest.raises(Recorded) as recorded:
                getattr(timm_vit, name)()
            kwargs, ours = recorded.value.args[0], ARCHITECTURES[name]
            theirs = (kwargs["depth"], kwargs["num_heads"], kwargs["embed_dim"], kwargs["patch_size"])
            assert theirs == (ours.depth, ours.heads, ours.width, ours.patch), name
            assert int(kwargs["embed_dim"] * kwargs.get("mlp_ratio", 4.0)) == ours.mlp_hidden, name
            assert kwargs.get("class_token", True) == ours.class_token, name
            assert kwargs["img_size"] in (ours.img_size, (ours.img_size, ours.img_size)), name
            assert ("tanh" in str(kwargs.get("act_layer", ""))) == (ours.gelu == "tanh"), name
    finally:
        timm_vit.VisionTransformer = original


def test_no_shared_defaults():
    one, other = ps3c.PS3VisionConfig(), ps3c.PS3VisionConfig()
    one.ps3_scales.append(1)
    one.select_based_on_layer.append(1)
    assert other.ps3_scales == [378, 756, 1512] and other.select_based_on_layer == [0, 9, 18, 26]
    scales = [256, 64, 128]
    config = ps3c.PS3VisionConfig(**{**models.vision_config("tiny"), "ps3_scales": scales})
    assert ps3c.PS3VisionEncoder(config).ps3_scales == [64, 128, 256] and scales == [256, 64, 128]
    first = ps3c.PS3TextConfig()
    first.norm_kwargs["eps"] = 1.0
    assert ps3c.PS3TextConfig().norm_kwargs == {}


def test_config_takes_dicts_and_objects():
    vision, text = models.vision_config("tiny"), models.text_config("siglip")
    by_dict = ps3c.PS3Config(text_config=text, vision_config=vision)
    by_object = ps3c.PS3Config(text_config=ps3c.PS3TextConfig(**text), vision_config=ps3c.PS3VisionConfig(**vision))
    assert by_dict.to_dict() == by_object.to_dict()
    assert ps3c.PS3Config().text_config.width == 512
    with pytest.raises(TypeError, match="vision_config: got int, expected a PS3VisionConfig or a dict"):
        ps3c.PS3Config(vision_config=3)


# ---- loading and saving ---------------------------------------------------------------------------------------------


def test_combined_checkpoint_into_each_model(checkpoint, combined, caplog, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = ps3c.PS3Model.from_pretrained(checkpoint)
        vision, info = ps3c.PS3VisionModel.from_pretrained(checkpoint, output_loading_info=True)
        text = ps3c.PS3TextModel.from_pretrained(checkpoint)
    assert same_state(both, combined)
    assert same_state(vision.vision_model, combined.vision_model)
    assert same_state(text.text_model, combined.text_model)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    said = caplog.text + capfd.readouterr().err
    assert "not used" not in said and "UNEXPECTED" not in said and "newly initialized" not in said
    assert not vision.training
    assert torch.equal(
        vision(IMAGE, num_look_close=1).last_hidden_state,
        combined.encode_image(IMAGE, num_look_close=1).last_hidden_state,
    )
    assert torch.equal(text(IDS).prompt, combined.encode_text(IDS).prompt)


def test_reference_reads_what_is_saved(checkpoint, combined):
    """And the other way round: each reads the other's folder, bit for bit."""
    theirs = reference.load().PS3VisionModel.from_pretrained(checkpoint)
    assert same_state(theirs.vision_model, combined.vision_model)
    theirs.save_pretrained(checkpoint / "theirs")
    assert same_state(ps3c.PS3VisionModel.from_pretrained(checkpoint / "theirs").vision_model, combined.vision_model)


@pytest.mark.parametrize("keyword", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtype_keywords(checkpoint, keyword, dtype):
    model = ps3c.PS3VisionModel.from_pretrained(checkpoint, **{keyword: dtype})
    assert {p.dtype for p in model.parameters()} == {dtype} and model.dtype == dtype
    assert model(IMAGE.to(dtype), num_look_close=1).last_hidden_state.dtype == dtype


def test_bfloat16_round_trip(tmp_path):
    model = models.ours("vision", "tiny", torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert same_state(ps3c.PS3VisionModel.from_pretrained(tmp_path, dtype="auto"), model)


def test_missing_parameters_are_initialised(checkpoint, combined):
    """Memory that a checkpoint does not fill is garbage unless something fills it."""
    state = load_file(checkpoint / "model.safetensors")
    names = sorted(combined.state_dict())
    fresh = combined_model().__class__(combined.config).state_dict()
    for kept in (names[::2], names[1::2], []):
        save_file({k: state[k] for k in kept}, checkpoint / "model.safetensors", metadata={"format": "pt"})
        loaded = ps3c.PS3Model.from_pretrained(checkpoint).state_dict()
        for name in names:
            if name in kept:
                assert torch.equal(loaded[name], state[name]), name
                continue
            values, typical = loaded[name], fresh[name]
            assert not values.is_meta and torch.isfinite(values).all(), name
            if values.numel() > 200 and not name.endswith("bias"):
                assert values.std().item() == pytest.approx(typical.std().item(), rel=0.25, abs=1e-9), name
            assert values.abs().max() <= max(6.0, 1.5 * typical.abs().max()), name


def test_save_with_another_state_dict(tmp_path, vision):
    state = {name: torch.zeros_like(value) for name, value in vision.state_dict().items()}
    vision.save_pretrained(tmp_path, state_dict=state)
    assert all(p.abs().max() == 0 for p in ps3c.PS3VisionModel.from_pretrained(tmp_path).parameters())


def test_sharded_and_overridden(tmp_path, vision):
    vision.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = ps3c.PS3VisionModel.from_pretrained(tmp_path, max_select_num=32, output_hidden_states=True)
    assert same_state(model, vision) and model.vision_model.max_select_num_each_scale == [6, 26]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "ps3_vision_model"


def test_auto_classes(checkpoint):
    from transformers import AutoConfig, AutoModel

    assert type(AutoConfig.from_pretrained(checkpoint)) is ps3c.PS3Config
    assert type(AutoModel.from_pretrained(checkpoint)) is ps3c.PS3Model
    # As VILA does, after ps3c has done it.
    AutoConfig.register("ps3", ps3c.PS3Config)
    AutoConfig.register("ps3_vision_model", ps3c.PS3VisionConfig)
    AutoModel.register(ps3c.PS3VisionConfig, ps3c.PS3VisionModel)
    config = AutoConfig.from_pretrained(checkpoint).vision_config
    assert AutoModel.from_config(config).config.model_type == "ps3_vision_model"


@pytest.mark.parametrize("content", [b"", b"short", b"no header" * 100, "half"])
def test_unreadable_weights_file(checkpoint, content):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(OSError, match="model.safetensors cannot be read"):
        ps3c.PS3VisionModel.from_pretrained(checkpoint)


def test_wrong_shapes_are_named(checkpoint):
    state = load_file(checkpoint / "model.safetensors")
    state["vision_model.prior_prompt"] = torch.zeros(7)
    save_file(state, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"(?s)size mismatch.*prior_prompt.*7.*192"):
        ps3c.PS3VisionModel.from_pretrained(checkpoint, dtype=torch.float16)
    assert torch.get_default_dtype() == torch.float32


def test_no_such_folder(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        ps3c.PS3VisionModel.from_pretrained(tmp_path / "nowhere")


def test_attention_choices_and_checkpointing(checkpoint):
    for attention in ("eager", "sdpa", "flash_attention_2"):
        model = ps3c.PS3VisionModel.from_pretrained(checkpoint, attn_implementation=attention)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
        ps3c.PS3TextModel.from_pretrained(checkpoint).gradient_checkpointing_enable()
    model.vision_model.trunk.set_grad_checkpointing(True)
    assert model.vision_model.trunk.grad_checkpointing
    assert model(IMAGE, num_look_close=1).last_hidden_state is not None


def test_meta_construction():
    with torch.device("meta"):
        model = ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**models.vision_config("tiny"))).eval()
        ps3c.PS3TextModel(ps3c.PS3TextConfig(**models.text_config("clip")))
    assert all(p.is_meta for p in model.parameters())
    with pytest.raises(TypeError, match="weights: got a meta tensor"):
        model(IMAGE, num_look_close=1)
    model.to_empty(device="cpu").load_state_dict(models.ours("vision", "tiny").state_dict())
    assert torch.isfinite(model(IMAGE, num_look_close=1).last_hidden_state).all()


def test_full_size_on_meta():
    """The published 1.5K SigLIP2 model: 1,196,360,880 parameters in 386 + 336 tensors."""
    text = dict(
        width=1152,
        heads=16,
        layers=27,
        vocab_size=256000,
        context_length=64,
        mlp_ratio=3.7362,
        no_causal_mask=True,
        proj_bias=True,
        pool_type="last",
        norm_kwargs={"eps": 1e-6},
        act_kwargs={"approximate": "tanh"},
    )
    vision = dict(model_name="vit_so400m_patch14_siglip_384", pool="map", max_select_num=2560, img_size=378)
    with torch.device("meta"):
        model = ps3c.PS3Model(ps3c.PS3Config(text_config=text, vision_config=vision))
    assert sum(p.numel() for p in model.parameters()) == 1_196_360_880
    assert (len(list(model.vision_model.parameters())), len(list(model.text_model.parameters()))) == (386, 336)
    assert model.vision_model.max_select_num_each_scale == [512, 2048]


# ---- weights that change --------------------------------------------------------------------------------------------


def replace_block(model):
    trunk = model.vision_model.trunk
    trunk.blocks[0] = copy.deepcopy(trunk.blocks[1])


def replace_parameter(model):
    qkv = model.vision_model.trunk.blocks[2].attn.qkv
    qkv.weight = torch.nn.Parameter(qkv.weight * 0.5, requires_grad=False)


def not_contiguous(model):
    fc1 = model.vision_model.trunk.blocks[2].mlp.fc1
    fc1.weight = torch.nn.Parameter((fc1.weight * 2).T.contiguous().T, requires_grad=False)
    assert not fc1.weight.is_contiguous()


def in_place(model):
    model.vision_model.trunk.pos_embed.mul_(0.5)


def through_data(model):
    model.vision_model.trunk.blocks[0].norm1.bias.data.add_(1)


def other_state(model):
    model.load_state_dict({name: value * 0.9 for name, value in model.state_dict().items()})


def to_bfloat16(model):
    model.bfloat16()


def to_half(model):
    model.half()


def there_and_back(model):
    model.to(torch.bfloat16).float()


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        through_data,
        other_state,
        to_bfloat16,
        to_half,
        there_and_back,
        replace_block,
        replace_parameter,
        not_contiguous,
    ],
)
def test_changed_weights_are_honoured(change):
    """A changed ps3c model computes what a new one with the same weights does."""
    model = copy.deepcopy(models.ours("vision", "tiny"))
    before = model(IMAGE, num_look_close=1).last_hidden_state
    with torch.no_grad():
        change(model)
    image = IMAGE.to(model.dtype)
    after = model(image, num_look_close=1).last_hidden_state
    fresh = models.build(ps3c, "vision", "tiny").to(model.dtype)
    fresh.load_state_dict({name: value.contiguous() for name, value in model.state_dict().items()})
    assert torch.equal(after, fresh(image, num_look_close=1).last_hidden_state)
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_parametrised_weight_is_computed(vision):
    model = copy.deepcopy(vision)
    qkv = model.vision_model.trunk.blocks[0].attn.qkv

    class Half(torch.nn.Module):
        def forward(self, weight):
            return weight * 0.5

    torch.nn.utils.parametrize.register_parametrization(qkv, "weight", Half())
    plain = copy.deepcopy(vision)
    plain.vision_model.trunk.blocks[0].attn.qkv.weight.data.mul_(0.5)
    assert torch.equal(model(IMAGE, num_look_close=1)[0], plain(IMAGE, num_look_close=1)[0])


def test_foreign_layer_is_refused(vision):
    """A layer that computes something else must not be taken for the Linear whose weight it shows."""

    class LoRA(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.weight, self.bias = base.weight, base.bias

    model = copy.deepcopy(vision)
    attention = model.vision_model.trunk.blocks[3].attn
    base, attention.qkv = attention.qkv, LoRA(attention.qkv)
    with pytest.raises(TypeError, match=r"trunk.blocks.3.attn.qkv: got a .*LoRA in place of"):
        model(IMAGE, num_look_close=1)
    attention.qkv = base
    assert torch.equal(model(IMAGE, num_look_close=1)[0], vision(IMAGE, num_look_close=1)[0])


def test_deepcopy_and_pickle(vision, text, expected):
    for model in (copy.deepcopy(vision), pickle.loads(pickle.dumps(vision)), copy.copy(vision)):
        assert torch.equal(model(IMAGE, num_look_close=2).last_hidden_state, expected)
    twin = copy.deepcopy(vision)
    twin.vision_model.prior_prompt.data.zero_()
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)
    assert not torch.equal(
        twin(IMAGE, num_look_close=2).selection_probs[0], vision(IMAGE, num_look_close=2).selection_probs[0]
    )
    assert torch.equal(pickle.loads(pickle.dumps(text))(IDS).prompt, text(IDS).prompt)


# ---- attributes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (1, 900), (900, 1), (17, 900), (333, 444), (444, 333), (378, 378)])
@pytest.mark.parametrize("name", ["tiny", "five_scales", "uneven_scales"])
def test_attributes_are_the_references(name, size):
    theirs, ours = models.theirs("vision", name).vision_model, models.ours("vision", name).vision_model
    for attribute in (
        "width",
        "layers",
        "patch_size",
        "ps3_scales",
        "s3_image_size",
        "low_res_token_num",
        "num_hidden_layers_to_return",
        "max_select_num_each_scale",
    ):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.trunk.low_res_token_num == theirs.trunk.low_res_token_num
    assert ours.trunk.num_features == theirs.trunk.num_features
    assert ours.trunk.patch_embed.patch_size == theirs.trunk.patch_embed.patch_size
    assert ours.trunk.patch_embed.grid_size == theirs.trunk.patch_embed.grid_size
    assert ours.token_selection_param_names() == theirs.token_selection_param_names()
    x = torch.empty(1, 3, *size)
    for scale in range(len(ours.ps3_scales)):
        assert ours.image_size_scale_i(x, scale) == theirs.image_size_scale_i(x, scale)
        assert ours.feature_size_scale_i(x, scale) == theirs.feature_size_scale_i(x, scale)
    assert ours.max_highres_token_num(x) == theirs.max_highres_token_num(x)
    assert (
        ours.max_highres_token_num(x, [1]) == theirs.max_highres_token_num(x, [1]) == ours.max_highres_token_num(x, 1)
    )


def test_old_and_missing_names(vision):
    encoder = vision.vision_model
    assert encoder.s3_scales == encoder.ps3_scales  # VILA's main branch
    assert vision.width == 192
    assert not hasattr(encoder, "no_weight_decay")  # open_clip asks by hasattr, and the reference has none
    assert vision.dtype == torch.float32 and vision.device.type == "cpu"
    assert vision.config.hidden_size == 192 and vision.config.image_size == 256
    assert torch.equal(
        encoder.resize_to_scale_i(IMAGE, 1),
        torch.nn.functional.interpolate(IMAGE, size=encoder.image_size_scale_i(IMAGE, 1), mode="bicubic"),
    )


def test_assigned_attributes_count(vision, expected):
    encoder = vision.vision_model
    try:
        encoder.num_hidden_layers_to_return = 2
        outputs = vision(IMAGE, num_look_close=2)
        assert len(outputs.hidden_states) == 2 and torch.equal(outputs.last_hidden_state, expected)
        assert len(vision(IMAGE, num_look_close=0).hidden_states) == 12
        encoder.num_hidden_layers_to_return = 99  # more than there are: all
        assert len(vision(IMAGE, num_look_close=1).hidden_states) == 12
        encoder.max_select_num_each_scale = [np.int64(3), 4]
        assert vision(IMAGE, num_look_close=1).last_hidden_state.shape[1] == 16 + 7
    finally:
        encoder.num_hidden_layers_to_return = 12
        encoder.max_select_num_each_scale = [12, 52]
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)


def test_outputs(vision):
    outputs = vision(IMAGE, num_look_close=1)
    assert type(outputs).__name__ == "PS3VisionModelOutput"
    assert list(outputs) == ["last_hidden_state", "hidden_states", "selection_maps", "selection_probs"]
    assert isinstance(outputs.hidden_states, list) and isinstance(outputs.selection_maps, list)
    assert outputs[0] is outputs["last_hidden_state"] is outputs.hidden_states[-1]
    assert outputs.pooled_output is None and outputs.topdown_selection_probs is None
    nothing = vision(IMAGE, num_look_close=0)
    assert nothing.selection_maps is None and len(nothing.hidden_states) == 12
    with pytest.warns(UserWarning, match="pre-training"):
        pretrained = vision(IMAGE, output_hidden_states=False)
    assert pretrained.hidden_states is None and pretrained.pooled_output.shape == (2, 192)
    low = vision.vision_model.forward_low_res(IMAGE)
    assert low["hidden_states"] is None and low["output_kv_cache"] is None
    assert len(vision.vision_model.forward_low_res(IMAGE, output_hidden_states=True)["hidden_states"]) == 12


def test_feature_maps(vision):
    outputs = vision(IMAGE, num_look_close=1)
    maps = vision.vision_model.format_features_into_feature_maps(outputs.last_hidden_state, outputs.selection_maps)
    assert [tuple(m.shape[2:]) for m in maps] == [(4, 4)] + [tuple(m.shape[1:]) for m in outputs.selection_maps]
    assert sum(int((m.abs().sum(1) > 0).sum()) for m in maps) == outputs.last_hidden_state[..., 0].numel()
    low = vision(IMAGE, num_look_close=0)
    assert len(vision.vision_model.format_features_into_feature_maps(low.last_hidden_state, None)) == 1
    with pytest.raises(ValueError, match="selection_maps: got .* selected patches"):
        vision.vision_model.format_features_into_feature_maps(outputs.last_hidden_state[:, 1:], outputs.selection_maps)


def test_inner_modules_say_what_computes(vision):
    with pytest.raises(NotImplementedError, match="Block holds parameters only.*Call PS3VisionModel"):
        vision.vision_model.trunk.blocks[0](torch.zeros(1, 16, 192))


@pytest.mark.parametrize("name", ["prompt", "gt_selection_maps"])
def test_one_for_all_images(vision, name):
    """A batch of one goes with every image, as it does in the reference."""
    one = models.prompt(1, 192) if name == "prompt" else models.gt_maps(1, 20, 30, torch.uint8)
    many = one.repeat(2, *[1] * (one.ndim - 1))
    got = vision(IMAGE, num_look_close=1, **{name: one}).last_hidden_state
    assert torch.equal(got, vision(IMAGE, num_look_close=1, **{name: many}).last_hidden_state)
    # ps3-torch truncates the area means of integers.
    theirs = models.theirs("vision", "tiny")(IMAGE, num_look_close=1, **{name: one.float()}).last_hidden_state
    assert models.relative_error(got, theirs) < 5e-6


def test_inputs_of_any_stride(vision, expected):
    wide = torch.zeros(2, 3, 140, 200)
    wide[:, :, ::2, ::2] = IMAGE
    for image in (wide[:, :, ::2, ::2], IMAGE.to(memory_format=torch.channels_last)):
        assert torch.equal(vision(image, num_look_close=2).last_hidden_state, expected)


# ---- gradients ------------------------------------------------------------------------------------------------------


def test_gradients_are_never_silently_missing(vision, text):
    model = copy.deepcopy(vision).requires_grad_(True)
    assert not model(IMAGE, num_look_close=1).last_hidden_state.requires_grad  # eval()
    model.train()
    with pytest.raises(NotImplementedError, match=r"train\(\) mode"):
        model(IMAGE, num_look_close=1)
    with torch.no_grad():
        model(IMAGE, num_look_close=1)
    with torch.inference_mode():
        model(IMAGE, num_look_close=1)
    model.requires_grad_(False)
    model(IMAGE, num_look_close=1)
    with pytest.raises(NotImplementedError, match="pixel_values: got a tensor that requires grad"):
        vision(IMAGE.clone().requires_grad_(), num_look_close=1)
    with pytest.raises(NotImplementedError, match="prompt: got a tensor that requires grad"):
        vision(IMAGE, num_look_close=1, prompt=torch.zeros(2, 192, requires_grad=True))
    with pytest.raises(NotImplementedError, match=r"train\(\) mode"):
        copy.deepcopy(text).requires_grad_(True).train()(IDS)


# ---- drop-in --------------------------------------------------------------------------------------------------------

SUBMODULES = (
    "configuration_ps3",
    "image_processing_ps3",
    "modeling_ps3",
    "modeling_ps3_text",
    "tokenization_ps3",
    "utils_radio_adapter_mlp",
)


def run_python(code: str, *paths) -> str:
    """Runs code in a process of its own, in which this checkout's `ps3` is found after `paths`."""
    root = Path(__file__).resolve().parent.parent
    before = [str(path) for path in paths] + [
        str(root / "tests"),
        str(root / "python"),
        str(Path(ps3c.__file__).parent.parent),
    ]
    script = f"import sys; sys.path[:0] = {before}\nimport reference; reference.declare_torchvision_operators()\n{code}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_drop_in_is_the_same_objects():
    lines = ["import ps3, ps3c, importlib", "assert ps3.__all__ == ps3c.__all__"]
    lines += [f"assert ps3.{name} is ps3c.{name}" for name in ps3c.__all__]
    for name in SUBMODULES:
        lines.append(
            f"assert importlib.import_module('ps3.{name}') is ps3.{name} is importlib.import_module('ps3c.{name}')"
        )
    lines.append("from ps3.modeling_ps3 import PS3VisionModelOutput, PS3PreTrainedModel")
    lines.append("from ps3.modeling_ps3_text import PS3TextModelOutput")
    assert "ps3-torch" not in run_python("\n".join(lines))


def test_drop_in_warns_of_ps3_torch(tmp_path):
    (tmp_path / "ps3_torch-0.1.3.dist-info").mkdir()
    (tmp_path / "ps3_torch-0.1.3.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ps3-torch\nVersion: 0.1.3\n"
    )
    said = run_python("import ps3", tmp_path)
    assert "ps3-torch 0.1.3 is installed" in said and "pip uninstall ps3-torch" in said


def test_nothing_of_the_reference_is_imported():
    run_python(
        "import ps3c, sys\n"
        "assert not {'timm', 'einops', 'ps3_torch'} & set(sys.modules)\n"
        "assert list(sys.modules).index('torch') < list(sys.modules).index('ps3c._core')"
    )


def test_names_of_architectures():
    assert architecture_names() == sorted(ARCHITECTURES) and len(architecture_names()) > 50
    assert find_architecture("vit_base_patch16_siglip_256.v2_webli") is ARCHITECTURES["vit_base_patch16_siglip_256"]

"""Bad arguments and configurations: exact exceptions that name the argument; the model works afterwards."""

import models
import numpy as np
import pytest
import torch
from test_python_api import IDS, IMAGE, expected, text, vision  # noqa: F401  (fixtures)

import ps3c
from ps3c.errors import raise_memory_error

FLOAT = dict(num_look_close=1)
BAD_CALLS = {
    "not a tensor": ((np.zeros((1, 3, 8, 8)),), FLOAT, TypeError, "pixel_values: got ndarray, expected a torch.Tensor"),
    "rank": ((IMAGE[0],), FLOAT, ValueError, r"pixel_values: got shape \(3, 70, 100\), expected \(batch, 3, height"),
    "channels": ((IMAGE[:, :1],), FLOAT, ValueError, r"pixel_values: got shape \(2, 1, 70, 100\)"),
    "empty batch": ((IMAGE[:0],), FLOAT, ValueError, "pixel_values: got an empty tensor"),
    "no pixels": ((IMAGE[:, :, :0],), FLOAT, ValueError, "pixel_values: got an empty tensor"),
    "dtype": ((IMAGE.half(),), FLOAT, TypeError, "pixel_values: got torch.float16, expected torch.float32"),
    "uint8": ((IMAGE.to(torch.uint8),), FLOAT, TypeError, "pixel_values: got torch.uint8, expected torch.float32"),
    "sparse": ((IMAGE.to_sparse(),), FLOAT, TypeError, "pixel_values: got a sparse tensor"),
    "meta": ((IMAGE.to("meta"),), FLOAT, TypeError, "pixel_values: got a meta tensor"),
    "complex": ((torch.complex(IMAGE, IMAGE),), FLOAT, TypeError, "pixel_values: got a complex tensor"),
    "conjugate": ((torch.complex(IMAGE, IMAGE).conj(),), FLOAT, TypeError, "pixel_values: got a conjugate complex"),
    "negative": ((torch.complex(IMAGE, IMAGE).conj().imag,), FLOAT, TypeError, "pixel_values: .*negative bit"),
    "prompt width": (
        (IMAGE,),
        dict(FLOAT, prompt=torch.zeros(2, 7)),
        ValueError,
        r"prompt: got shape \(2, 7\), expected \(2, 192\)",
    ),
    "prompt rank": ((IMAGE,), dict(FLOAT, prompt=torch.zeros(192)), ValueError, r"prompt: got shape \(192,\)"),
    "prompt batch": (
        (IMAGE,),
        dict(FLOAT, prompt=torch.zeros(3, 192)),
        ValueError,
        r"prompt: got shape \(3, 192\), expected \(2, 192\)",
    ),
    "prompt dtype": (
        (IMAGE,),
        dict(FLOAT, prompt=torch.zeros(2, 192).double()),
        TypeError,
        "prompt: got torch.float64, expected torch.float32, the dtype of the weights",
    ),
    "gt rank": (
        (IMAGE,),
        dict(FLOAT, gt_selection_maps=torch.zeros(2, 1, 8, 8)),
        ValueError,
        r"gt_selection_maps: got shape \(2, 1, 8, 8\), expected \(2, any, any\)",
    ),
    "gt batch": (
        (IMAGE,),
        dict(FLOAT, gt_selection_maps=torch.zeros(3, 8, 8)),
        ValueError,
        r"gt_selection_maps: got shape \(3, 8, 8\), expected \(2, any, any\)",
    ),
    "gt empty": (
        (IMAGE,),
        dict(FLOAT, gt_selection_maps=torch.zeros(2, 0, 8)),
        ValueError,
        r"gt_selection_maps: got shape \(2, 0, 8\), expected maps of 1 x 1 or more",
    ),
    "neither": ((IMAGE,), {}, ValueError, "num_look_close, num_token_look_close: got neither"),
    "both": ((IMAGE,), dict(num_look_close=2, num_token_look_close=70), ValueError, "num_token_look_close"),
    "negative looks": ((IMAGE,), dict(num_look_close=-1), ValueError, "num_look_close: got -1, expected 0 or more"),
    "negative patches": ((IMAGE,), dict(num_token_look_close=-5), ValueError, "num_token_look_close: got -5"),
    "half a look": ((IMAGE,), dict(num_look_close=1.5), TypeError, "num_look_close: got 1.5, a float"),
    "bool": ((IMAGE,), dict(num_look_close=True), TypeError, "num_look_close: got True, a bool"),
    "some": ((IMAGE,), dict(num_token_look_close="some"), ValueError, "num_token_look_close: got 'some'"),
    "first 0": (
        (IMAGE,),
        dict(FLOAT, only_select_first_n_scale=0),
        ValueError,
        "only_select_first_n_scale: got 0, expected 1 to 2",
    ),
    "first 3": (
        (IMAGE,),
        dict(FLOAT, only_select_first_n_scale=[1, 3]),
        ValueError,
        "only_select_first_n_scale: got 3, expected 1 to 2",
    ),
    "first length": (
        (IMAGE,),
        dict(FLOAT, only_select_first_n_scale=[1]),
        ValueError,
        "only_select_first_n_scale: got 1 entries, expected 2, one for each of the batch",
    ),
    "first type": (
        (IMAGE,),
        dict(FLOAT, only_select_first_n_scale=1.0),
        TypeError,
        "only_select_first_n_scale: got 1.0",
    ),
    "pretrain look": (
        (IMAGE,),
        dict(num_look_close=1, output_hidden_states=False),
        ValueError,
        "num_look_close: got 1, expected None with output_hidden_states=False",
    ),
    "pretrain patches": (
        (IMAGE,),
        dict(num_token_look_close=1, output_hidden_states=False),
        ValueError,
        "num_token_look_close: got 1, expected None",
    ),
    "pretrain first": (
        (IMAGE,),
        dict(only_select_first_n_scale=1, output_hidden_states=False),
        ValueError,
        "only_select_first_n_scale: got 1, expected None",
    ),
    "pool without gt": (
        (IMAGE,),
        dict(pool_gt_token_only=True, output_hidden_states=False),
        ValueError,
        "pool_gt_token_only: got True without gt_selection_maps",
    ),
    "global text": (
        (IMAGE,),
        dict(is_global_text=torch.zeros(2), output_hidden_states=False),
        ValueError,
        r"is_global_text: got shape \(2,\), expected \(2, 1\)",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.filterwarnings("ignore:output_hidden_states=False")
def test_bad_call(case, vision, expected):
    args, kwargs, exception, message = BAD_CALLS[case]
    with pytest.raises(exception, match=message) as caught:
        vision(*args, **kwargs)
    assert type(caught.value) is exception
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)


@pytest.mark.parametrize(
    "quotas, exception, message",
    [
        ([12], ValueError, "got 1 numbers, expected 2"),
        ([12, 0], ValueError, "got 0, expected positive integers"),
        ([-1, 52], ValueError, "got -1, expected positive integers"),
        ([1.5, 52], TypeError, "got 1.5, a float"),
        (64, TypeError, "got 64, expected a list of 2 integers"),
    ],
)
def test_bad_quotas(vision, expected, quotas, exception, message):
    try:
        vision.vision_model.max_select_num_each_scale = quotas
        with pytest.raises(exception, match="max_select_num_each_scale: " + message):
            vision(IMAGE, num_look_close=1)
    finally:
        vision.vision_model.max_select_num_each_scale = [12, 52]
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)
    if isinstance(quotas, list):
        config = {**models.vision_config("tiny"), "max_select_num_each_scale": quotas}
        with pytest.raises(exception, match="max_select_num_each_scale"):
            ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**config))


@pytest.mark.parametrize("number, exception", [(0, ValueError), (-1, ValueError), (1.0, TypeError), (None, TypeError)])
def test_bad_number_of_layers(vision, number, exception):
    try:
        vision.vision_model.num_hidden_layers_to_return = number
        with pytest.raises(exception, match="num_hidden_layers_to_return"):
            vision(IMAGE, num_look_close=1)
    finally:
        vision.vision_model.num_hidden_layers_to_return = 12


@pytest.mark.parametrize("pixel", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_numbers(vision, expected, pixel):
    image = IMAGE.clone()
    image[0, :, 10:20, 30:40] = pixel
    outputs = vision(image, num_look_close="all")
    assert not torch.isfinite(outputs.last_hidden_state[0]).all()
    assert [int(m[0].sum()) for m in outputs.selection_maps] == [int(m[1].sum()) for m in outputs.selection_maps]
    clean = vision(IMAGE, num_look_close="all").last_hidden_state
    assert torch.equal(outputs.last_hidden_state[1], clean[1])
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)


def test_one_pixel(vision):
    assert torch.isfinite(vision(torch.ones(1, 3, 1, 1), num_look_close="all").last_hidden_state).all()


def test_memory_that_cannot_be_had(vision, expected):
    many = IMAGE[:1].expand(2**30, 3, 70, 100)
    with pytest.raises(MemoryError):
        vision(many, num_look_close="all")
    assert torch.equal(vision(IMAGE, num_look_close=2).last_hidden_state, expected)


def test_key_value_cache_is_refused(vision):
    with pytest.raises(NotImplementedError, match="return_kv_cache: got True"):
        vision.vision_model.forward_low_res(IMAGE, return_kv_cache=True)


@pytest.mark.parametrize(
    "change, exception, message",
    [
        (
            dict(model_name="vit_tiny_patch16_225"),
            ValueError,
            "model_name: got 'vit_tiny_patch16_225'.*vit_tiny_patch16_224",
        ),
        (dict(model_name="resnet50"), ValueError, "model_name: got 'resnet50', which is not among"),
        (dict(model_name="vit_base_patch14_reg4_dinov2"), ValueError, "cannot be a PS3 trunk: it has register tokens"),
        (dict(model_name=None), TypeError, "model_name: got None"),
        (dict(pretrained=True), ValueError, "pretrained: got True, but ps3c does not fetch"),
        (dict(pool="avg"), ValueError, "pool: got 'avg', expected 'map'"),
        (dict(class_token=None), ValueError, "class_token: got None.*set class_token=False"),
        (dict(class_token=True), ValueError, "class_token: got True"),
        (dict(dynamic_img_size=False), ValueError, "dynamic_img_size: got False"),
        (dict(img_size=[64, 128]), ValueError, "img_size: got"),
        (dict(img_size=3), ValueError, "img_size: got 3, expected 16 or more"),
        (dict(ps3_scales=[64]), ValueError, "ps3_scales: got .*two sizes or more"),
        (dict(ps3_scales=[70, 140]), ValueError, "ps3_scales: got a lowest scale of 70, expected a multiple of .* 16"),
        (dict(ps3_scales=[0, 64]), ValueError, "ps3_scales: got 0"),
        (dict(select_based_on_layer=[0, 12]), ValueError, "select_based_on_layer: got 12, expected -12 to 11"),
        (dict(select_based_on_layer=[]), ValueError, "select_based_on_layer: got"),
        (dict(max_select_num=0), ValueError, "max_select_num: got 0"),
        (dict(models.RADIO, img_size=64), ValueError, "img_size // patch size: got 4 with .*, expected 16 or more"),
        (dict(models.RADIO, radio_adapter_mlp_version="v3"), ValueError, "radio_adapter_mlp_version: got 'v3'"),
        (
            dict(models.RADIO, radio_adapter_mlp_input_dim=100),
            ValueError,
            "radio_adapter_mlp_input_dim: got 100, exp.* 192",
        ),
        (dict(models.RADIO, radio_adapter_mlp_output_dim=100), ValueError, "radio_adapter_mlp_output_dim: got 100"),
        (dict(models.RADIO, radio_adapter_mlp_hidden_dim=None), ValueError, "radio_adapter_mlp_hidden_dim: got None"),
    ],
)
def test_bad_vision_config(change, exception, message):
    with pytest.raises(exception, match=message):
        ps3c.PS3VisionModel(ps3c.PS3VisionConfig(**{**models.vision_config("tiny"), **change}))


def test_bad_patch_dropout():
    with pytest.raises(ValueError, match="patch_dropout: got 0.5"):
        ps3c.PS3VisionEncoder(ps3c.PS3VisionConfig(**models.vision_config("tiny")), patch_dropout=0.5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(heads=3), "heads: got 3, expected a divisor of width, 64"),
        (dict(width=36, heads=3), "heads: got 3 for a width of 36"),  # heads of 12
        (dict(pool_type="mean"), "pool_type: got 'mean'"),
        (dict(layers=0), "layers: got 0"),
        (dict(norm_kwargs={"elementwise_affine": False}), "norm_kwargs: got elementwise_affine"),
        (dict(act_kwargs={"approximate": "quick"}), "act_kwargs: got"),
    ],
)
def test_bad_text_config(change, message):
    with pytest.raises(ValueError, match=message):
        ps3c.PS3TextModel(ps3c.PS3TextConfig(**{**models.text_config("siglip"), **change}))


@pytest.mark.parametrize(
    "ids, exception, message",
    [
        ([[1, 2]], TypeError, "text: got list, expected a torch.Tensor"),
        (IDS[0], ValueError, r"text: got shape \(12,\), expected \(batch, length\)"),
        (IDS.float(), TypeError, "text: got torch.float32, expected integer"),
        (IDS.bool(), TypeError, "text: got torch.bool, expected integer"),
        (IDS[:0], ValueError, r"text.shape\[0\] \(batch\): got 0, expected 1"),
        (IDS[:, :0], ValueError, r"text.shape\[1\] \(tokens\): got 0, expected 1 to 12"),
        (IDS.repeat(1, 2), ValueError, r"text.shape\[1\] \(tokens\): got 24, expected 1 to 12, the context length"),
        (IDS + 97, ValueError, r"text\[0\]\[0\]: got \d+, expected a token id from 0 to 96"),
        (IDS - 97, ValueError, r"text\[0\]\[0\]: got -\d+, expected a token id from 0 to 96"),
    ],
    ids=["list", "rank", "float", "bool", "empty", "no tokens", "long", "high", "negative"],
)
def test_bad_text(text, ids, exception, message):
    before = text(IDS).prompt
    with pytest.raises(exception, match=message):
        text(ids)
    assert torch.equal(text(IDS).prompt, before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_ids_of_any_integer_type(text, dtype):
    assert torch.equal(text(IDS.to(dtype)).prompt, text(IDS).prompt)


def test_no_memory_for_a_lock():
    """CPython says RuntimeError where it cannot allocate a file's lock."""
    with pytest.raises(MemoryError, match="can't allocate read lock"):
        raise_memory_error(RuntimeError("can't allocate read lock"))
    raise_memory_error(RuntimeError("can't start new thread"))  # no lack of memory: raises nothing

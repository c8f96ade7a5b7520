"""Configurations of the PS3 models: what config.json holds."""

from collections.abc import Sequence
from typing import Any

from transformers.configuration_utils import PretrainedConfig


class _PartConfig(PretrainedConfig):
    """Configuration of one tower, which may stand alone or inside that of a PS3Model."""

    base_config_key = ""

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        # transformers looks for base_config_key by itself only from 4.47 on.
        config, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config.get("model_type") == "ps3" and isinstance(config.get(cls.base_config_key), dict):
            config = config[cls.base_config_key]
        return config, kwargs


class PS3VisionConfig(_PartConfig):
    """Configuration of PS3VisionModel and PS3VisionEncoder.

    Trunk (a vision transformer, named as in timm):
        model_name: timm's name, see `ps3c.architectures`.
        hidden_size: width that other packages read from here; the trunk's own follows from model_name.
        pool: must be "map", an attention pool.
        drop_path, patch_drop, drop: of training; without effect on a forward pass.
        pretrained: must be False; weights come from from_pretrained.
        dynamic_img_size: must not be False; positions are resampled to each scale.
        img_size: side in pixels of the table of positions; None: the trunk's own.
        class_token: must be False for trunks that have one otherwise.
    Scales and selection:
        ps3_scales: image sizes in pixels; the smallest is the low resolution.
        select_based_on_layer: layers whose low-res features rank the patches.
        max_select_num: patches of one look. max_select_num_each_scale: the same for each high-res scale, instead.
        separate_pos_emb: each high-res scale has positions of its own, added to the trunk's.
        highres_selection_feature: a small convolution network takes part in the ranking.
        highres_selection_module_hidden_dim, ..._out_dim, ..._depth, ..._kernel_size: its sizes.
    C-RADIO trunk:
        radio: positions are cropped, and an MLP maps features to SigLIP's space.
        radio_adapter_mlp_version: "v1" or "v2". radio_adapter_mlp_input_dim, _hidden_dim, _output_dim, _num_inner.
        final_norm: keep the trunk's last LayerNorm before that MLP.
    """

    model_type = "ps3_vision_model"
    base_config_key = "vision_config"

    def __init__(
        self,
        model_name: str | None = None,
        hidden_size: int = 1152,
        pool: str = "avg",
        drop_path: float | None = None,
        patch_drop: float | None = None,
        pretrained: bool = False,
        dynamic_img_size: bool = True,
        ps3_scales: Sequence[int] | None = None,
        select_based_on_layer: Sequence[int] | None = None,
        max_select_num: int = 1280,
        max_select_num_each_scale: Sequence[int] | None = None,
        separate_pos_emb: bool = True,
        highres_selection_feature: bool = True,
        highres_selection_module_hidden_dim: int = 512,
        highres_selection_module_out_dim: int = 512,
        highres_selection_module_depth: int = 3,
        highres_selection_module_kernel_size: int = 28,
        radio: bool = False,
        radio_adapter_mlp_version: str | None = None,
        radio_adapter_mlp_input_dim: int | None = None,
        radio_adapter_mlp_hidden_dim: int | None = None,
        radio_adapter_mlp_output_dim: int | None = None,
        radio_adapter_mlp_num_inner: int | None = None,
        img_size: int | Sequence[int] | None = None,
        drop: float = 0.0,
        class_token: bool | None = None,
        final_norm: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.model_name = model_name
        self.hidden_size = hidden_size
        self.pool = pool
        self.drop_path = drop_path
        self.patch_drop = patch_drop
        self.pretrained = pretrained
        self.dynamic_img_size = dynamic_img_size
        self.ps3_scales = _own_list(ps3_scales, [378, 756, 1512])
        self.select_based_on_layer = _own_list(select_based_on_layer, [0, 9, 18, 26])
        self.max_select_num = max_select_num
        self.max_select_num_each_scale = _own_list(max_select_num_each_scale, None)
        self.separate_pos_emb = separate_pos_emb
        self.highres_selection_feature = highres_selection_feature
        self.highres_selection_module_hidden_dim = highres_selection_module_hidden_dim
        self.highres_selection_module_out_dim = highres_selection_module_out_dim
        self.highres_selection_module_depth = highres_selection_module_depth
        self.highres_selection_module_kernel_size = highres_selection_module_kernel_size
        self.radio = radio
        self.radio_adapter_mlp_version = radio_adapter_mlp_version
        self.radio_adapter_mlp_input_dim = radio_adapter_mlp_input_dim
        self.radio_adapter_mlp_hidden_dim = radio_adapter_mlp_hidden_dim
        self.radio_adapter_mlp_output_dim = radio_adapter_mlp_output_dim
        self.radio_adapter_mlp_num_inner = radio_adapter_mlp_num_inner
        self.img_size = img_size
        self.drop = drop
        self.class_token = class_token
        self.final_norm = final_norm

        # Read by VILA, not by PS3: the patch size is the trunk's, whatever stands here.
        self.vision_tower_name = model_name
        self.image_size = self.ps3_scales[-1] if self.ps3_scales else None
        self.patch_size = 14


class PS3TextConfig(_PartConfig):
    """Configuration of PS3TextModel.

    output_dim, prompt_proj_dim: width of the pooled vector and of the prompt made from it.
    context_length, vocab_size, width, heads, layers, mlp_ratio: sizes of the transformer.
    ls_init_value: first value of the layer scale; None: no layer scale.
    embed_cls: append a class token, which is then the pooled one. pad_id: of the tokenizer.
    no_causal_mask: every token sees every other.
    pool_type: "first", "last", "argmax" (the token with the highest id) or "none".
    proj_bias: the projection to output_dim is a Linear layer, else a bare matrix.
    act_kwargs: {"approximate": "tanh"} for SigLIP2. norm_kwargs: {"eps": 1e-6}.
    hf_tokenizer_name, tokenizer_kwargs, final_ln_after_pool, output_tokens: kept, not used by the model.
    """

    model_type = "ps3_text_model"
    base_config_key = "text_config"

    def __init__(
        self,
        output_dim: int = 1152,
        prompt_proj_dim: int = 1152,
        context_length: int = 77,
        vocab_size: int = 49408,
        hf_tokenizer_name: str | None = None,
        tokenizer_kwargs: dict | None = None,
        width: int = 512,
        heads: int = 8,
        layers: int = 12,
        mlp_ratio: float = 4.0,
        ls_init_value: float | None = None,
        embed_cls: bool = False,
        pad_id: int = 0,
        no_causal_mask: bool = False,
        final_ln_after_pool: bool = False,
        pool_type: str = "argmax",
        proj_bias: bool = False,
        output_tokens: bool = False,
        act_kwargs: dict | None = None,
        norm_kwargs: dict | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.output_dim = output_dim
        self.prompt_proj_dim = prompt_proj_dim
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.hf_tokenizer_name = hf_tokenizer_name
        self.tokenizer_kwargs = dict(tokenizer_kwargs) if tokenizer_kwargs is not None else None
        self.width = width
        self.heads = heads
        self.layers = layers
        self.mlp_ratio = mlp_ratio
        self.ls_init_value = ls_init_value
        self.embed_cls = embed_cls
        self.pad_id = pad_id
        self.no_causal_mask = no_causal_mask
        self.final_ln_after_pool = final_ln_after_pool
        self.pool_type = pool_type
        self.proj_bias = proj_bias
        self.output_tokens = output_tokens
        self.act_kwargs = dict(act_kwargs or {})
        self.norm_kwargs = dict(norm_kwargs or {})


class PS3Config(PretrainedConfig):
    """Configuration of PS3Model: that of its two towers, each a config object, a dict, or None for the defaults."""

    model_type = "ps3"
    sub_configs = {"text_config": PS3TextConfig, "vision_config": PS3VisionConfig}

    def __init__(
        self,
        text_config: PS3TextConfig | dict | None = None,
        vision_config: PS3VisionConfig | dict | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.text_config = _part("text_config", text_config, PS3TextConfig)
        self.vision_config = _part("vision_config", vision_config, PS3VisionConfig)


def _own_list(value: Sequence[int] | None, default: list[int] | None) -> list[int] | None:
    # A copy: configs must not share a list that somebody may change.
    return list(value) if isinstance(value, (list, tuple)) else default if value is None else value


def _part(name: str, value, config_class):
    if isinstance(value, config_class):
        return value
    if value is None:
        return config_class()
    if isinstance(value, dict):
        return config_class(**value)
    raise TypeError(f"{name}: got {type(value).__name__}, expected a {config_class.__name__} or a dict")

"""PS3's vision encoder, and the models that hold it and the text tower."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithNoAttention

from .. import _arguments
from .._arguments import Looks
from ..engine.core import VisionModel
from ..engine.layers import BuiltLayers
from ..engine.models import Engine, EngineModel
from . import vision_config
from .configuration_ps3 import PS3Config, PS3TextConfig, PS3VisionConfig
from .forward import VisionForward, first_n_scales, layers_to_return, looks_request
from .layers import AttentionPool, Mlp, ParameterHolder, SelectionConvNet, Trunk, Wanted
from .modeling_ps3_text import PS3TextModelOutput, TextTransformer
from .pretrained import PretrainedBase
from .stepwise import Steps
from .utils_radio_adapter_mlp import create_mlp_from_config

__all__ = [
    "PS3Model",
    "PS3PreTrainedModel",
    "PS3TextModel",
    "PS3TextModelOutput",
    "PS3VisionEncoder",
    "PS3VisionModel",
    "PS3VisionModelOutput",
]


@dataclass
class PS3VisionModelOutput(BaseModelOutputWithNoAttention):
    """What a vision pass returns. B images, C width, N tokens, S high-res scales of h x w patches.

    last_hidden_state: (B, N, C), the last one of hidden_states.
    hidden_states: list of (B, N, C), one for each returned layer. The low-res tokens are first. The selected patches
        follow, sorted by scale, row and column.
    pooled_output: (B, C), only with output_hidden_states=False.
    selection_maps: list of S maps (B, h, w) of 0 and 1. None if there are no looks.
    selection_probs: list of S maps (B, h, w).
    bottomup_selection_probs, topdown_selection_probs: lists like selection_probs, only with
        output_hidden_states=False. topdown_selection_probs is None without a prompt.
    """

    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: list[torch.FloatTensor] | None = None
    pooled_output: torch.FloatTensor | None = None
    selection_maps: list[torch.FloatTensor] | None = None
    selection_probs: list[torch.FloatTensor] | None = None
    bottomup_selection_probs: list[torch.FloatTensor] | None = None
    topdown_selection_probs: list[torch.FloatTensor] | None = None


class PS3VisionEncoder(ParameterHolder):
    """The vision tower: encodes the whole image at low resolution and its best patches at higher ones.

    Attributes:
        ps3_scales: image sizes in pixels, ascending; ps3_scales[0] is the low resolution. `s3_scales` is the same.
        s3_image_size: the largest of them.
        width, layers, patch_size, low_res_token_num: sizes of the trunk.
        num_hidden_layers_to_return: how many of the last layers forward returns. You may set it.
        workspace_limit: target for the working memory in bytes. You may set it. To stay below it, fewer looks and
            images run at once. It does not change a bit of the results. None: the environment variable
            PS3C_WORKSPACE_LIMIT (such as "512M"). If that is not set: 256 MiB on the CPU; on a GPU an eighth of the
            free memory, at least 256 MiB and at most 1 GiB.
        max_select_num_each_scale: number of patches that one look takes from each high-res scale. You may set it.
    """

    def __init__(self, config: PS3VisionConfig, **kwargs):
        super().__init__()
        if kwargs.get("patch_dropout", 0) != 0:
            raise ValueError(
                f"patch_dropout: got {kwargs['patch_dropout']}, expected 0: selection needs every low-res patch"
            )
        architecture = vision_config.architecture_of(config)
        scales = vision_config.scales_of(config, architecture.patch)
        high_scales = len(scales) - 1
        vision_config.select_layers_of(config, architecture.depth)
        vision_config.check_conv(config)
        self.config = config
        self.architecture = architecture
        self.gradient_checkpointing = False

        self.trunk = Trunk(architecture, vision_config.img_size_of(config, architecture))
        if config.radio:
            _make_radio(self.trunk, config)

        self.width = architecture.width
        self.layers = architecture.depth
        self.patch_size = architecture.patch
        self.ps3_scales = scales
        self.s3_image_size = scales[-1]
        self.num_hidden_layers_to_return = self.layers
        self.workspace_limit = None
        self.low_res_token_num = self.trunk.low_res_token_num = (scales[0] // self.patch_size) ** 2
        self.automatic_quotas = vision_config.automatic_quotas(config, scales)
        self.max_select_num_each_scale = list(config.max_select_num_each_scale or self.automatic_quotas)

        features = self.width * len(config.select_based_on_layer)
        self.selection_feature_proj = Mlp(features, features, self.width * high_scales, norm=True)
        self.prior_prompt = nn.Parameter(torch.randn(self.width))
        if config.separate_pos_emb:
            self.pos_emb_residual = nn.ParameterList(
                [nn.Parameter(torch.zeros(1, (scale // self.patch_size) ** 2, self.width)) for scale in scales[1:]]
            )
        if config.highres_selection_feature:
            out = config.highres_selection_module_out_dim
            self.highres_selection_feature_module = SelectionConvNet(
                config.highres_selection_module_hidden_dim,
                out,
                config.highres_selection_module_depth,
                config.highres_selection_module_kernel_size,
            )
            self.prompt_proj_for_highres = nn.Linear(self.width, out * high_scales)
        self._built = BuiltLayers(self)
        self._engine = Engine()
        self._engine_model()  # checks that the sizes go together

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.prior_prompt):
            self.prior_prompt.normal_()

    @property
    def s3_scales(self) -> list[int]:
        return self.ps3_scales

    def token_selection_param_names(self) -> list[str]:
        """Parts of parameter names that belong to the selection of patches."""
        return ["selection_feature_proj", "highres_selection_feature_module", "prompt_proj_for_highres"]

    # ---- sizes -----------------------------------------------------------------------------------------------

    def image_size_scale_i(self, x: torch.Tensor, scale_idx: int) -> tuple[int, int]:
        """Height and width in pixels of image x (..., H, W) at a scale; the low resolution is always square."""
        base = self.ps3_scales[0]
        if scale_idx == 0:
            return (base, base)
        height, width = x.shape[-2:]
        zoom = self.ps3_scales[scale_idx] // base
        longer, shorter = max(height, width), min(height, width)
        patches = max(int(base / longer * shorter) // self.patch_size, 1)
        long_side, short_side = base * zoom, patches * self.patch_size * zoom
        return (long_side, short_side) if height >= width else (short_side, long_side)

    def feature_size_scale_i(self, x: torch.Tensor, scale_idx: int) -> tuple[int, int]:
        """Rows and columns of patches of image x (..., H, W) at a scale."""
        height, width = self.image_size_scale_i(x, scale_idx)
        return (max(height // self.patch_size, 1), max(width // self.patch_size, 1))

    def max_highres_token_num(
        self, x: torch.Tensor, only_select_first_n_scale: int | Sequence[int] | None = None
    ) -> int:
        """Patches of image x (..., H, W) at all high-res scales, or at the first n (of a list: the largest n)."""
        last = len(self.ps3_scales) - 1
        if only_select_first_n_scale is not None:
            n = only_select_first_n_scale
            last = n if isinstance(n, int) else max(n)
        sizes = [self.feature_size_scale_i(x, i) for i in range(1, last + 1)]
        return sum(rows * cols for rows, cols in sizes)

    def resize_to_scale_i(self, x: torch.Tensor, scale_idx: int) -> torch.Tensor:
        """x (B, 3, H, W) resized (bicubic, not antialiased) to a scale. For inspection; forward does not use it."""
        return F.interpolate(x, size=self.image_size_scale_i(x, scale_idx), mode="bicubic")

    # ---- features to maps ------------------------------------------------------------------------------------

    def format_features_into_feature_maps(
        self, features: torch.Tensor, selection_maps: Sequence[torch.Tensor] | None
    ) -> list[torch.Tensor]:
        """Puts the features of tokens at the places of their patches.

        Args:
            features: (B, low_res_token_num + selected, C), such as last_hidden_state.
            selection_maps: S maps (B, h, w) of the same output. None if there were no looks.

        Returns:
            One map (B, C, h, w) for each scale, the low resolution first. It is 0 where no patch was selected.

        Raises:
            ValueError: selection_maps and features have different numbers of selected patches.
        """
        batch, tokens, channels = features.shape
        low = self.low_res_token_num
        side = self.ps3_scales[0] // self.patch_size
        feature_maps = [features[:, :low].transpose(1, 2).reshape(batch, channels, side, side)]
        if not selection_maps:
            if tokens != low:
                raise ValueError(
                    f"selection_maps: got none, but features has {tokens - low} tokens beyond the {low} "
                    "of the low resolution"
                )
            return feature_maps
        sizes = [tuple(selection_map.shape[1:]) for selection_map in selection_maps]
        selected = torch.cat([selection_map.flatten(1) for selection_map in selection_maps], dim=1).bool()
        counts = selected.sum(dim=1)
        if selected.shape[0] != batch or bool((counts + low != tokens).any()):
            raise ValueError(
                f"selection_maps: got {counts.tolist()} selected patches an image, expected "
                f"{tokens - low} for each of {batch}: features has {tokens} tokens, {low} of them low-res"
            )
        full = features.new_zeros(batch, selected.shape[1], channels)
        full[selected] = features[:, low:].reshape(-1, channels)
        first = 0
        for rows, cols in sizes:
            part = full[:, first : first + rows * cols]
            feature_maps.append(part.transpose(1, 2).unflatten(2, (rows, cols)))
            first += rows * cols
        return feature_maps

    # ---- forward ---------------------------------------------------------------------------------------------

    def forward_low_res(
        self, x: torch.Tensor, output_hidden_states: bool = False, return_kv_cache: bool = False
    ) -> dict[str, Any]:
        """Encodes the image only at low resolution.

        Args:
            x: (B, 3, H, W), in the weights' dtype.
            output_hidden_states: also return the output of every layer, (B, low_res_token_num, C) each.

        Returns:
            {"x": pooled (B, C), "hidden_states": list or None, "output_kv_cache": None}
        """
        if _arguments.flag("return_kv_cache", return_kv_cache):
            raise NotImplementedError(
                "return_kv_cache: got True, but ps3c keeps keys and values in the engine's memory, in its own layout; "
                "forward uses them there for every look"
            )
        layers = self.layers if _arguments.flag("output_hidden_states", output_hidden_states) else 0
        outputs = VisionForward(self, x).low_res(layers)
        return {"x": outputs["pooled"], "hidden_states": outputs["hidden_states"] or None, "output_kv_cache": None}

    def forward(
        self,
        x: torch.Tensor,
        prompt: torch.Tensor | None = None,
        gt_selection_maps: torch.Tensor | None = None,
        is_global_text: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        pool_gt_token_only: bool = False,
        num_look_close: Looks = None,
        num_token_look_close: Looks = None,
        smooth_selection_prob: bool = False,
        only_select_first_n_scale: int | Sequence[int] | None = None,
    ) -> PS3VisionModelOutput:
        """Encodes images; arguments as in PS3VisionModel.forward, output_hidden_states=False by default."""
        call = self._call(x, prompt, gt_selection_maps)
        if _arguments.flag("output_hidden_states", output_hidden_states):
            request = self._features_request(
                call.batch, num_look_close, num_token_look_close, smooth_selection_prob, only_select_first_n_scale
            )
            return PS3VisionModelOutput(**call.features(request))
        for name, value in (
            ("num_look_close", num_look_close),
            ("num_token_look_close", num_token_look_close),
            ("only_select_first_n_scale", only_select_first_n_scale),
        ):
            if value is not None:
                raise ValueError(
                    f"{name}: got {_arguments.shown(value)}, expected None with output_hidden_states=False, which "
                    "always takes one look at all scales"
                )
        pooled_dtype = call.dtype if is_global_text is None else call.add_global_text(is_global_text)
        request = {
            "smooth": _arguments.flag("smooth_selection_prob", smooth_selection_prob),
            "pool_gt_only": _arguments.flag("pool_gt_token_only", pool_gt_token_only),
        }
        outputs = call.pretrain(request)
        outputs["pooled_output"] = outputs["pooled_output"].to(pooled_dtype)
        return PS3VisionModelOutput(**outputs)

    def steps(
        self,
        x: torch.Tensor,
        *,
        prompt: torch.Tensor | None = None,
        gt_selection_maps: torch.Tensor | None = None,
        num_look_close: Looks = None,
        num_token_look_close: Looks = None,
        smooth_selection_prob: bool = False,
        only_select_first_n_scale: int | Sequence[int] | None = None,
        pooled: bool = False,
        looks_per_step: int = 0,
    ) -> Steps:
        """forward with output_hidden_states=True as an iterator of steps. A step runs when the iterator reaches it.

        Args:
            pooled: also return the low-res pooled vector, the "x" of forward_low_res.
            looks_per_step: maximum number of looks in a step. 0: as many as memory allows, which is fastest.
            The others: as in PS3VisionModel.forward.

        Returns:
            The iterator. Its `outputs` hold the tensors. Its `count` is the number of steps.

        Raises:
            The errors of forward for these arguments, before any step runs.
        """
        call = self._call(x, prompt, gt_selection_maps)
        request = self._features_request(
            call.batch, num_look_close, num_token_look_close, smooth_selection_prob, only_select_first_n_scale
        )
        return call.steps(request, pooled=_arguments.flag("pooled", pooled), looks_per_step=looks_per_step)

    def _call(self, x, prompt, gt_selection_maps) -> VisionForward:
        call = VisionForward(self, x)
        call.add("prompt", prompt, field="prompt", broadcast=True, contiguous=True, autocast=True)
        call.add("gt_selection_maps", gt_selection_maps, field="gt_maps", broadcast=True)
        return call

    def _features_request(
        self, batch: int, num_look_close, num_token_look_close, smooth_selection_prob, only_select_first_n_scale
    ) -> dict[str, Any]:
        """Fields of ps3c_vision_request in csrc/ps3c.h."""
        return {
            **looks_request(num_look_close, num_token_look_close),
            "first_n_scales": first_n_scales(only_select_first_n_scale, batch, len(self.ps3_scales) - 1),
            "smooth": _arguments.flag("smooth_selection_prob", smooth_selection_prob),
            "hidden_states": layers_to_return(self.num_hidden_layers_to_return, self.layers),
        }

    def _engine_model(self) -> EngineModel:
        return self._engine.model(self, VisionModel, vision_config.engine_config(self))


class _EncodesImages:
    """The image call that PS3VisionModel and PS3Model share, over `self.vision_model`."""

    def _encode_image(
        self,
        pixel_values: torch.Tensor,
        num_look_close: Looks = None,
        num_token_look_close: Looks = None,
        prompt: torch.Tensor | None = None,
        gt_selection_maps: torch.Tensor | None = None,
        smooth_selection_prob: bool = False,
        only_select_first_n_scale: int | Sequence[int] | None = None,
        is_global_text: torch.Tensor | None = None,
        pool_gt_token_only: bool = False,
        output_hidden_states: bool = True,
    ) -> PS3VisionModelOutput:
        """Encodes images at low resolution, and their best patches at higher resolutions.

        Args:
            pixel_values: (B, 3, H, W), any height and width, in the dtype of the weights.
            num_look_close: number of looks, which are rounds of encoding patches. "all": until every patch is encoded.
                0: only the low resolution.
            num_token_look_close: number of patches to encode, instead of looks; also "all" or 0. One of the two
                arguments must be given.
            prompt: (B, C), the `prompt` of PS3TextModel: patches are ranked by it. None: they are ranked by saliency.
            gt_selection_maps: (B, h, w) of any size: patches where it is greater than 0 are selected first.
            smooth_selection_prob: average the probabilities over a 6 x 6 grid before the ranking.
            only_select_first_n_scale: select almost only from the first n high-res scales. An int, or one per image.
            output_hidden_states: False: the pre-training form, with one look, pooled vectors and all probabilities.
            is_global_text: (B, 1), only in the pre-training form: images that get the low-res pooled vector.
            pool_gt_token_only: only in the pre-training form: pool only the patches inside gt_selection_maps.

        Raises:
            TypeError, ValueError: an argument is not valid; the message names it.
            NotImplementedError: gradients are requested. MemoryError: there is not enough memory.
            RuntimeError: ps3c has no backend for the device of the tensors.
        """
        output_hidden_states = _arguments.flag("output_hidden_states", output_hidden_states)
        if not output_hidden_states:
            warnings.warn(
                "output_hidden_states=False is the form of pre-training: one look, pooled vectors only.", stacklevel=2
            )
        return self.vision_model(
            pixel_values,
            prompt,
            gt_selection_maps,
            is_global_text,
            output_hidden_states=output_hidden_states,
            pool_gt_token_only=pool_gt_token_only,
            num_look_close=num_look_close,
            num_token_look_close=num_token_look_close,
            smooth_selection_prob=smooth_selection_prob,
            only_select_first_n_scale=only_select_first_n_scale,
        )


def _make_radio(trunk: Trunk, config: PS3VisionConfig) -> None:
    # C-RADIO: no last norm (unless asked for), an MLP into SigLIP's space, and SigLIP's attention pool.
    trunk.radio = True
    if not config.final_norm:
        trunk.norm = nn.Identity()
    trunk.siglip_proj = create_mlp_from_config(
        config.radio_adapter_mlp_version,
        config.radio_adapter_mlp_input_dim,
        config.radio_adapter_mlp_hidden_dim,
        config.radio_adapter_mlp_output_dim,
        config.radio_adapter_mlp_num_inner,
    )
    width = vision_config.SIGLIP_WIDTH
    hidden = int(width * vision_config.SIGLIP_MLP_RATIO)
    trunk.attn_pool = AttentionPool(width, vision_config.SIGLIP_HEADS, hidden, 1e-6)


# ---- models ------------------------------------------------------------------------------------------------------


class PS3PreTrainedModel(PretrainedBase):
    """Base of the PS3 models: loading, saving and first values of parameters."""

    config_class = PS3Config
    base_model_prefix = "ps3"
    _no_split_modules = ["PS3VisionEncoder"]


class PS3TextModel(PS3PreTrainedModel):
    """The text tower as a model of its own."""

    config_class = PS3TextConfig
    main_input_name = "text"
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^logit_(scale|bias)$", r"\.ls_[12]\.weight$"]

    def __init__(self, config: PS3TextConfig):
        super().__init__(config)
        self.text_model = TextTransformer(config)
        self.post_init()

    def forward(self, text: torch.Tensor) -> PS3TextModelOutput:
        """Token ids (B, L) -> pooled_output (B, output_dim) and prompt (B, prompt_proj_dim). See TextTransformer."""
        return self.text_model(text)


class PS3VisionModel(_EncodesImages, PS3PreTrainedModel):
    """The vision tower as a model of its own. `vision_model` is the PS3VisionEncoder."""

    config_class = PS3VisionConfig
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: PS3VisionConfig):
        super().__init__(config)
        self.vision_model = PS3VisionEncoder(config)
        self.post_init()

    @property
    def width(self) -> int:
        return self.vision_model.width

    forward = _EncodesImages._encode_image


class PS3Model(_EncodesImages, PS3PreTrainedModel):
    """Both towers: `vision_model` (PS3VisionEncoder) and `text_model`."""

    config_class = PS3Config
    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"^logit_(scale|bias)$", r"\.ls_[12]\.weight$"]

    def __init__(self, config: PS3Config):
        super().__init__(config)
        for name, expected in (("text_config", PS3TextConfig), ("vision_config", PS3VisionConfig)):
            part = getattr(config, name)
            if not isinstance(part, expected):
                raise TypeError(f"config.{name}: got {type(part).__name__}, expected {expected.__name__}")
        self.text_model = TextTransformer(config.text_config)
        self.vision_model = PS3VisionEncoder(config.vision_config)
        self.post_init()

    encode_image = _EncodesImages._encode_image

    def forward(self, *_: Any, **__: Any) -> None:
        """NotImplementedError, as in ps3-torch: the model has two calls, encode_image and encode_text."""
        raise NotImplementedError(
            "PS3Model: got a call of the model, expected encode_image(pixel_values, num_look_close=...) or "
            "encode_text(text); a transformers pipeline calls neither: use ps3c.load(folder).embed_images"
        )

    def encode_text(self, text: torch.Tensor) -> PS3TextModelOutput:
        """Token ids (B, L) -> pooled_output and prompt. See TextTransformer."""
        return self.text_model(text)

"""PS3's text tower."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithNoAttention

from ..engine.core import TextModel
from ..engine.layers import BuiltLayers
from ..engine.models import Engine, EngineModel
from ..engine.tensors import check_tensor, converted
from .configuration_ps3 import PS3TextConfig
from .forward import Forward
from .layers import Mlp, ParameterHolder, TextBlocks, Wanted

POOL_TYPES = ("first", "last", "argmax", "none")


@dataclass
class PS3TextModelOutput(BaseModelOutputWithNoAttention):
    """pooled_output: (B, output_dim); prompt: (B, prompt_proj_dim), for PS3VisionModel's `prompt`.

    With pool_type "none" both have a token dimension in the middle: (B, L, ...).
    """

    pooled_output: torch.FloatTensor | None = None
    prompt: torch.FloatTensor | None = None


class TextTransformer(ParameterHolder):
    """The text tower. ids (B, L) of integers, L at most context_length -> PS3TextModelOutput.

    Attributes:
        workspace_limit: may be set; as PS3VisionEncoder's.
    """

    def __init__(self, config: PS3TextConfig):
        super().__init__()
        _check_config(config)
        self.config = config
        self.gradient_checkpointing = False
        self.output_tokens = config.output_tokens
        self.context_length = config.context_length
        self.num_pos = config.context_length + bool(config.embed_cls)
        self.vocab_size = config.vocab_size
        self.width = config.width
        self.output_dim = config.output_dim
        self.heads = config.heads
        self.pad_id = config.pad_id
        self.pool_type = config.pool_type
        self.prompt_proj_dim = config.prompt_proj_dim
        self.workspace_limit = None
        eps = config.norm_kwargs.get("eps", 1e-5)

        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.cls_emb = nn.Parameter(torch.empty(config.width)) if config.embed_cls else None
        self.positional_embedding = nn.Parameter(torch.empty(self.num_pos, config.width))
        self.transformer = TextBlocks(
            config.width, config.layers, config.heads, int(config.width * config.mlp_ratio), eps, config.ls_init_value
        )
        self.ln_final = nn.LayerNorm(config.width, eps=eps)
        if config.proj_bias:
            self.text_projection = nn.Linear(config.width, config.output_dim)
        else:
            self.text_projection = nn.Parameter(torch.empty(config.width, config.output_dim))
        self.prompt_proj = Mlp(config.output_dim, config.prompt_proj_dim, config.prompt_proj_dim, norm=True)
        self._draw()
        self._built = BuiltLayers(self)
        self._engine = Engine()
        self._engine_model()  # checks that the sizes go together

    def _draw(self) -> None:
        width = self.width
        self.token_embedding.init_std = 0.02
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        if self.cls_emb is not None:
            nn.init.normal_(self.cls_emb, std=0.01)
        residual_std = (width**-0.5) * ((2 * self.transformer.layers) ** -0.5)
        for block in self.transformer.resblocks:
            block.attn.init_std = width**-0.5
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            for linear, std in (
                (block.attn.out_proj, residual_std),
                (block.mlp.c_fc, (2 * width) ** -0.5),
                (block.mlp.c_proj, residual_std),
            ):
                linear.init_std = std
                nn.init.normal_(linear.weight, std=std)
        if isinstance(self.text_projection, nn.Linear):
            self.text_projection.init_std = width**-0.5
            nn.init.normal_(self.text_projection.weight, std=width**-0.5)
            nn.init.zeros_(self.text_projection.bias)
        else:
            nn.init.normal_(self.text_projection, std=width**-0.5)

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.positional_embedding):
            self.positional_embedding.normal_(0.0, 0.01)
        if self.cls_emb is not None and wanted(self.cls_emb):
            self.cls_emb.normal_(0.0, 0.01)
        if isinstance(self.text_projection, nn.Parameter) and wanted(self.text_projection):
            self.text_projection.normal_(0.0, self.width**-0.5)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Accepted and remembered; a forward pass does not depend on it."""
        self.transformer.grad_checkpointing = enable

    def _engine_model(self) -> EngineModel:
        c = self.config
        config: dict[str, Any] = {
            "width": c.width,
            "depth": c.layers,
            "heads": c.heads,
            "mlp_hidden": int(c.width * c.mlp_ratio),
            "context_length": c.context_length,
            "vocab_size": c.vocab_size,
            "output_dim": c.output_dim,
            "prompt_dim": c.prompt_proj_dim,
            "norm_eps": c.norm_kwargs.get("eps", 1e-5),
            "causal": not c.no_causal_mask,
            "class_token": bool(c.embed_cls),
            "pad_id": c.pad_id,
            "layer_scale": c.ls_init_value is not None,
            "tanh_gelu": c.act_kwargs.get("approximate", "none") == "tanh",
            "projection_linear": bool(c.proj_bias),
            "projection_bias": bool(c.proj_bias),
            "pool": c.pool_type,
        }
        return self._engine.model(self, TextModel, config)

    def forward(self, text: torch.Tensor) -> PS3TextModelOutput:
        """Encodes token ids.

        Args:
            text: (B, L) of any integer dtype, 1 <= L <= context_length, ids below vocab_size.

        Raises:
            TypeError: not a tensor of integers. ValueError: wrong shape, too long, or an id outside the vocabulary
                (on a GPU, where reading ids would mean waiting, such a text's results are NaN instead).
            NotImplementedError: in train() mode with gradients wanted.
        """
        ids = self._check_ids(text)
        call = Forward(self)
        call.check_grad({})
        batch, length = ids.shape
        plan = call.plan(batch, length)
        tokens = (length,) if plan.every_token else ()
        pooled = call.empty("pooled_output", batch, *tokens, self.output_dim)
        prompt = call.empty("prompt", batch, *tokens, self.prompt_proj_dim)
        call.run(plan, ids, pooled=pooled, prompt=prompt)
        return PS3TextModelOutput(pooled_output=pooled, prompt=prompt)

    def _check_ids(self, text: torch.Tensor) -> torch.Tensor:
        ids = check_tensor("text", text)
        if ids.dtype == torch.bool or ids.is_floating_point() or "bits" in str(ids.dtype):
            raise TypeError(f"text: got {ids.dtype}, expected integer token ids such as torch.int64")
        if ids.dim() != 2:
            raise ValueError(f"text: got shape {tuple(ids.shape)}, expected (batch, length)")
        return converted("text", ids, torch.int64)


def _check_config(config: PS3TextConfig) -> None:
    if config.pool_type not in POOL_TYPES:
        raise ValueError(f"pool_type: got {config.pool_type!r}, expected one of {', '.join(POOL_TYPES)}")
    for name in ("width", "heads", "layers", "context_length", "vocab_size", "output_dim", "prompt_proj_dim"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive integer")
    if config.width % config.heads:
        raise ValueError(f"heads: got {config.heads}, expected a divisor of width, {config.width}")
    unknown = set(config.norm_kwargs) - {"eps"}
    if unknown:
        raise ValueError(f"norm_kwargs: got {', '.join(sorted(unknown))}, expected only eps")
    unknown = set(config.act_kwargs) - {"approximate"}
    if unknown or config.act_kwargs.get("approximate", "none") not in ("none", "tanh"):
        raise ValueError(f"act_kwargs: got {config.act_kwargs}, expected {{}} or {{'approximate': 'none' | 'tanh'}}")

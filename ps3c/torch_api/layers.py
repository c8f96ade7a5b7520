"""The parts that PS3's models are made of, as holders of parameters.

Names and shapes of parameters are those of ps3-torch's state_dict; the order in which they are created and filled is
its order too, so that a seed gives the same weights. Nothing here computes: the engine reads the parameters.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

Wanted = Callable[[torch.Tensor], bool]


class ParameterHolder(nn.Module):
    """A module that only holds parameters of the engine."""

    def forward(self, *args, **kwargs):
        raise NotImplementedError(
            f"{type(self).__name__} holds parameters only: ps3c computes a whole pass at once. Call PS3VisionModel, "
            "PS3TextModel, PS3Model.encode_image, PS3Model.encode_text or PS3VisionEncoder.forward_low_res"
        )

    def initialise_own(self, wanted: Wanted) -> None:
        """Fills the wanted ones of the parameters that this module itself holds with their first values."""


@torch.no_grad()
def initialise(module: nn.Module, wanted: Wanted) -> None:
    """Fills the wanted ones of `module`'s own parameters (not its children's) with first values.

    For parameters that a checkpoint lacks, whose memory is uninitialised: they get the values of construction.
    """
    if isinstance(module, ParameterHolder):
        module.initialise_own(wanted)
    elif isinstance(module, (nn.Linear, nn.Conv2d)):
        _initialise_linear(module, wanted)
    elif isinstance(module, nn.LayerNorm):
        if module.weight is not None and wanted(module.weight):
            module.weight.fill_(1.0)
        if module.bias is not None and wanted(module.bias):
            module.bias.zero_()
    elif isinstance(module, nn.Embedding):
        if wanted(module.weight):
            module.weight.normal_(0.0, module.init_std)
    elif isinstance(module, nn.MultiheadAttention):
        if wanted(module.in_proj_weight):
            module.in_proj_weight.normal_(0.0, module.init_std)
        if wanted(module.in_proj_bias):
            module.in_proj_bias.zero_()
    elif isinstance(module, nn.ParameterList):
        for parameter in module:
            if wanted(parameter):
                parameter.zero_()


def _initialise_linear(module: nn.Module, wanted: Wanted) -> None:
    # init_std marks the layers that do not start as torch's own do.
    std = getattr(module, "init_std", None)
    bound = 1.0 / math.sqrt(max(module.weight[0].numel(), 1))
    if wanted(module.weight):
        if std is None:
            module.weight.uniform_(-bound, bound)
        else:
            module.weight.normal_(0.0, std).clamp_(-2.0, 2.0)
    if module.bias is not None and wanted(module.bias):
        if std is None:
            module.bias.uniform_(-bound, bound)
        else:
            module.bias.zero_()


@torch.no_grad()
def truncated_normal_(tensor: torch.Tensor, std: float, cut: float) -> torch.Tensor:
    """Fills tensor from a normal distribution with values beyond `cut` standard deviations left out.

    By the inverse of the distribution function, one uniform number an element. (torch.nn.init.trunc_normal_ draws
    differently from one version to the next, so that a seed would not give the same weights.)
    """
    edge = math.erf(cut / math.sqrt(2.0))
    return tensor.uniform_(-edge, edge).erfinv_().mul_(std * math.sqrt(2.0)).clamp_(-cut * std, cut * std)


def drawing_is_off() -> bool:
    """Inside transformers 4.46's from_pretrained, which makes the functions of torch.nn.init do nothing."""
    return nn.init.uniform_.__module__ != "torch.nn.init"


class Mlp(ParameterHolder):
    """fc1, activation, optionally a LayerNorm (eps 1e-5), fc2."""

    def __init__(self, width: int, hidden: int, out: int, norm: bool = False):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        if norm:
            self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, out)


class PatchEmbed(ParameterHolder):
    """proj: convolution of one patch, (C, 3, patch, patch). Sizes are pairs, as other packages read them."""

    def __init__(self, img_size: int, patch: int, width: int):
        super().__init__()
        self.patch_size = (patch, patch)
        self.img_size = (img_size, img_size)
        self.grid_size = (img_size // patch, img_size // patch)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)


class Attention(ParameterHolder):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)


class Block(ParameterHolder):
    def __init__(self, width: int, heads: int, mlp_hidden: int, eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_hidden, width)


class AttentionPool(ParameterHolder):
    """One learned query over all tokens, then x + MLP(LayerNorm(x)). latent: (1, 1, C)."""

    def __init__(self, width: int, heads: int, mlp_hidden: int, eps: float):
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_hidden, width)
        self.initialise_own(lambda parameter: True)

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.latent):
            with torch.no_grad():
                truncated_normal_(self.latent, 1.0, 2.0).mul_(self.latent.shape[-1] ** -0.5)


class Trunk(ParameterHolder):
    """The vision transformer. pos_embed: (1, grid * grid, C).

    Attributes that other packages read: num_features, embed_dim, num_prefix_tokens, patch_embed, low_res_token_num.
    """

    def __init__(self, architecture, img_size: int):
        super().__init__()
        a = architecture
        self.num_features = self.embed_dim = a.width
        self.num_prefix_tokens = 0
        self.global_pool = "map"
        self.grad_checkpointing = False
        self.radio = False
        self.patch_embed = PatchEmbed(img_size, a.patch, a.width)
        self.pos_embed = nn.Parameter(torch.randn(1, self.patch_embed.num_patches, a.width) * 0.02)
        self.blocks = nn.Sequential(*[Block(a.width, a.heads, a.mlp_hidden, a.norm_eps) for _ in range(a.depth)])
        self.norm = nn.LayerNorm(a.width, eps=a.norm_eps)
        self.attn_pool = AttentionPool(a.width, a.heads, a.mlp_hidden, a.norm_eps)
        self._draw()

    def _draw(self) -> None:
        draw = not drawing_is_off()
        if draw:
            truncated_normal_(self.pos_embed, 0.02, 100.0)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.init_std = 0.02
                if draw:
                    truncated_normal_(module.weight, 0.02, 100.0)
                    nn.init.zeros_(module.bias)
        self.attn_pool.initialise_own(lambda parameter: True)

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.pos_embed):
            truncated_normal_(self.pos_embed, 0.02, 100.0)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Accepted and remembered; a forward pass does not depend on it."""
        self.grad_checkpointing = enable


class ConvBlock(ParameterHolder):
    """Depthwise 7x7, LayerNorm over channels, MLP four times as wide, scaled by `weight` (C,), added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width, width)
        self.weight = nn.Parameter(1e-6 * torch.ones(width))

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.weight):
            self.weight.fill_(1e-6)


class SelectionConvNet(ParameterHolder):
    """The convolution network that helps to rank patches: stem, blocks, 1x1 projection."""

    def __init__(self, width: int, out: int, depth: int, kernel: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, kernel_size=kernel, stride=kernel), nn.LayerNorm(width, eps=1e-6))
        self.blocks = nn.Sequential(*[ConvBlock(width) for _ in range(depth)])
        self.out_proj = nn.Conv2d(width, out, kernel_size=1)


class LayerScale(ParameterHolder):
    """gamma: (C,)."""

    def __init__(self, width: int, first: float):
        super().__init__()
        self.first = first
        self.gamma = nn.Parameter(first * torch.ones(width))

    def initialise_own(self, wanted: Wanted) -> None:
        if wanted(self.gamma):
            self.gamma.fill_(self.first)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # transformers up to 4.46 renames every "gamma" of a checkpoint to "weight".
        if prefix + "gamma" not in state_dict and prefix + "weight" in state_dict:
            state_dict[prefix + "gamma"] = state_dict.pop(prefix + "weight")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class TextBlock(ParameterHolder):
    def __init__(self, width: int, heads: int, mlp_hidden: int, eps: float, layer_scale):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ls_1 = LayerScale(width, layer_scale) if layer_scale is not None else nn.Identity()
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, mlp_hidden))
        self.mlp.add_module("gelu", nn.Identity())
        self.mlp.add_module("c_proj", nn.Linear(mlp_hidden, width))
        self.ls_2 = LayerScale(width, layer_scale) if layer_scale is not None else nn.Identity()


class TextBlocks(ParameterHolder):
    def __init__(self, width: int, layers: int, heads: int, mlp_hidden: int, eps: float, layer_scale):
        super().__init__()
        self.width = width
        self.layers = layers
        self.grad_checkpointing = False
        self.resblocks = nn.ModuleList([TextBlock(width, heads, mlp_hidden, eps, layer_scale) for _ in range(layers)])

"""The table of vision forwards that ps3c and the reference are compared on.

A case is a model of models.VISION, the size (B, H, W) of the image and the arguments of PS3VisionModel.forward, with
stand-ins for tensors:

    prompt=SEED                    a prompt of that seed; prompt="zero": zeros, which makes every cosine 0
    gt=(dtype, h, w)               gt_selection_maps; gt="ones": everything true
    global_text=dtype              is_global_text, true for every second image
    layers=N                       num_hidden_layers_to_return (all of them when absent)
    pixels="constant"              a constant image

HALF names the cases that also run in float16 and bfloat16.
"""

from dataclasses import dataclass, field

import models
import torch


@dataclass
class Case:
    model: str
    size: tuple
    args: dict = field(default_factory=dict)
    half: bool = False

    def __str__(self):
        words = [self.model, "x".join(map(str, self.size))]
        for key, value in self.args.items():
            if isinstance(value, tuple):
                value = "x".join(str(part).removeprefix("torch.") for part in value)
            words.append(f"{key}={str(value).removeprefix('torch.')}")
        return "-".join(words).replace(" ", "")

    def inputs(self, dtype: torch.dtype, width: int) -> tuple:
        """(pixel_values, keyword arguments) in `dtype` for a model of `width` channels."""
        args = dict(self.args)
        args.pop("layers", None)
        batch, height, width_pixels = self.size
        pixels = models.image(batch, height, width_pixels)
        if args.pop("pixels", None) == "constant":
            pixels = torch.full_like(pixels, 0.7)
        seed = args.pop("prompt", None)
        if seed is not None:
            prompt = torch.zeros(batch, width) if seed == "zero" else models.prompt(batch, width, seed)
            args["prompt"] = prompt.to(dtype)
        gt = args.pop("gt", None)
        if gt == "ones":
            args["gt_selection_maps"] = torch.ones(batch, 20, 30)
        elif gt == "zeros":
            args["gt_selection_maps"] = torch.zeros(batch, 20, 30)
        elif gt is not None:
            kind, rows, columns = gt
            args["gt_selection_maps"] = models.gt_maps(batch, rows, columns, kind)
        kind = args.pop("global_text", None)
        if kind is not None:
            args["is_global_text"] = (torch.arange(batch) % 2 == 0).unsqueeze(1).to(kind)
        return pixels.to(dtype), args


def case(model, size, half=False, **args):
    return Case(model, size, args, half)


S = (1, 128, 160)  # a small image, wider than high
T = (2, 130, 100)  # two, higher than wide
Q = (1, 96, 96)  # square: all of 64 + 256 high-res patches

FEATURES = [
    # the number of looks
    case("tiny", S, num_look_close=0, half=True),
    case("tiny", S, num_token_look_close=0),
    case("tiny", S, num_look_close=1, half=True),
    case("tiny", S, num_look_close=2, half=True),
    case("tiny", Q, num_look_close=4),
    case("tiny", Q, num_look_close="all", half=True),
    case("tiny", Q, num_look_close=100),
    case("odd", Q, num_look_close="all"),
    case("few", Q, num_look_close="all"),
    case("few", (2, 100, 96), num_look_close=9, layers=1, half=True),
    case("whole_first", Q, num_look_close=3),
    case("given_quotas", Q, num_look_close=5),
    # the number of patches
    case("tiny", Q, num_token_look_close=1),
    case("tiny", Q, num_token_look_close=10, half=True),
    case("tiny", Q, num_token_look_close=63),
    case("tiny", Q, num_token_look_close=64),
    case("tiny", Q, num_token_look_close=65, half=True),
    case("tiny", Q, num_token_look_close=128),
    case("tiny", Q, num_token_look_close=200),
    case("tiny", Q, num_token_look_close=319),
    case("tiny", Q, num_token_look_close=100000),
    case("tiny", Q, num_token_look_close="all"),
    case("odd", (2, 96, 128), num_token_look_close=50),
    case("four_scales", Q, num_token_look_close=5),
    case("four_scales", Q, num_token_look_close=149),
    case("given_quotas", S, num_token_look_close=26),
    # both
    case("tiny", Q, num_look_close=1, num_token_look_close=20),
    case("tiny", Q, num_look_close=1, num_token_look_close=64),
    case("tiny", Q, num_look_close=1, num_token_look_close=100),
    case("tiny", Q, num_look_close=0, num_token_look_close=20),
    case("tiny", Q, num_look_close=2, num_token_look_close=0),
    case("tiny", Q, num_look_close=2, num_token_look_close="all"),
    case("tiny", Q, num_look_close=0, num_token_look_close="all"),
    # the prompt
    case("tiny", S, num_look_close=1, prompt=0, half=True),
    case("tiny", T, num_look_close=2, prompt=1),
    case("tiny", T, num_look_close=0, prompt=1),
    case("tiny", (3, 96, 96), num_token_look_close=100, prompt=2, half=True),
    # ground truth
    case("tiny", S, num_look_close=1, gt=(torch.float32, 16, 16), half=True),
    case("tiny", S, num_look_close=2, gt=(torch.bool, 100, 130)),
    case("tiny", T, num_look_close=2, gt=(torch.int64, 5, 3)),
    case("tiny", T, num_look_close=1, gt=(torch.uint8, 64, 64)),
    case("tiny", S, num_look_close=1, gt=(torch.int32, 30, 30)),
    case("tiny", S, num_look_close=1, gt=(torch.float64, 7, 200)),
    case("tiny", S, num_look_close=1, gt=(torch.float16, 8, 10)),
    case("tiny", S, num_look_close=1, gt=(torch.bfloat16, 1, 1)),
    case("tiny", T, num_look_close=0, gt=(torch.float32, 8, 8)),
    case("tiny", T, num_look_close=2, gt=(torch.float32, 9, 12), prompt=3, half=True),
    case("tiny", Q, num_token_look_close=90, gt=(torch.bool, 12, 12), prompt=3),
    case("tiny", Q, num_look_close=2, gt="ones"),
    case("tiny", Q, num_look_close=2, gt="zeros"),
    # smoothing
    case("tiny", S, num_look_close=2, smooth_selection_prob=True, half=True),
    case("tiny", T, num_look_close=1, smooth_selection_prob=True, prompt=4),
    case("tiny", T, num_look_close=1, smooth_selection_prob=True, gt=(torch.float32, 9, 12)),
    case("tiny", Q, num_token_look_close=150, smooth_selection_prob=True),
    # (Not with four_scales: of its 2 x 2 probabilities several windows average equal numbers, 3, 6 or 9 of them, so
    # that the last bit decides which comes first.)
    case("two_scales", (1, 90, 40), num_look_close="all", smooth_selection_prob=True),
    # the first n scales
    case("tiny", Q, num_look_close=1, only_select_first_n_scale=1, half=True),
    case("tiny", Q, num_look_close=2, only_select_first_n_scale=2),
    case("tiny", Q, num_look_close="all", only_select_first_n_scale=1),
    case("tiny", Q, num_token_look_close=40, only_select_first_n_scale=1),
    case("tiny", (2, 96, 96), num_look_close=2, only_select_first_n_scale=[1, 2]),
    case("tiny", (2, 96, 96), num_look_close=2, only_select_first_n_scale=[2, 2], prompt=5),
    case("four_scales", Q, num_look_close=1, only_select_first_n_scale=2),
    case("four_scales", Q, num_look_close=3, only_select_first_n_scale=2, half=True),
    case("four_scales", (2, 96, 96), num_look_close=2, only_select_first_n_scale=[2, 3]),
    case("four_scales", Q, num_token_look_close=60, only_select_first_n_scale=2),
    case("four_scales", Q, num_token_look_close=100, only_select_first_n_scale=2, gt=(torch.float32, 16, 16)),
    case("five_scales", Q, num_look_close=2, only_select_first_n_scale=3),
    # the layers returned
    case("tiny", S, num_look_close=1, layers=1),
    case("tiny", S, num_look_close=2, layers=2, prompt=0),
    case("tiny", S, num_look_close=0, layers=2),
    case("tiny", T, num_token_look_close=70, layers=12),
    # sizes
    case("tiny", (1, 1, 900), num_look_close=1),
    case("tiny", (1, 1, 900), num_look_close="all", prompt=1),
    case("tiny", (1, 17, 900), num_look_close=2, half=True),
    case("tiny", (1, 900, 17), num_look_close=1),
    case("tiny", (1, 900, 1), num_token_look_close=70),
    case("tiny", (1, 333, 444), num_look_close=2, half=True),
    case("tiny", (1, 444, 333), num_look_close=1, smooth_selection_prob=True),
    case("tiny", (1, 378, 378), num_look_close=1),
    case("tiny", (1, 1, 1), num_look_close=1),
    case("tiny", (1, 2, 3), num_look_close="all"),
    case("tiny", (1, 64, 64), num_look_close=1),
    case("tiny", (1, 256, 256), num_look_close=2),
    case("tiny", (1, 49, 49), num_look_close="all"),
    case("tiny", (1, 600, 500), num_look_close=1, prompt=1, gt=(torch.float32, 60, 50)),
    case("patch14", (1, 333, 444), num_look_close=2, half=True),
    case("patch14", (1, 1, 900), num_look_close=1),
    # batches
    case("tiny", (2, 100, 100), num_look_close=1, half=True),
    case("tiny", (3, 60, 90), num_look_close=2, gt=(torch.float32, 6, 9)),
    case("tiny", (5, 40, 40), num_look_close=1, prompt=2, layers=1),
    # equal probabilities
    case("tiny", Q, num_look_close=2, pixels="constant"),
    case("no_highres", Q, num_look_close=2, prompt="zero", half=True),
    case("no_highres", (2, 70, 100), num_token_look_close=100, prompt="zero"),
    case("no_highres", Q, num_look_close=3, prompt="zero", smooth_selection_prob=True),
    case("four_scales", (1, 17, 90), num_look_close=3, pixels="constant", half=True),
    # kinds of model
    case("own_grid", S, num_look_close=2, half=True),
    case("two_scales", S, num_look_close=2, prompt=1, half=True),
    case("two_scales", Q, num_look_close="all", gt=(torch.float32, 9, 9)),
    case("four_scales", S, num_look_close=2, half=True),
    case("four_scales", Q, num_look_close="all", prompt=1, layers=1),
    case("five_scales", S, num_look_close=3, prompt=1, half=True),
    case("uneven_scales", S, num_look_close=2, half=True),
    case("uneven_scales", (1, 200, 90), num_look_close="all"),
    case("no_residual", T, num_look_close=2, half=True),
    case("no_highres", S, num_look_close=2, prompt=1, half=True),
    case("deep_highres", S, num_look_close=1, prompt=1, half=True),
    case("stride_28", (1, 200, 150), num_look_close=1, prompt=1, half=True),
    case("one_select_layer", S, num_look_close=1),
    case("repeated_select_layer", S, num_look_close=1, prompt=1),
    case("radio_v2", S, num_look_close=2, prompt=1, half=True),
    case("radio_v2", (1, 300, 90), num_look_close=1),
    case("radio_v1", T, num_look_close=1),
    case("small", S, num_look_close=1, prompt=1, half=True),
    case("test_vit", (2, 100, 170), num_look_close=2, prompt=1, half=True),
    case("patch14", (2, 100, 170), num_look_close=2, prompt=1, half=True),
    case("patch14", Q, num_look_close="all", layers=2),
    case("siglip", S, num_look_close=1, prompt=1, layers=2, half=True),
]

P = (4, 120, 90)

PRETRAIN = [
    case("tiny", P, half=True),
    case("tiny", P, prompt=1, half=True),
    case("tiny", P, gt=(torch.float32, 20, 20)),
    case("tiny", P, prompt=1, gt=(torch.float32, 20, 20), pool_gt_token_only=True, half=True),
    case("tiny", P, gt=(torch.bool, 33, 10), pool_gt_token_only=True),
    case("tiny", P, gt=(torch.int64, 6, 6), pool_gt_token_only=True),
    case("tiny", P, gt=(torch.int64, 40, 40), pool_gt_token_only=True),
    case("tiny", P, gt="zeros", pool_gt_token_only=True),
    case("tiny", P, gt="ones", pool_gt_token_only=True),
    case("tiny", P, global_text=torch.bool, half=True),
    case("tiny", P, global_text=torch.float32),
    case("tiny", P, global_text=torch.int64, prompt=1),
    case("tiny", P, global_text=torch.float32, prompt=1, gt=(torch.float32, 20, 20), pool_gt_token_only=True),
    case("tiny", P, smooth_selection_prob=True),
    case("tiny", (1, 17, 900), prompt=1),
    case("four_scales", P, prompt=1),
    case("two_scales", P, prompt=1, gt=(torch.float32, 20, 20), pool_gt_token_only=True),
    case("own_grid", P),
    case("patch14", P, prompt=1, half=True),
    case("radio_v2", P, prompt=1, half=True),
    case("radio_v2_norm", P, global_text=torch.bool),
    case("radio_v1", P, prompt=1, gt=(torch.float32, 20, 20), pool_gt_token_only=True, half=True),
    case("radio_v1_norm", P),
    case("small", P, prompt=1),
    case("siglip", (2, 90, 120), global_text=torch.bool),
]


def by_model(cases: list) -> list:
    """Cases of one model together, so that a few cached models are enough."""
    order = list(models.VISION)
    return sorted(cases, key=lambda entry: order.index(entry.model))

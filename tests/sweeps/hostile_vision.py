"""The vision tower's calls for hostile.py: PS3VisionModel.forward in both forms, steps, forward_low_res, attributes."""

import random
from typing import Any

import torch
from hostile_targets import WIDTH, Target, are_finite, floats, tensors, vision_model
from hostile_values import (
    ANSWER,
    FLAGS,
    FLOATS,
    KINDS,
    LAST,
    MEMORY,
    NO_TRUTHS,
    NOT_FLOAT32,
    OTHER_BATCH,
    SHAPES,
    UNCOPIED,
    WORDS,
    M,
    N,
    Odd,
    T,
    Table,
    V,
    dtypes,
    integers,
    values,
)

PIXELS: Table = [
    *MEMORY,
    *FLOATS,
    *KINDS,
    *NOT_FLOAT32,
    *SHAPES,
    ("four channels", lambda v, r: torch.cat([v, v[:, :1]], 1), (V,)),
    ("one channel", lambda v, r: v[:, :1], (V,)),
    ("no rows", lambda v, r: v[:, :, :0], (V,)),
    ("no columns", lambda v, r: v[..., :0], (V,)),
    ("2^31 - 1 images", lambda v, r: v[:1].expand(2**31 - 1, -1, -1, -1), (V, M)),
    ("2^31 - 1 rows", lambda v, r: v[:, :, :1].expand(-1, -1, 2**31 - 1, -1), (UNCOPIED, V)),
    ("2^31 - 1 columns", lambda v, r: v[:, :, :1, :1].expand(-1, -1, 1, 2**31 - 1), (UNCOPIED,)),
    ("2^31 columns", lambda v, r: v[:, :, :1, :1].expand(-1, -1, 1, 2**31), (V,)),
    ("2^60 columns", lambda v, r: v[:, :, :1, :1].expand(-1, -1, 1, 2**59), (V,)),
    ("2^42 pixels", lambda v, r: v[:, :, :1, :1].expand(-1, -1, 2**21, 2**21), (V,)),
    ("2^40 pixels", lambda v, r: v[:, :, :1, :1].expand(-1, -1, 2**20, 2**20), (UNCOPIED,)),
    ("None", lambda v, r: None, (T,)),
]
PROMPT: Table = [*MEMORY, *FLOATS, *KINDS, *NOT_FLOAT32, *SHAPES, *LAST, *OTHER_BATCH]
MAPS: Table = [
    *MEMORY,
    *KINDS,
    *SHAPES,
    *OTHER_BATCH,
    *dtypes((ANSWER,), torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16),
    ("int64", lambda v, r: v.to(torch.int64) * 2**62, (ANSWER,)),
    *dtypes((T,), torch.uint16),
    ("NaN", lambda v, r: torch.full(v.shape, float("nan")), (ANSWER,)),
    ("negative", lambda v, r: -v.float(), (ANSWER,)),
    ("no rows", lambda v, r: v[:, :0], (V,)),
    ("no columns", lambda v, r: v[..., :0], (V,)),
    ("wide", lambda v, r: v[:, :1, :1].expand(-1, 3, 5000), (ANSWER,)),
]
GLOBAL_TEXT: Table = [
    *MEMORY,
    *KINDS,
    *SHAPES,
    *LAST,
    *OTHER_BATCH,
    *dtypes((ANSWER,), torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.float32),
    ("NaN", lambda v, r: torch.full(v.shape, float("nan")), (ANSWER,)),
]
LOOKS: Table = [*integers(0, (ANSWER, V)), *WORDS]
FIRST_N: Table = [
    *(row for row in integers(1, (V,)) if not row[0].startswith(("[", "(", "range", "{", "array", "tensor"))),
    ("0", lambda v, r: 0, (V,)),
    ("3", lambda v, r: 3, (V,)),
    ("a list too long", lambda v, r: [1] * 9, (V,)),
    ("a very long list", lambda v, r: [1] * 10**5, (V,)),
    ("no list", lambda v, r: [], (V,)),
    ("a word", lambda v, r: "one", (T,)),
    ("a list of words", lambda v, r: ["one"] * 9, (T, V)),
    ("2^40 numbers", lambda v, r: torch.ones(1, dtype=torch.int64).expand(2**40), (V,)),
    ("2^31 - 1 numbers", lambda v, r: torch.ones(1, dtype=torch.int64).expand(2**31 - 1), (V,)),
    ("a table", lambda v, r: torch.ones(9, 1, dtype=torch.int64), (V, ANSWER)),
    ("meta", lambda v, r: torch.ones(1, dtype=torch.int64, device="meta"), (T, V)),
    ("a sparse list", lambda v, r: torch.ones(9, dtype=torch.int64).to_sparse(), (T, V)),
]
SHOWN: Table = [*NO_TRUTHS, *values((ANSWER,), 1, "no", [0], torch.tensor(True))]


class Vision(Target):
    """PS3VisionModel.forward, the form with features."""

    name, weight = "vision", 8.0
    tables = {
        "pixel_values": PIXELS,
        "prompt": PROMPT,
        "gt_selection_maps": MAPS,
        "num_look_close": LOOKS,
        "num_token_look_close": LOOKS,
        "only_select_first_n_scale": FIRST_N,
        "smooth_selection_prob": FLAGS,
        "output_hidden_states": SHOWN,
    }
    nullable = ("only_select_first_n_scale",)
    numbers = ("num_look_close", "num_token_look_close")
    flags = ("smooth_selection_prob", "output_hidden_states", "pool_gt_token_only", "pooled")
    aliases = {"num_look_close": ("num_token_look_close",), "num_token_look_close": ("num_look_close",)}

    def __init__(self):
        self.encoder = vision_model().vision_model
        super().__init__()

    def valid(self, chance: random.Random) -> dict[str, Any]:
        batch = chance.choice((1, 1, 1, 2, 3))
        height, width = (chance.choice((1, 2, 7, 16, 24, 33)) for _ in range(2))
        arguments: dict[str, Any] = {"pixel_values": floats(chance, batch, 3, height, width)}
        looks = chance.choice((("num_look_close", (0, 1, 1, 2, "all")), ("num_token_look_close", (0, 1, 7, "all"))))
        arguments[looks[0]] = chance.choice(looks[1])
        arguments["prompt"] = None if chance.random() < 0.4 else floats(chance, chance.choice((1, batch)), WIDTH)
        maps = floats(chance, chance.choice((1, batch)), chance.choice((1, 5, 8)), chance.choice((1, 4, 9))) > 0
        arguments["gt_selection_maps"] = None if chance.random() < 0.4 else maps.to(torch.float32)
        arguments["smooth_selection_prob"] = chance.random() < 0.2
        arguments["only_select_first_n_scale"] = chance.choice((None, None, 1, 2, [2] * batch))
        arguments["output_hidden_states"] = True
        return arguments

    def call(self, **arguments) -> Any:
        return vision_model()(**arguments)

    def check(self, arguments: dict, outputs: Any) -> str:
        pixels, low = arguments["pixel_values"], self.encoder.low_res_token_num
        last, maps, probs = outputs.last_hidden_state, outputs.selection_maps, outputs.selection_probs
        grids = [self.encoder.feature_size_scale_i(pixels, scale) for scale in (1, 2)]
        selected = 0 if maps is None else sum(one.flatten(1).sum(1) for one in maps)
        if last.shape != (len(pixels), low + int(torch.as_tensor(selected).max()), WIDTH):
            return f"shape {tuple(last.shape)}"
        if not all(one.shape == (len(pixels), *grid) for one, grid in zip(probs, grids, strict=True)):
            return f"probabilities of shapes {[tuple(one.shape) for one in probs]}"
        if maps is not None and not all(bool(((one == 0) | (one == 1)).all()) for one in maps):
            return "selection_maps are not 0 and 1"
        inputs = [pixels[..., :64, :64], arguments.get("prompt"), arguments.get("gt_selection_maps")]
        if are_finite(inputs) and not all(bool(torch.isfinite(one).all()) for one in tensors([last, probs])):
            return "a result that is not finite"
        return ""


class Steps(Vision):
    """PS3VisionEncoder.steps: the bits of forward."""

    name, weight = "steps", 2.0
    numbers = (*Vision.numbers, "looks_per_step")
    tables = {
        **{name: table for name, table in Vision.tables.items() if name != "output_hidden_states"},
        "pooled": FLAGS,
        "looks_per_step": integers(0, (ANSWER, V)),
    }

    def valid(self, chance: random.Random) -> dict[str, Any]:
        arguments = super().valid(chance)
        del arguments["output_hidden_states"]
        return {**arguments, "pooled": chance.random() < 0.5, "looks_per_step": chance.randrange(3)}

    def call(self, **arguments) -> Any:
        steps = self.encoder.steps(arguments.pop("pixel_values"), **arguments)
        for _ in steps:
            pass
        return steps.outputs

    def check(self, arguments: dict, outputs: Any) -> str:
        plain = {name: value for name, value in arguments.items() if name not in ("pooled", "looks_per_step")}
        with torch.no_grad():
            forward = vision_model()(**plain)
        same = self.bits(forward.hidden_states) == self.bits(outputs["hidden_states"])
        return "" if same else "other bits than forward's"


class Pretrain(Vision):
    """PS3VisionModel.forward, the form of pre-training."""

    name, weight = "pretrain", 2.0
    tables = {
        **{name: Vision.tables[name] for name in ("pixel_values", "prompt", "gt_selection_maps")},
        "smooth_selection_prob": FLAGS,
        "is_global_text": GLOBAL_TEXT,
        "pool_gt_token_only": NO_TRUTHS,
        "num_look_close": values(
            (V,), 0, 1, "all", 10**9000, torch.zeros(3000), list(range(3000)), "x" * 3000, torch.ones(1), Odd()
        ),
    }
    nullable = ("num_look_close",)
    numbers = ()
    aliases = {"pixel_values": ("is_global_text",)}  # whose batch is compared before memory is asked for

    def valid(self, chance: random.Random) -> dict[str, Any]:
        arguments = super().valid(chance)
        batch = len(arguments["pixel_values"])
        flags = floats(chance, batch, 1) > 0 if chance.random() < 0.6 else None
        names = ("pixel_values", "prompt", "gt_selection_maps", "smooth_selection_prob")
        return {
            **{name: arguments[name] for name in names},
            "is_global_text": flags,
            "pool_gt_token_only": arguments["gt_selection_maps"] is not None and chance.random() < 0.5,
            "num_look_close": None,
            "output_hidden_states": False,
        }

    def check(self, arguments: dict, outputs: Any) -> str:
        if outputs.pooled_output.shape != (len(arguments["pixel_values"]), WIDTH):
            return f"pooled_output of shape {tuple(outputs.pooled_output.shape)}"
        return ""


class LowRes(Target):
    """PS3VisionEncoder.forward_low_res."""

    name, weight = "low res", 1.5
    tables = {
        "x": PIXELS,
        "output_hidden_states": FLAGS,
        "return_kv_cache": [*NO_TRUTHS, *values((N,), True, 1, "no", torch.tensor(1))],
    }
    flags = ("output_hidden_states", "return_kv_cache")
    aliases = {"x": ("pixel_values",)}

    def valid(self, chance: random.Random) -> dict[str, Any]:
        pixels = floats(chance, chance.choice((1, 2)), 3, chance.choice((1, 9, 20)), chance.choice((1, 8, 30)))
        return {"x": pixels, "output_hidden_states": chance.random() < 0.5, "return_kv_cache": False}

    def call(self, **arguments) -> Any:
        return vision_model().vision_model.forward_low_res(**arguments)

    def check(self, arguments: dict, outputs: Any) -> str:
        if outputs["x"].shape != (len(arguments["x"]), WIDTH):
            return f"shape {tuple(outputs['x'].shape)}"
        if are_finite([arguments["x"][..., :64, :64]]) and not torch.isfinite(outputs["x"]).all():
            return "a result that is not finite"
        states = outputs["hidden_states"]
        return "" if (states is not None) == bool(arguments["output_hidden_states"]) else "hidden_states"


class Attributes(Vision):
    """Attributes of PS3VisionEncoder that a caller may set."""

    name, weight = "attributes", 1.0
    tables = {
        "num_hidden_layers_to_return": integers(1, (ANSWER,), beyond=(ANSWER, V)),
        "workspace_limit": [row for row in integers(1, (ANSWER,)) if row[0] != "None"],
        "max_select_num_each_scale": [
            *values(
                (T,), None, 5, "12", {1: 2}, [1.0, 2], [True, 2], [[1], [2]], torch.ones(2), ["x" * 999] * 2, Odd()
            ),
            *values(
                (V,), [], [1], [1, 2, 3], [0, 5], [5, -1], [1] * 10**5, [10**9000, 1], [-(10**1000), 1], [2**63, 1]
            ),
            *values((V, ANSWER), [2**31, 1], [2**62, 2**62]),
        ],
    }
    nullable = ("workspace_limit",)

    def valid(self, chance: random.Random) -> dict[str, Any]:
        pixels = floats(chance, chance.choice((1, 2)), 3, 16, chance.choice((16, 24)))
        return {
            "pixel_values": pixels,
            "num_look_close": chance.choice((0, 1, 2)),
            "num_hidden_layers_to_return": chance.choice((1, 2)),
            "workspace_limit": chance.choice((None, 1 << 20)),
            "max_select_num_each_scale": chance.choice(([4, 16], (3, 3))),
        }

    def call(self, **arguments) -> Any:
        names = ("num_hidden_layers_to_return", "workspace_limit", "max_select_num_each_scale")
        saved = {name: getattr(self.encoder, name) for name in names}
        try:
            for name in names:
                setattr(self.encoder, name, arguments.pop(name))
            return vision_model()(**arguments)
        finally:
            for name in names:
                setattr(self.encoder, name, saved[name])

    def canonical(self, arguments: dict) -> dict:
        return {**arguments, "workspace_limit": None}


TARGETS = [Vision, Steps, Pretrain, LowRes, Attributes]

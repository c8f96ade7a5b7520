"""More calls for hostile.py: the text tower; plan and run of ps3c._core, whose messages name the fields of ps3c.h."""

import operator
import random
from typing import Any

import core_support
import torch
from hostile_targets import TEXT, WIDTH, Target, canonical_tensor, text_model
from hostile_values import (
    ANSWER,
    FLOATS,
    KINDS,
    MEMORY,
    NO_TRUTHS,
    NOT_FLOAT32,
    SHAPES,
    TRUTHS,
    WORDS,
    M,
    Odd,
    T,
    Table,
    V,
    dtypes,
    integers,
    values,
)

from ps3c import _core

# ---- the text tower --------------------------------------------------------------------------------------------------


def one_id(number: int):
    def make(ids: torch.Tensor, chance: random.Random) -> torch.Tensor:
        ids = ids.clone()
        ids[chance.randrange(len(ids)), chance.randrange(ids.shape[1])] = number
        return ids

    return make


IDS: Table = [
    *MEMORY,
    *KINDS,
    *SHAPES,
    *dtypes((ANSWER,), torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint64),
    *dtypes((T,), torch.float32, torch.float64, torch.float16, torch.bool),
    *((f"an id of {number}", one_id(number), (V,)) for number in (50, -1, 2**31, 2**32, -(2**63), 2**63 - 1)),
    ("2^31 - 1 texts", lambda v, r: v[:1].expand(2**31 - 1, -1), (V, M)),
    ("2^31 - 1 texts of int32", lambda v, r: v[:1].int().expand(2**31 - 1, -1), (V, M)),
    ("too long", lambda v, r: torch.ones(1, 7, dtype=torch.int64), (V,)),
    ("2^40 tokens", lambda v, r: v[:, :1].expand(-1, 2**40), (V,)),
    ("no tokens", lambda v, r: v[:, :0], (V,)),
    ("None", lambda v, r: None, (T,)),
]


class Text(Target):
    """PS3TextModel.forward."""

    name, weight = "text", 3.0
    tables = {"text": IDS}

    def valid(self, chance: random.Random) -> dict[str, Any]:
        shape = (chance.randrange(1, 4), chance.randrange(1, 7))
        return {"text": torch.tensor([[chance.randrange(50) for _ in range(shape[1])] for _ in range(shape[0])])}

    def call(self, **arguments) -> Any:
        return text_model()(**arguments)

    def check(self, arguments: dict, outputs: Any) -> str:
        rows = len(arguments["text"])
        if outputs.pooled_output.shape != (rows, TEXT["output_dim"]) or outputs.prompt.shape != (rows, WIDTH):
            return f"shapes {tuple(outputs.pooled_output.shape)}, {tuple(outputs.prompt.shape)}"
        return "" if torch.isfinite(outputs.prompt).all() else "a result that is not finite"


# ---- plans -----------------------------------------------------------------------------------------------------------

EITHER = (ANSWER, T)  # True is 1 here
SIZES = integers(1, (ANSWER, V, M), bools=EITHER)
BOOLS: Table = [*TRUTHS, *NO_TRUTHS]
# first_n_scales may have another length then.
BATCHES: Table = [(name, make, (ANSWER, V) if allowed == (ANSWER,) else (*allowed, V)) for name, make, allowed in SIZES]
CHOICES: Table = [
    *values((V,), "", "Float32", "float64", "x" * 5000, "\udcff"),
    *values((T,), None, 1, b"float32", torch.float32, object(), Odd()),
]
DEVICES: Table = [
    *values(
        (V,), ("tpu", 0), ("cpu", 1), ("cpu", -1), ("cuda", -1), ("cuda", 2**31), ("cuda", 10**30), ("x" * 5000, 0)
    ),
    *values((T,), "cpu", ("cpu",), ("cpu", 0, 0), ["cpu", 0], None, (0, "cpu"), ("cpu", 1.5), ["x" * 5000] * 9, Odd()),
    *values((V,), ("cuda", 10**9000)),
    ("the meta device", lambda v, r: torch.device("meta"), (T,)),
]
STATES: Table = [row for row in integers(1, (V,), bools=EITHER) if row[2] != (ANSWER,)]


class VisionPlan(Target):
    """VisionModel.plan: integers alone."""

    name, weight = "core vision plan", 3.0
    tables = {
        "batch": BATCHES,
        "height": SIZES,
        "width": SIZES,
        "dtype": CHOICES,
        "mode": CHOICES,
        "device": DEVICES,
        "num_look_close": [*integers(0, (ANSWER, V), bools=EITHER), *WORDS],
        "first_n_scales": [
            *values((V,), [], [1] * 99, [0], [3], [10**30], [10**9000], [-(2**63)]),
            *values((T, V), [1.5], ["1"], [None], [True, object()], [[1]], [Odd()], "1"),
            *values((T,), 1, 1.5, object(), Odd(), {1: 2}.keys()),
        ],
        **dict.fromkeys(("prompt", "gt_maps", "smooth", "pooled"), BOOLS),
        "hidden_states": STATES,
        "workspace_limit": integers(0, (ANSWER,), bools=EITHER),
        "looks_per_step": integers(0, (ANSWER,), bools=EITHER),
    }
    nullable = ("first_n_scales",)
    numbers = ("batch", "height", "width", "num_look_close", "hidden_states", "workspace_limit", "looks_per_step")
    flags = ("prompt", "gt_maps", "smooth", "pooled")
    attributes = ("workspace_bytes", "low_res_tokens", "selected_tokens", "looks", "pooled_width", "grids", "steps")
    aliases = {"height": ("pixels",), "batch": ("workspace", "images", "first_n_scales"), "first_n_scales": ("batch",)}

    def __init__(self):
        self.model = _core.VisionModel(core_support.VISION)
        super().__init__()

    def valid(self, chance: random.Random) -> dict[str, Any]:
        batch = chance.choice((1, 2, 5))
        return {
            "batch": batch,
            "height": chance.randrange(1, 300),
            "width": chance.randrange(1, 300),
            "dtype": chance.choice(("float32", "float16", "bfloat16")),
            "mode": "features",
            "device": ("cpu", 0),
            "num_look_close": chance.choice((0, 1, 2, "all")),
            "first_n_scales": chance.choice((None, [1] * batch)),
            "prompt": True,
            "gt_maps": False,
            "smooth": False,
            "pooled": False,
            "hidden_states": chance.choice((1, 2)),
            "workspace_limit": chance.choice((0, 1 << 22)),
            "looks_per_step": chance.choice((0, 1)),
        }

    def call(self, **arguments) -> Any:
        plan = self.model.plan(**arguments)
        large = plan.selected_tokens > 1000 or operator.index(arguments["batch"]) > 1000  # `steps` may have 2^31 then
        return [getattr(plan, name) for name in self.attributes if not (large and name == "steps")]

    def check(self, arguments: dict, outputs: Any) -> str:
        return "" if all(not isinstance(one, int) or one >= 0 for one in outputs) else f"a negative size: {outputs}"

    def bits(self, outputs: Any) -> list[bytes]:
        return [repr(outputs).encode()]


class TextPlan(VisionPlan):
    """TextModel.plan."""

    name, weight = "core text plan", 1.0
    tables = {
        "batch": SIZES,
        "length": integers(1, (V,), bools=EITHER),
        "dtype": CHOICES,
        "device": DEVICES,
        "workspace_limit": integers(0, (ANSWER,), bools=EITHER),
    }
    nullable = flags = ()
    numbers = ("batch", "length", "workspace_limit")
    aliases = {"batch": ("workspace",)}
    attributes = ("workspace_bytes", "every_token", "pooled_tokens")

    def __init__(self):
        self.model = _core.TextModel(core_support.TEXT)
        Target.__init__(self)

    def valid(self, chance: random.Random) -> dict[str, Any]:
        return {
            "batch": chance.choice((1, 3)),
            "length": chance.randrange(1, 9),
            "dtype": "float32",
            "device": ("cpu", 0),
            "workspace_limit": 0,
        }

    def call(self, **arguments) -> Any:
        plan = self.model.plan(**arguments)
        return [getattr(plan, name) for name in self.attributes]


# ---- runs ------------------------------------------------------------------------------------------------------------

# The engine takes NumPy arrays, too, which the torch classes do not.
FLOAT_KINDS: Table = [(name, make, (ANSWER,) if name == "an array" else allowed) for name, make, allowed in KINDS]
INPUTS: Table = [*MEMORY, *FLOATS, *FLOAT_KINDS, *NOT_FLOAT32, *SHAPES]
# An output must be memory of its own: what is not contiguous, or another size, is refused.
SPREAD: Table = [(name, make, (T,)) for name, make, _ in MEMORY if name == "every second element"]
OUTPUTS: Table = [*FLOAT_KINDS, *NOT_FLOAT32, *SHAPES, *SPREAD]


def lists(make, allowed: tuple):
    """A row's value in place of one element of a list."""

    def inside(several: list, chance: random.Random) -> list:
        several = list(several)
        place = chance.randrange(len(several))
        several[place] = make(several[place], chance)
        return several

    return inside, allowed


LISTS: Table = [
    *((f"one is {name}", *lists(make, allowed)) for name, make, allowed in OUTPUTS if name != "sixty-four dimensions"),
    ("one more", lambda v, r: [*v, v[0]], (V,)),
    ("one less", lambda v, r: v[:-1], (V,)),
    ("a generator", lambda v, r: (one for one in v), (ANSWER,)),
    ("a tuple", lambda v, r: tuple(v), (ANSWER,)),
    *values((T,), 1, object(), Odd()),
    *values((V,), None, [], ""),
    *values((T, V), "x" * 5000, {}),
]


class Run(Target):
    """VisionPlan.run, with tensors of the caller for every output."""

    name, weight = "core vision run", 3.0
    tables = {
        "weights": [row for row in LISTS if "stride 0" not in row[0]],
        "pixel_values": [row for row in INPUTS if row[0] not in ("requires grad", "a parameter")],
        "prompt": [row for row in INPUTS if row[2] != (ANSWER,)],
        "gt_maps": FLOAT_KINDS,
        "hidden_states": LISTS,
        "selection_maps": LISTS,
        "selection_probs": LISTS,
        "workspace": [
            *(row for row in KINDS if row[0] not in ("float8", "negative bit")),
            ("too small", lambda v, r: v[:-128], (V,)),
            ("empty", lambda v, r: v[:0], (V,)),
            ("int8", lambda v, r: v.view(torch.int8), (T,)),
            ("two dimensions", lambda v, r: v[None], (V,)),
            ("every second byte", lambda v, r: torch.empty(2 * len(v), dtype=torch.uint8)[::2], (T,)),
            ("stride 0", lambda v, r: v[:1].expand(len(v)), (T,)),
        ],
        "threads": integers(0, (ANSWER, V), bools=EITHER),
        "level": [
            *values((V,), "", "avx1024", "x" * 5000, "na\0ive"),
            *values((T,), 1, b"naive", object(), ["naive"], Odd()),
        ],
        "stream": [*values((T, V), 1.5, "x", None, [], object(), 10**30, 10**9000, Odd(), torch.zeros(3000))],
        "tf32": BOOLS,
        "step": [
            *values((V,), -1, 1000, 2**31, 2**62, 2**63 - 1, -(2**63) + 1, 2**63, 10**9000),
            *values((T,), 1.5, "1", Odd()),
        ],
    }
    nullable: tuple[str, ...] = ("level", "step")
    aliases = {"weights": ("weight ",), "workspace": ("workspace_bytes",)}

    def __init__(self):
        self.made = [core_support.vision_arguments(_core) for _ in range(2)]
        super().__init__()

    def valid(self, chance: random.Random) -> dict[str, Any]:
        _, arguments = self.made[0]
        for one in (*arguments["hidden_states"], *arguments["selection_maps"], *arguments["selection_probs"]):
            one.fill_(float("nan"))
        return {**arguments, "threads": 1, "level": None, "stream": 0, "tf32": False, "step": None}

    def call(self, **arguments) -> Any:
        plan = self.made[0][0]
        if arguments["step"] is None:
            plan.run(arguments.pop("weights"), arguments.pop("pixel_values"), **arguments)
        else:
            plan.run(**arguments)
        own = self.made[0][1]  # a generator is used up
        return [own["hidden_states"], own["selection_maps"], own["selection_probs"]]

    def check(self, arguments: dict, outputs: Any) -> str:
        maps = outputs[1]
        return "" if all(bool(((one == 0) | (one == 1)).all()) for one in maps) else "selection_maps are not 0 and 1"

    def canonical(self, arguments: dict) -> dict:
        plain = self.valid(random.Random(0))
        return {**plain, "pixel_values": canonical_tensor(arguments["pixel_values"])}

    def still_right(self) -> bool:
        self.plain = self.valid(random.Random(0))
        return super().still_right()


class TextRun(Target):
    """TextPlan.run."""

    name, weight = "core text run", 2.0
    tables = {
        "weights": Run.tables["weights"],
        "ids": [row for row in IDS if row[2] != (ANSWER,) and row[0] not in ("None", "2^31 - 1 texts of int32")],
        "pooled": OUTPUTS,
        "prompt": OUTPUTS,
        "workspace": Run.tables["workspace"],
        "threads": Run.tables["threads"],
        "level": Run.tables["level"],
        "stream": Run.tables["stream"],
        "tf32": BOOLS,
    }
    nullable = ("level",)
    aliases = Run.aliases

    def __init__(self):
        self.made = core_support.text_arguments(_core)
        super().__init__()

    def valid(self, chance: random.Random) -> dict[str, Any]:
        arguments = dict(self.made[1])
        for name in ("pooled", "prompt"):
            arguments[name].fill_(float("nan"))
        return {**arguments, "threads": 1, "level": None, "stream": 0, "tf32": False}

    def call(self, **arguments) -> Any:
        self.made[0].run(arguments.pop("weights"), arguments.pop("ids"), **arguments)
        return [self.made[1]["pooled"], self.made[1]["prompt"]]

    def check(self, arguments: dict, outputs: Any) -> str:
        return "" if all(bool(torch.isfinite(one).all()) for one in outputs) else "a result that is not finite"

    def canonical(self, arguments: dict) -> dict:
        return self.valid(random.Random(0))

    def still_right(self) -> bool:
        self.plain = self.valid(random.Random(0))
        return super().still_right()


TARGETS = [Text, VisionPlan, TextPlan, Run, TextRun]

"""Extreme integers for every operation of tests/operations: sizes, offsets, ids, positions, weights.

Each integer argument, alone and in pairs, and each element of an integer array gets values near 2^31, 2^62, 2^63 and
their negatives. What must hold: ValueError or MemoryError before anything is computed from the value (UBSan sees a sum
that overflows: `make asan` builds the extension), never another exception; or an answer for the few that are valid.
The plain call gives the same bits afterwards.
"""

import itertools
import random
import resource
from pathlib import Path

import numpy as np
import pytest
from operations import operations
from support import SEED, trials

EXTREMES = [2**31, 2**31 + 1, 2**32, 2**40, 2**61, 2**62, 3 + 2**62, 2**63 - 2, 2**63 - 1]
EXTREMES += [-1, -(2**31), -(2**62), -(2**63) + 1, -(2**63)]
SMALL = [0, 1, 2, 3, 5, 8, 9]  # beside an extreme one


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def integers(dtype, *rows) -> np.ndarray:
    return np.array(rows, dtype)


ROWS = floats(2, 6, 16)
SCALES = [(16, 16, 2, 3)]
TAPS = dict(
    firsts=integers(np.int64, 0, 1), counts=integers(np.int64, 2, 2), weights=integers(np.int32, *[[1 << 21] * 2] * 2)
)
IDS = integers(np.int64, [1, 2, 3], [4, 5, 6])
# Valid arguments of each operation. Its integers and integer arrays are what the sweep replaces.
CALLS = {
    "activation_bytes": dict(segments=2, tokens=6, channels=16),
    "assign_looks": dict(
        rank=[integers(np.int32, range(6), range(5, -1, -1))],
        scales=SCALES,
        ends=integers(np.int32, [[2, 4]], [[2, 4]]),
    ),
    "attention": dict(q=ROWS, k=ROWS, v=ROWS, heads=2, last_query_mask=np.ones((2, 6), np.uint8)),
    "attention_pool": dict(query=floats(1, 1, 8), keys_values=ROWS, heads=1, mask=np.ones((2, 6), np.uint8)),
    "blend": dict(flag=np.ones((9, 1), np.float32), low=ROWS[:1], y=ROWS[:1], first=2),
    "class_mask": dict(ids=IDS, pad_id=1, first=0, segments=2),
    "copy_channels": dict(x=ROWS, y=floats(2, 6, 20), at=2),
    "cosine": dict(features=ROWS, prompt=floats(2, 16)),
    "depthwise": dict(x=floats(2, 12, 16), weight=floats(16, 1, 7, 7), bias=floats(16), rows=4, cols=3),
    "expand": dict(probs=floats(2, 2, 3), rows=4, cols=6, gt=floats(2, 5, 5), gt_rows=4, gt_cols=6),
    "from_rows": dict(rows=ROWS),
    "gemm": dict(x=ROWS, weight=floats(8, 16), values_from=0, out_channel=0),
    "gt_mask": dict(gt=floats(2, 5, 5), scales=SCALES, positions=integers(np.int32, [0, 1], [4, 5])),
    "l2_normalize": dict(x=ROWS),
    "layernorm": dict(x=ROWS, weight=floats(16), bias=floats(16)),
    "max_pool": dict(x=floats(2, 4, 6), rows=2, cols=3),
    "patch_gather": dict(
        pixels=floats(2, 3, 9, 9), patch=2, scales=SCALES, positions=integers(np.int32, [0, 1], [4, 5]), segments=2
    ),
    "pool_tokens": dict(x=ROWS, pool="argmax", ids=IDS, first=0),
    "position_add": dict(
        x=floats(2, 2, 16), table=floats(9, 16), scales=SCALES, positions=integers(np.int32, [0, 1], [4, 5])
    ),
    "probability": dict(logits=floats(9)),
    "rank": dict(probs=floats(2, 2, 3)),
    "resize_columns": dict(pixels=np.full((2, 3, 4), 200, np.uint8), **TAPS),
    "resize_rows": dict(pixels=np.full((3, 2, 4), 200, np.uint8), **TAPS, mean=floats(3), std=floats(3)),
    "to_rows": dict(x=ROWS, into=floats(2, 9, 16), row_of=integers(np.int32, *[range(6)] * 2), first_row=0),
    "token_embedding": dict(ids=IDS, table=floats(7, 8), positions=floats(4, 8), first=0, segments=2),
}
# What is no size and no place: any value is valid. ids of a vocabulary are clamped by the engine's callers.
ANY = {"class_mask": {"pad_id", "ids"}, "pool_tokens": {"ids"}, "token_embedding": {"ids"}}
BEYOND = {"gemm": {"values_from"}}  # a negative one means: none
NUMBERS = {name: [key for key, value in call.items() if type(value) is int] for name, call in CALLS.items()}
ARRAYS = {
    name: [key for key, value in call.items() if isinstance(value, np.ndarray) and value.dtype.kind == "i"]
    for name, call in CALLS.items()
}


@pytest.fixture(autouse=True)
def _bounded_memory():
    """What asks for more than 2 GiB gets a MemoryError, on every machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def call(name: str, **changes) -> bytes:
    """The bytes of the result."""
    arguments = {**CALLS[name], **changes}
    if "into" in arguments:
        arguments["into"] = arguments["into"].copy()
    result = getattr(operations, name)(**{"threads": 1, **arguments})
    parts = result if isinstance(result, tuple) else (result,)
    return b"".join(
        repr(part).encode() if part is None or isinstance(part, (int, list)) else part.tobytes() for part in parts
    )


def is_harmless(name: str, key: str, value: int) -> bool:
    """May the call accept this value?"""
    beyond = key in BEYOND.get(name, ()) and value < 0
    return beyond or key in ANY.get(name, ()) or name == "activation_bytes" or value in SMALL


def hostile_sets(name: str, chance: random.Random):
    """Changes of the arguments, and whether the call may accept them."""
    for key in (*NUMBERS[name], "threads"):
        for value in EXTREMES:
            yield {key: value}, key != "threads" and is_harmless(name, key, value)
    for first, second in itertools.combinations(NUMBERS[name], 2):
        for value in EXTREMES:
            several = [
                {first: value, second: chance.choice(EXTREMES)},
                {first: value, second: chance.choice(SMALL)},
                {first: chance.choice(SMALL), second: value},
            ]
            yield from ((pair, all(is_harmless(name, *one) for one in pair.items())) for pair in several)
    for key in ARRAYS[name]:
        for value in EXTREMES:
            array = CALLS[name][key].copy()
            if np.iinfo(array.dtype).min <= value <= np.iinfo(array.dtype).max:
                array.flat[chance.randrange(array.size)] = value
                yield {key: array}, key in ANY.get(name, ()) or key == "weights"
        for bound in (np.iinfo(CALLS[name][key].dtype).max, np.iinfo(CALLS[name][key].dtype).min):
            array = CALLS[name][key].copy()
            array.flat[chance.randrange(array.size)] = bound
            yield {key: array}, key in ANY.get(name, ())
    for place, value in itertools.product(range(4), EXTREMES) if "scales" in CALLS[name] else ():
        scale = list(SCALES[0])
        scale[place] = value
        yield {"scales": [tuple(scale)]}, place < 2 and name != "patch_gather"


def is_right(name: str, changes: dict, may_answer: bool) -> str:
    try:
        call(name, **changes)
    except (ValueError, MemoryError) as error:
        return "" if len(str(error)) < 400 else f"a message of {len(str(error))} characters"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if may_answer else "was accepted"


def test_the_calls_are_those_of_the_extension():
    files = {file.stem for file in Path(__file__).parents[1].glob("operations/*.c")}
    several = {"rows": ["from_rows", "to_rows", "copy_channels"], "image_resize": ["resize_columns", "resize_rows"]}
    names = {name for file in files for name in several.get(file, [file])}
    assert names | {"activation_bytes"} == set(CALLS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_extreme_integers(name, figures):
    chance = random.Random(f"{SEED}/{name}")
    plain = call(name)
    for _ in range(trials(3)):
        for changes, may_answer in hostile_sets(name, chance):
            wrong = is_right(name, changes, may_answer)
            figures.passed() if not wrong else figures.failed(f"{name}({changes}): {wrong}")
        if call(name) != plain:
            figures.failed(f"{name}: other bits than before")
    figures.finish()

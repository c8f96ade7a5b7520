"""More calls for hostile.py: PS3ImageProcessor.preprocess, and its attributes, which a caller may assign."""

import io
import random
from typing import Any

import numpy as np
import torch
from hostile_targets import Target
from hostile_values import ANSWER, Index, Odd, Proxy, T, V, values
from PIL import Image

import ps3c

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16")


def picture(chance: random.Random, mode: str, width: int, height: int) -> Image.Image:
    image = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    if mode == "I;16":
        return Image.frombytes("I;16", (width, height), chance.randbytes(2 * width * height))
    return image.convert("L").convert(mode) if mode in ("I", "F", "1", "LA") else image.convert(*lab(mode))


def lab(mode: str) -> tuple[str]:
    return ("RGB",) if mode == "LAB" else (mode,)


def closed(image: Image.Image, chance: random.Random) -> Image.Image:
    image = image.copy()
    image.close()
    return image


def broken(image: Image.Image, chance: random.Random) -> Image.Image:
    """Opened, but its pixels cannot be decoded."""
    buffer = io.BytesIO()
    image.convert("RGB").resize((40, 40)).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:60]))


class Preprocess(Target):
    name, weight = "preprocess", 2.0
    tables = {
        "image": [
            *((f"mode {mode}", lambda v, r, mode=mode: picture(r, mode, 5, 9), (ANSWER,)) for mode in MODES),
            ("one pixel", lambda v, r: picture(r, "RGB", 1, 1), (ANSWER,)),
            ("one row", lambda v, r: picture(r, "L", 3000, 1), (ANSWER,)),
            ("one column", lambda v, r: picture(r, "RGBA", 1, 3000), (ANSWER,)),
            ("a tuple", lambda v, r: (v, 1, "label"), (ANSWER,)),
            ("closed", closed, (V,)),
            ("undecodable", broken, (V,)),
            ("no rows", lambda v, r: Image.new("RGB", (5, 0)), (V,)),
            ("no columns", lambda v, r: Image.new("L", (0, 5)), (V,)),
            ("an array", lambda v, r: np.asarray(v), (T,)),
            ("a tensor", lambda v, r: torch.zeros(3, 4, 4), (T,)),
            ("a list", lambda v, r: [v], (T,)),
            ("a tuple of a tuple", lambda v, r: ((v,),), (T,)),
            *values((T,), None, (), "a.png", b"x" * 5000, 1, object(), Odd(), Proxy(), Image.Image, Image),
        ],
        "return_tensors": values((ANSWER,), "pt", "np", 5, object(), [], Odd()),
        "image_size": [
            *values((ANSWER,), 5, [4, 6], (6, 4), [7], 3),
            *values((V,), 0, -1, (0, 5), (5, -5), (), [], (1, 2, 3), 2**31, (2**31, 2**31), 2**63, 10**30, 10**9000),
            *values((V,), (10**9000, 1), [1] * 10**5, (2**30, 1), "x" * 5000, {"height": 5}, 1.5, (1.5, 2), True, None),
            *values(
                (V,),
                (True, 5),
                [[5], [6]],
                b"55",
                object(),
                Odd(),
                [Odd(), 5],
                Index(),
                np.int64(5),
                {},
                torch.ones(99),
            ),
        ],
        "mean": [
            *values((ANSWER,), 0, 0.5, [0, 0.5, 1], (-1.0, 2, 3), np.float64(0.5)),
            *values(
                (V,), float("nan"), [0, 0, float("inf")], 10**400, 10**9000, [10**9000, 0, 0], [], [1], [1, 2, 3, 4]
            ),
            *values((V,), [0.5] * 10**5, [1e300, 0, 0]),
            *values((T,), "x", "x" * 5000, None, [None, 0, 0], {}, [[1], 2, 3], object(), Odd(), 1j, ["a" * 999] * 3),
            *values((T, V), torch.ones(3), np.ones(3), np.ones(99), torch.ones(2, 2), [torch.ones(2), 0, 0], b"abc"),
        ],
        "std": [
            *values((ANSWER,), 1, 0.5, [1, 0.5, 1e-20], np.float32(2)),
            *values((V,), 0, -1, [1, 0, 1], [1, -0.5, 1], float("nan"), float("inf"), 10**400, 10**9000, [], [1, 1]),
            *values((V,), [0.5] * 10**5, [1e-300, 1, 1], [1e300, 1, 1]),
            *values((T,), "x", "x" * 5000, None, [None, 1, 1], {}, object(), Odd(), 1j),
            *values((T, V), torch.ones(3), np.ones(3), np.ones(99), [np.ones(2), 1, 1], b"abc"),
        ],
        "interpolation": [
            *values((ANSWER,), "bicubic", "bilinear", "random"),
            *values(
                (V,), "nearest", "", "Bicubic", "x" * 5000, None, 3, [], {}, b"bicubic", object(), Odd(), Image.BICUBIC
            ),
        ],
        "background": [
            *values(
                (ANSWER,), None, "white", "#102030", "rgb(1, 2, 3)", (0, 0, 0), [255, 255, 255], (np.uint8(7),) * 3
            ),
            *values((V,), "", "whit", "#12", "#ffffff80", "x" * 5000, "rgb(300, 0, 0)", (), (1, 2), [0] * 10**5),
            *values((V,), (0, 0, 256), (-1, 0, 0), (10**9000, 0, 0), [2**70, 0, 0]),
            *values((T,), 1, 0.5, True, (0.5, 0, 0), (True, 0, 0), ("1", "2", "3"), [None, 0, 0], {}, b"abc", object()),
            *values((T,), Odd(), [Odd(), 0, 0], torch.ones(3), np.ones(3), Image.BICUBIC),
        ],
    }
    nullable = ("return_tensors", "background")
    aliases = {"mean": ("std",), "std": ("mean",)}

    def __init__(self):
        self.processor = ps3c.PS3ImageProcessor(image_size=8)
        super().__init__()

    def valid(self, chance: random.Random) -> dict[str, Any]:
        return {
            "image": picture(
                chance, chance.choice(("RGB", "L", "RGBA")), chance.randrange(1, 30), chance.randrange(1, 30)
            ),
            "return_tensors": None,
            "image_size": chance.choice(((8, 8), (5, 9))),
            "mean": chance.choice((0.5, (0.1, 0.2, 0.3))),
            "std": chance.choice((0.5, (0.1, 0.2, 0.3))),
            "interpolation": chance.choice(("bicubic", "bilinear")),
            "background": chance.choice((None, "black", (1, 2, 3))),
        }

    def call(self, image, return_tensors, **attributes) -> Any:
        saved = {name: getattr(self.processor, name) for name in attributes}
        try:
            for name, value in attributes.items():
                setattr(self.processor, name, value)
            return self.processor.preprocess(image, return_tensors)["pixel_values"]
        finally:
            for name, value in saved.items():
                setattr(self.processor, name, value)

    def check(self, arguments: dict, outputs: Any) -> str:
        if len(outputs) != 1:
            return f"{len(outputs)} images"
        pixels = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
        size = arguments["image_size"]
        sides = size if isinstance(size, (list, tuple)) else [size]
        if pixels.dtype != torch.float32 or (len(sides) == 2 and tuple(pixels.shape) != (3, *sides)):
            return f"{pixels.dtype} {tuple(pixels.shape)} for {sides}"
        return "" if torch.isfinite(pixels).all() else "a result that is not finite"

    def canonical(self, arguments: dict) -> dict:
        image = arguments["image"]
        return {**arguments, "image": image if isinstance(image, tuple) else image.copy(), "return_tensors": None}


TARGETS = [Preprocess]

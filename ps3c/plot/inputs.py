"""Extracts the data that is drawn from results, a model's output, tensors or arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import images

LONGEST = 1024  # longest side of a drawn picture in pixels; a panel shows fewer


def array(name: str, value: Any) -> np.ndarray:
    """A tensor (any device and dtype) or an array as a float32 array."""
    if isinstance(value, torch.Tensor):
        return value.detach().float().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        return value.astype(np.float32)
    raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor or an array of numbers")


def check_index(index: Any, count: int, name: str = "index") -> int:
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
        raise TypeError(f"{name}: got {index!r}, expected an integer")
    if not -count <= index < count:
        raise ValueError(f"{name}: got {index}, expected 0 to {count - 1}")
    return int(index) % count


def picture(image: Any, result: Any, index: int) -> Image.Image:
    """The image to draw on, RGB, with a longest side of at most LONGEST pixels. None: the result's thumbnail."""
    if image is None:
        result = _last_look(result)
        kept = getattr(result, "image", None)  # a Look's
        thumbnails = getattr(result, "thumbnails", None)
        if thumbnails:
            kept = thumbnails[check_index(index, len(thumbnails))]
        if kept is None:
            raise ValueError(f"image: got None, expected an image, because {_kind(result)} does not contain one")
        image = kept
    opened, _ = images.open_image(image)
    opened = opened.convert("RGB")
    if max(opened.size) > LONGEST:
        opened.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return opened


def probabilities(value: Any, index: int) -> list[np.ndarray]:
    """The probability maps of image `index`, one map (h, w) per high-res scale."""
    value = _last_look(value)
    if hasattr(value, "selection_probs"):
        maps = value.selection_probs
        if maps is None:
            raise ValueError(f"result: got {_kind(value)} without selection_probs, expected one made with maps=True")
    elif _is_look(value):
        maps, index = value.probs, 0
    else:
        maps = value
    if not isinstance(maps, (list, tuple)):
        maps = [maps]
    if not maps:
        raise ValueError("result: got no probability maps, expected one per high-res scale")
    return [_one_map(array("probabilities", one), index) for one in maps]


def _one_map(values: np.ndarray, index: int) -> np.ndarray:
    if values.ndim == 3:
        values = values[check_index(index, len(values))]
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"probabilities: got shape {values.shape}, expected (h, w), or (N, h, w) for N images")
    return values


def are_alike(maps: Sequence[np.ndarray]) -> bool:
    """True if the maps (h, w) of one image differ only in size."""
    (rows, columns), last = maps[-1].shape, maps[-1]
    return all(
        np.array_equal(one, last[np.arange(h) * rows // h][:, np.arange(w) * columns // w], equal_nan=True)
        for one in maps
        for h, w in [one.shape]
    )


def taken(result: Any, index: int) -> list[np.ndarray]:
    """For each high-res scale, an int array (h, w) with the number of the look that encoded the patch; 0 for no look.

    A model's output does not contain the number of the look; then it is 1.
    """
    if isinstance(result, (list, tuple)):
        return _taken_of_looks(result)
    if _is_look(result):
        return _taken_of_looks([result])
    if getattr(result, "positions", None) is not None:
        index = check_index(index, len(result.positions))
        return _place(result.positions[index], result.look[index], grids(result))
    maps = getattr(result, "selection_maps", None)
    if maps is not None:
        return [(_one_map(array("selection_maps", one), index) > 0).astype(np.int32) for one in maps]
    raise ValueError(f"result: got {_kind(result)} without encoded patches, expected one made with looks=1 or more")


def _taken_of_looks(looks: Sequence[Any]) -> list[np.ndarray]:
    if not looks or not all(_is_look(look) for look in looks):
        kinds = ", ".join(sorted({type(look).__name__ for look in looks})) or "an empty list"
        raise TypeError(f"result: got {kinds}, expected the looks of one image")
    positions = torch.cat([torch.as_tensor(look.positions) for look in looks])
    numbers = torch.cat([torch.full((len(look.positions),), look.number) for look in looks])
    return _place(positions, numbers, grids(looks[-1]))


def _place(positions: Any, numbers: Any, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Maps of `sizes` that have numbers (T,) at positions (T, 3), (scale, row, column). Scale 0 is left out."""
    scale, row, column = torch.as_tensor(positions).cpu().numpy().T
    number = torch.as_tensor(numbers).cpu().numpy()
    maps = [np.zeros(size, np.int32) for size in sizes]
    for index, one in enumerate(maps, start=1):
        here = (scale == index) & (number > 0)
        one[row[here], column[here]] = number[here]
    return maps


def grids(result: Any) -> list[tuple[int, int]]:
    """Rows and columns of the patches of each high-res scale, for a Look or ImageFeatures."""
    if hasattr(result, "probs"):
        return [tuple(one.shape) for one in result.probs]
    return [tuple(grid) for grid in result.grids[1:]]


def check_scale(scale: Any, count: int) -> int:
    if isinstance(scale, bool) or not isinstance(scale, (int, np.integer)):
        raise TypeError(f"scale: got {scale!r}, expected an integer")
    if not 1 <= scale <= count:
        raise ValueError(f"scale: got {scale}, expected 1 to {count}, the number of a high-res scale")
    return int(scale)


def scale_names(result: Any, count: int, high_only: bool = True) -> list[str]:
    """Names of `count` scales: "756 px" if the result has the sizes, otherwise "scale 1". high_only: no low res."""
    pixels = getattr(_last_look(result), "scales", None) or []
    pixels = list(pixels)[high_only:]
    if len(pixels) == count:
        return [f"{side} px" for side in pixels]
    return [f"scale {number}" for number in range(high_only, count + high_only)]


def low_resolution(result: Any) -> int | None:
    """Side of the low resolution in pixels. None if the result does not have it."""
    pixels = getattr(_last_look(result), "scales", None)
    return pixels[0] if pixels else None


def text_of(result: Any, index: int) -> str | None:
    """The text that selected the patches of image `index`, or None."""
    result = _last_look(result)
    texts = getattr(result, "texts", None)
    text = texts[check_index(index, len(texts))] if texts else getattr(result, "text", None)
    return text if isinstance(text, str) else None


def says_looks(result: Any) -> bool:
    """True if the result contains the number of the look that encoded a patch."""
    return hasattr(_last_look(result), "look") or _is_look(_last_look(result))


def has_looks(result: Any) -> bool:
    if _is_look(result):
        return result.number > 0
    return getattr(result, "look", None) is not None and bool((torch.as_tensor(result.look) > 0).any())


def has_probabilities(result: Any) -> bool:
    return _is_look(result) or getattr(result, "selection_probs", None) is not None


# ---- features ----------------------------------------------------------------------------------------------------


def feature_maps(features: Any, index: int) -> list[np.ndarray]:
    """Feature maps (C, h, w), float32, of image `index`, one per scale."""
    if hasattr(features, "feature_maps"):
        features = features[check_index(index, len(features))].feature_maps()
        index = 0
    if not isinstance(features, (list, tuple)):
        features = [features]
    if not features:
        raise ValueError("features: got no maps, expected one or more")
    maps = []
    for one in features:
        shape = tuple(getattr(one, "shape", ()))
        values = array("features", one[check_index(index, shape[0])] if len(shape) == 4 and shape[0] else one)
        if values.ndim != 3 or values.size == 0:
            raise ValueError(f"features: got shape {shape}, expected (C, h, w) or (N, C, h, w)")
        maps.append(values)
    if len({len(values) for values in maps}) > 1:
        raise ValueError(
            f"features: got {[len(values) for values in maps]} channels, expected the same number in every map"
        )
    return maps


def _is_look(value: Any) -> bool:
    return hasattr(value, "probs") and hasattr(value, "number")


def _last_look(result: Any) -> Any:
    """The last look of a list of looks; any other result unchanged. All looks have the same probabilities and text."""
    is_looks = isinstance(result, (list, tuple)) and result and _is_look(result[-1])
    return result[-1] if is_looks else result


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"

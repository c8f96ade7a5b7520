"""Draws where a model looks: heat maps, the patches of each look, features as colours.

Every function returns a matplotlib figure that is created without pyplot. A notebook shows it, `figure.save("x.png")`
writes it to a file, and it need not be closed. Needs matplotlib, which the extra `plot` installs: type
pip install '.[plot]' in ps3c's source folder.

    result = encoder.embed_images("dock.jpg", text="a green rope", looks=2, maps=True)
    ps3c.plot.overlay(None, result)         # the selection probability of each patch, one panel per high-res scale
    ps3c.plot.looks(None, result)           # the patches that each look encoded
    ps3c.plot.feature_map(result)           # principal components of the features as colours
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from PIL import Image

from .._extras import require
from . import inputs
from .components import principal_colours

if TYPE_CHECKING:
    from .figure import Figure

__all__ = ["feature_map", "looks", "overlay"]

MOST_COLUMNS = 4
MOST_IN_LEGEND = 6
# The colours of looks 1, 2, ... Colour-blind readers can distinguish them, and they are visible on any photograph.
LOOK_COLOURS = ("#ffb000", "#28c4ff", "#ff4f8b", "#5ee06a", "#a97bff", "#ff7a1a")
TINT = 0.5  # opacity of a look's colour
MANY_LOOKS = "plasma_r"  # the colour map that is used if there are more looks than MOST_IN_LEGEND
DIM = 0.65  # opacity of the black that covers patches which no look encoded


def overlay(
    image: Any,
    result_or_probs: Any,
    scale: int | None = None,
    index: int | Sequence[int] = 0,
    *,
    alpha: float = 0.5,
    cmap: str = "turbo",
) -> "Figure":
    """Draws selection probabilities as colours over a grey version of the image.

    Looks encode patches in the order of descending probability. The colours of each map are scaled to the range from
    its lowest to its highest probability, which is printed above the panel.

    Args:
        image: path, PIL image or array. None: the thumbnail in the result. With several indices, also a list of images.
        result_or_probs: ImageFeatures made with maps=True, a Look, a model's output, or probability maps (h, w) or
            (N, h, w): one map, or a list with one map per high-res scale.
        scale: number of a high-res scale, from 1, as in positions. None: one panel per scale, or a single panel if the
            maps differ only in size, as those of PS3 do.
        index: index of the image in the result. With several indices, the images are drawn side by side, each with its
            text.
        alpha: opacity of the colours, 0 to 1.
        cmap: name of a matplotlib colour map.

    Raises:
        MissingExtraError: matplotlib is not installed. ValueError, TypeError: an argument is wrong; the message names
            it.
    """
    figures = _figures()
    several = not isinstance(index, (int, np.integer))
    indices = list(index) if several else [index]
    if not indices:
        raise ValueError("index: got an empty list, expected one index or more")
    images = list(image) if isinstance(image, (list, tuple)) else [image] * len(indices)
    if len(images) != len(indices):
        raise ValueError(f"image: got {len(images)} images, expected one, or one for each of {len(indices)} indices")
    pictures = [inputs.picture(one, result_or_probs, i) for one, i in zip(images, indices)]
    maps = [inputs.probabilities(result_or_probs, i) for i in indices]
    texts = [_quoted(inputs.text_of(result_or_probs, i)) for i in indices]
    names = inputs.scale_names(result_or_probs, len(maps[0]))
    if scale is not None:
        scales = [inputs.check_scale(scale, len(names)) - 1]
    elif all(map(inputs.are_alike, maps)):
        scales, names[-1] = [len(names) - 1], " and ".join(names)
    else:
        scales = list(range(len(names)))

    titles, details, drawn = [], [], []
    for picture, text, of_image in zip(pictures, texts, maps):
        for place, number in enumerate(scales):
            low, high, values = _normalised(of_image[number])
            lines = [text if several and place == 0 else "", names[number]]
            titles.append("\n".join(filter(None, lines)))
            details.append(f"{low:.3g} to {high:.3g}")
            drawn.append((picture, values))
    columns = len(scales) if len(scales) > 1 else min(len(indices), MOST_COLUMNS)
    heading = "" if several else texts[0]
    figure, panels, whole = figures.panels(pictures[0].size, titles, details, columns, heading=heading, footer=True)
    for panel, (picture, values) in zip(panels, drawn):
        # The image is grey, so that every colour is a probability.
        panel.show(np.asarray(picture.convert("L")), cmap="gray", vmin=0, vmax=255)
        panel.show(values, cmap=cmap, alpha=alpha, vmin=0, vmax=1, interpolation="bilinear")
    figures.ramp(whole, figures.colormaps[cmap](np.linspace(0, 1, 256)), "lowest probability", "highest")
    return figure


def looks(image: Any, result: Any, index: int = 0) -> "Figure":
    """Draws which patches were encoded, one panel per scale. The colour is that of the look; other patches are dark.

    Args:
        image: path, PIL image or array. None: the thumbnail in the result.
        result: ImageFeatures made with looks or tokens, a Look, a list of Looks of one image, or a model's output. A
            model's output does not say which look encoded a patch, so all patches have one colour.
        index: index of the image in the result.

    Raises:
        MissingExtraError: matplotlib is not installed. ValueError, TypeError: an argument is wrong; the message names
            it.
    """
    figures = _figures()
    picture = inputs.picture(image, result, index)
    taken = inputs.taken(result, index)
    titles = inputs.scale_names(result, len(taken))
    details = [f"{np.count_nonzero(one)} of {one.size} patches" for one in taken]
    low = inputs.low_resolution(result)
    if low is not None:
        titles, details = [f"{low} px", *titles], ["encoded first, whole", *details]
    numbers = sorted({int(number) for one in taken for number in np.unique(one)} - {0})
    colours = look_colours(max(numbers, default=0))

    heading = _quoted(inputs.text_of(result, index))
    columns = min(len(titles), MOST_COLUMNS)
    figure, panels, whole = figures.panels(
        picture.size, titles, details, columns, heading=heading, footer=len(numbers) > 0
    )
    if low is not None:
        panels.pop(0).show(picture.resize((low, low), Image.Resampling.BICUBIC))
    grey = np.asarray(picture.convert("L"))
    for panel, one in zip(panels, taken):
        panel.show(grey, cmap="gray", vmin=0, vmax=255)
        panel.show(colours[one], interpolation="nearest")
    if len(numbers) > MOST_IN_LEGEND:
        figures.ramp(whole, colours[numbers], f"look {numbers[0]}", f"look {numbers[-1]}")
    elif numbers:
        names = [f"look {number}" for number in numbers] if inputs.says_looks(result) else ["taken"]
        figures.swatches(whole, colours[numbers], names)
    return figure


def feature_map(features: Any, index: int = 0) -> "Figure":
    """Draws the first three principal components of the features as red, green and blue. No features: black.

    The components are computed from the features of all maps together, so colours are comparable between the panels.
    The 1st to the 99th percentile of a component are mapped to intensities 0 to 1.

    Args:
        features: a map (C, h, w) or (N, C, h, w), zero where no patch was encoded; a list of such maps, one per scale,
            as format_features_into_feature_maps returns it; or ImageFeatures with tokens.
        index: index of the image.

    Raises:
        MissingExtraError: matplotlib is not installed. ValueError, TypeError: an argument is wrong; the message names
            it.
    """
    figures = _figures()
    maps = inputs.feature_maps(features, index)
    names = inputs.scale_names(features, len(maps), high_only=False)
    details = [f"{np.count_nonzero(one.any(axis=0))} of {one[0].size} patches" for one in maps]
    size = features.sizes[index] if hasattr(features, "sizes") else maps[-1].shape[:0:-1]
    columns = min(len(maps), MOST_COLUMNS)
    heading = _quoted(inputs.text_of(features, index))
    figure, panels, _ = figures.panels(size, names, details, columns, heading=heading, footer=False)
    for panel, colours in zip(panels, principal_colours(maps)):
        panel.show(colours, interpolation="nearest")
    return figure


def picture_of(result: Any) -> Optional["Figure"]:
    """A picture of a result's first image: its looks, or else its probabilities. None if it has neither."""
    if inputs.has_looks(result):
        return looks(None, result)
    return overlay(None, result) if inputs.has_probabilities(result) else None


def _figures() -> Any:
    """The module .figure, which imports matplotlib."""
    require("matplotlib", "plot", "ps3c.plot")
    return importlib.import_module(".figure", __package__)


def _quoted(text: str | None) -> str:
    return f"\u201c{text}\u201d" if text else ""


def _normalised(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The lowest and the highest finite value, and the values scaled so that these become 0 and 1."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return low, high, (values - low) / (high - low or 1.0)


def look_colours(count: int) -> np.ndarray:
    """RGBA colours (count + 1, 4) from 0 to 1. Row k is for patches of look k, row 0 for patches of no look."""
    from matplotlib import colormaps, colors

    if count <= MOST_IN_LEGEND:
        # A list, because matplotlib reads a tuple of two entries as (colour, opacity).
        colours = colors.to_rgba_array(list(LOOK_COLOURS[:count]), TINT)
    else:
        colours = colormaps[MANY_LOOKS](np.linspace(0, 1, count), TINT)
    return np.concatenate([[(0, 0, 0, DIM)], colours.reshape(-1, 4)])

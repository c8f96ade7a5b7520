"""Lays out figures: pictures with titles in rows and columns, and a legend below. Uses matplotlib without pyplot.

Sizes and positions are computed here in inches, without a layout engine. So pictures keep their aspect ratio, and
figures of pictures of one size have the same layout.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.figure
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text

MARGIN, GAP = 0.15, 0.22
LINE = 0.2  # height of a title's line
FOOTER = 0.34
LONG_SIDE = {1: 6.0, 2: 5.0}  # of a picture, by the number of pictures in a row
LONG_SIDE_OF_MORE = 4.0  # of a picture, with three or more in a row
LEAST_WIDTH, LEAST_HEIGHT = 2.6, 0.4  # of a panel: space for a title, and for a picture of very small height
SLENDER = 0.2  # a picture with a shorter side below this is stretched to fill its panel
LETTER = 0.085  # width of a title's letter, an estimate on the high side
GREY = "0.35"

__all__ = ["Figure", "Panel", "colormaps", "panels", "ramp", "swatches"]


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows. It is not registered with pyplot, so it need not be closed."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    def save(self, path, **options) -> None:
        """Writes the figure to a file in the format of its suffix. Options, such as dpi=200, are those of savefig."""
        self.savefig(path, **options)


@dataclass
class Panel:
    """The axes of a picture. size: (width, height) in data units; the origin is the upper left corner."""

    axes: Axes
    size: tuple[float, float]

    def show(self, pixels, **options):
        """Draws an array (h, w), (h, w, 3) or (h, w, 4) over the whole panel: rows and columns of equal size."""
        width, height = self.size
        return self.axes.imshow(pixels, extent=(0, width, height, 0), aspect=self.axes.get_aspect(), **options)


def panels(
    size: tuple[float, float],
    titles: Sequence[str],
    details: Sequence[str],
    columns: int,
    *,
    heading: str,
    footer: bool,
) -> tuple[Figure, list[Panel], Axes]:
    """Creates an empty figure with len(titles) panels, row by row.

    Args:
        size: (width, height) of every picture.
        titles, details: texts above each panel, on the left and on the right. A title may have several lines.
        columns: number of panels per row.
        heading: text above all panels, or "".
        footer: reserve a line for a legend.

    Returns:
        The figure, its panels, and axes that cover the whole figure, in inches from the lower left corner, for the
        legend.
    """
    width, height, stretched = _panel_inches(size, columns)
    rows = -(-len(titles) // columns)
    inches_wide = 2 * MARGIN + columns * width + (columns - 1) * GAP
    head = list(textwrap.wrap(heading, max(int((inches_wide - 2 * MARGIN) / LETTER / 1.1), 10)))
    title_lines = [_title(title, detail, width) for title, detail in zip(titles, details)]
    strip = LINE * max(len(lines) for lines in title_lines) + 0.08
    inches_high = 2 * MARGIN + len(head) * LINE * 1.2 + rows * (strip + height) + (rows - 1) * GAP / 2 + footer * FOOTER

    figure = Figure(figsize=(inches_wide, inches_high), dpi=100, facecolor="white")
    whole = figure.add_axes((0, 0, 1, 1), frameon=False, xlim=(0, inches_wide), ylim=(0, inches_high))
    whole.set_axis_off()
    top = inches_high - MARGIN
    if head:
        whole.text(MARGIN, top, "\n".join(head), fontsize=12, va="top", parse_math=False, linespacing=1.25)
        top -= len(head) * LINE * 1.2
    result = []
    for index, lines in enumerate(title_lines):
        row, column = divmod(index, columns)
        left, upper = MARGIN + column * (width + GAP), top - row * (strip + height + GAP / 2) - strip
        text = "\n".join(lines)
        whole.text(left, upper + 0.06, text, fontsize=10, weight="bold", va="bottom", parse_math=False)
        whole.text(
            left + width,
            upper + 0.06,
            details[index],
            fontsize=9,
            color=GREY,
            ha="right",
            va="bottom",
            parse_math=False,
        )
        place = (left / inches_wide, (upper - height) / inches_high, width / inches_wide, height / inches_high)
        axes = figure.add_axes(place, xlim=(0, size[0]), ylim=(size[1], 0), xticks=[], yticks=[], anchor="NW")
        axes.set_aspect("auto" if stretched else "equal")
        axes.spines[:].set_visible(False)
        result.append(Panel(axes, size))
    return figure, result, whole


def _panel_inches(size: tuple[float, float], columns: int) -> tuple[float, float, bool]:
    """Width and height of a panel, and whether the picture is stretched to fill it, because it is too narrow to see."""
    zoom = LONG_SIDE.get(columns, LONG_SIDE_OF_MORE) / max(size)
    width, height = size[0] * zoom, size[1] * zoom
    return max(width, LEAST_WIDTH), max(height, LEAST_HEIGHT), min(width, height) < SLENDER


def _title(title: str, detail: str, width: float) -> list[str]:
    """The lines of a title. The last line leaves space for the detail on the right."""
    letters = int(width / LETTER)
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, letters)] or [""]
    if detail and len(lines[-1]) + 2 + len(detail) > letters:
        lines.append("")
    return lines


# ---- legends -----------------------------------------------------------------------------------------------------


def ramp(whole: Axes, colours: np.ndarray, low: str, high: str) -> None:
    """Draws a colour bar in the footer: colours (N, 3 or 4) from left to right, between the labels low and high."""
    middle, width = MARGIN + FOOTER / 2 - 0.08, 1.4
    first = whole.text(MARGIN, middle, low, fontsize=9, color=GREY, va="center")
    left = MARGIN + _inches(first) + 0.1
    place = (left, left + width, middle - 0.06, middle + 0.06)
    whole.imshow(colours[None, :, :3], aspect="auto", extent=place, interpolation="nearest")
    whole.text(left + width + 0.1, middle, high, fontsize=9, color=GREY, va="center")
    _whole_again(whole)


def swatches(whole: Axes, colours: Sequence, labels: Sequence[str]) -> None:
    """Draws a legend in the footer: a coloured square before each label."""
    middle, left, side = MARGIN + FOOTER / 2 - 0.08, MARGIN, 0.13
    for colour, label in zip(colours, labels):
        opaque = tuple(colour)[:3]
        whole.add_patch(Rectangle((left, middle - side / 2), side, side, color=opaque, linewidth=0))
        text = whole.text(left + side + 0.07, middle, label, fontsize=9, color=GREY, va="center")
        left += side + 0.07 + _inches(text) + 0.25


def _inches(text: Text) -> float:
    """Width of a text in inches."""
    return text.get_window_extent().width / text.figure.dpi


def _whole_again(whole: Axes) -> None:
    """Restores the limits of the axes: imshow inverts y and sets the limits to the drawn image."""
    width, height = whole.figure.get_size_inches()
    whole.set(xlim=(0, width), ylim=(0, height))

"""Draws a run for the web page: pictures and HTML. NumPy and Pillow are fast enough to follow a slider."""

from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..features.results import Look
from ..plot import look_colours

SIDE = 560  # minimum length of a picture's longest side in pixels; smaller images are enlarged
HEAT = 0.5  # opacity of a heat map's colours


@dataclass
class Run:
    """The finished looks at one image. S high-res scales of h x w patches.

    size: (width, height) in pixels. text: the text that selects patches. asked: requested number of looks. scales: in
    pixels. state: "looking", then "done", "stopped" or "failed". image: a thumbnail, set by the first look.
    probs: S arrays (h, w). orders: S arrays (h, w) int32, the number of the look that encoded each patch, 0 for none.
    tokens, taken, seconds: one entry per finished look, low resolution first; taken: number of patches of each
    high-res scale.
    """

    size: tuple[int, int]
    text: str | None
    asked: int
    scales: list[int]
    state: str = "looking"
    image: Image.Image | None = None
    probs: list[NDArray[np.float32]] = field(default_factory=list)
    orders: list[NDArray[np.int32]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    taken: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The number of the newest look; -1 before the low resolution is finished."""
        return len(self.tokens) - 1

    def add(self, look: Look, seconds: float) -> None:
        positions = look.positions.cpu().numpy()
        if self.image is None:
            self.image = look.image
            self.probs = [probs.float().cpu().numpy() for probs in look.probs]
            self.orders = [np.zeros(probs.shape, np.int32) for probs in self.probs]
        for scale, order in enumerate(self.orders, 1):
            _, rows, columns = positions[positions[:, 0] == scale].T
            order[rows, columns] = look.number
        self.tokens.append(len(positions))
        self.taken.append(list(look.taken[1:]))
        self.seconds.append(seconds)


# ---- pictures ------------------------------------------------------------------------------------------------------


def heat_maps(run: Run) -> list[Image.Image]:
    """The image under the probabilities of each high-res scale: dark blue is the lowest value, red the highest."""
    from matplotlib import colormaps

    base = _base(run)
    pictures = []
    for probs in run.probs:
        low, high = float(probs.min()), float(probs.max())
        values = Image.fromarray((probs - low) / max(high - low, 1e-6)).resize(base.size, Image.Resampling.BICUBIC)
        colours = colormaps["turbo"](np.clip(np.asarray(values), 0, 1), bytes=True)[..., :3]
        pictures.append(Image.blend(base, Image.fromarray(np.ascontiguousarray(colours)), HEAT))
    return pictures


def patches(run: Run, number: int) -> list[Image.Image]:
    """For each high-res scale, the patches of looks 1 to `number` in the looks' colours, over the grey image.

    The other patches are dark.
    """
    base = _base(run)
    grey = np.asarray(base.convert("L"), np.float32)[..., None]
    colours = look_colours(run.asked).astype(np.float32)
    pictures = []
    for order in run.orders:
        colour = _enlarged(colours[np.where(order <= number, order, 0)], base.size)
        shown = grey + colour[..., 3:] * (255 * colour[..., :3] - grey)
        pictures.append(Image.fromarray(shown.astype(np.uint8)))
    return pictures


def _base(run: Run) -> Image.Image:
    """The thumbnail, enlarged to at least SIDE pixels."""
    assert run.image is not None
    zoom = SIDE / max(run.image.size)
    if zoom <= 1:
        return run.image
    width, height = (max(round(side * zoom), 1) for side in run.image.size)
    return run.image.resize((width, height), Image.Resampling.BICUBIC)


def _enlarged(grid: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarges grid (h, w, 4) to (height, width, 4). size is (width, height); each cell becomes a rectangle."""
    (rows, columns), (width, height) = grid.shape[:2], size
    return grid[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


# ---- HTML ----------------------------------------------------------------------------------------------------------


def status(run: Run) -> str:
    """The state of the run in one line, and a progress bar."""
    done = "low resolution" if run.last == 0 else f"{run.last} look{'s' * (run.last > 1)}"
    if run.last < 0:
        head = "Stopped" if run.state == "stopped" else "Low resolution …"
    elif run.state == "looking":
        head = f"Look {run.last + 1} of {run.asked} …"
    else:
        head = f"Stopped after {done}" if run.state == "stopped" else done.capitalize()
    facts = [f"{run.size[0]} × {run.size[1]} pixels"]
    if run.last >= 0:
        taken, patches = sum(map(sum, run.taken)), sum(order.size for order in run.orders)
        facts += [
            f"{sum(run.tokens):,} tokens",
            f"{taken:,} of {patches:,} patches ({100 * taken / patches:.0f} %)",
            f"{sum(run.seconds):.2f} s",
        ]
    percent = 100 if run.state == "done" else 100 * (run.last + 1) // (run.asked + 1)
    bar = f'<div class="ps3c-bar"><div style="width: {percent}%"></div></div>'
    return _box(f"<b>{head}</b> {' · '.join(facts)}{bar}", "ps3c-run")


def note(text: str) -> str:
    return _box(escape(text), "ps3c-note")


def failure(text: str) -> str:
    return _box(escape(text), "ps3c-error")


def _box(html: str, kind: str) -> str:
    role = "alert" if kind == "ps3c-error" else "status"
    return f'<div class="ps3c-status {kind}" role="{role}">{html}</div>'


def table(run: Run) -> str:
    """A table with one row per look: its colour, number of patches per scale, total tokens, seconds."""
    colours = (look_colours(run.asked)[:, :3] * 255).astype(int)
    rows = [_row(["look", *(f"patches at {scale} px" for scale in run.scales[1:]), "tokens so far", "seconds"], "th")]
    tokens = np.cumsum(run.tokens)
    for number, (taken, seconds) in enumerate(zip(run.taken, run.seconds)):
        swatch = f'<i style="background: rgb({", ".join(map(str, colours[number]))})"></i>'
        name, counts = f"{swatch}{number}", [f"{count:,}" for count in taken]
        if number == 0:
            name, counts = "low resolution", ["–"] * len(taken)
        rows.append(_row([name, *counts, f"{tokens[number]:,}", f"{seconds:.2f}"], "td"))
    return f'<div class="ps3c-table"><table>{"".join(rows)}</table></div>'


def _row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

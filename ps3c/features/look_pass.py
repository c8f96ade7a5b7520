"""Runs the vision encoder over a batch step by step, and collects the tokens and positions of each look."""

from collections.abc import Iterator, Sequence

import torch

from .._arguments import Looks
from ..torch_api.stepwise import Step


class LookPass:
    """One pass over a batch. It is computed by iterating over the object, one step at a time.

    Args:
        vision: a PS3VisionEncoder. pixels: (B, 3, H, W). prompt: (B, C) or None.
        looks, tokens: num_look_close and num_token_look_close; one of them is None.
        looks_per_step: maximum number of looks per step. 0: as many as memory allows.

    Attributes:
        looks: number of looks at high resolution. grids: rows and columns of the patches of each scale.
        pooled: (B, C). probs, maps: S tensors (B, h, w). positions: (B, T, 3) int32. These four are computed by the
            first step of an image.
        tokens: (B, T, C). The tokens of a look are computed by its step.
        number: (B, T) int16, the number of the look that encoded each token.
    """

    def __init__(
        self,
        vision,
        pixels: torch.Tensor,
        prompt: torch.Tensor | None,
        looks: Looks,
        tokens: Looks,
        looks_per_step: int = 0,
    ):
        self._steps = vision.steps(
            pixels,
            prompt=prompt,
            num_look_close=looks,
            num_token_look_close=tokens,
            pooled=True,
            looks_per_step=looks_per_step,
        )
        plan, outputs = self._steps.plan, self._steps.outputs
        self.looks: int = plan.looks
        self.low_res_tokens: int = plan.low_res_tokens
        self.grids: list[tuple[int, int]] = [tuple(grid) for grid in plan.grids]
        self.pooled = outputs["pooled"]
        self.tokens = outputs["hidden_states"][-1]
        self.probs: list[torch.Tensor] = outputs["selection_probs"]
        # Without looks no patch is selected.
        self.maps: list[torch.Tensor] = outputs.get("selection_maps") or [torch.zeros_like(p) for p in self.probs]
        batch, count = self.tokens.shape[:2]
        self.number = torch.zeros(batch, count, dtype=torch.int16, device=self.tokens.device)
        self.positions = torch.zeros(batch, count, 3, dtype=torch.int32, device=self.tokens.device)

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            images = slice(step.images.start, step.images.stop)
            if not step.looks:
                self.positions[images] = positions(self.grids[0], [taken[images] for taken in self.maps])
            for look, rows in zip(step.looks, step.rows):
                self.number[images].scatter_(1, rows, look + 1)
            yield step


def positions(low: tuple[int, int], maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Positions (scale, row, column) of the tokens of B images, in the order of the tokens: (B, T, 3) int32.

    Args:
        low: rows and columns of the low resolution. maps: for each high-res scale (B, h, w), nonzero where a patch was
            selected. Every image must have the same number of selected patches.
    """
    batch = maps[0].shape[0]
    parts = [_places(0, maps[0].new_ones(batch, *low))]
    # All images select the same number of patches of a scale.
    parts += [_places(scale, taken) for scale, taken in enumerate(maps, start=1)]
    return torch.cat(parts, dim=1).to(torch.int32)


def _places(scale: int, taken: torch.Tensor) -> torch.Tensor:
    """Positions (B, n, 3) int64 of the n patches of one scale that `taken` (B, h, w) marks."""
    image_row_column = taken.nonzero()
    image_row_column[:, 0] = scale
    return image_row_column.view(taken.shape[0], -1, 3)

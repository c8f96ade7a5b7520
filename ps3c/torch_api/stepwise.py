"""A forward pass in steps, for progress, for each look as it is done, and for an early stop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..engine import tensors


@dataclass(frozen=True, eq=False)
class Step:
    """The result of one step.

    images: which of the batch it was for.
    looks: which looks of theirs; empty for the first step of the images, after which their low-res tokens,
        selection_maps, selection_probs and pooled are final.
    rows: for each look the (len(images), tokens) int64 indices, ascending, of its tokens in dimension 1 of
        hidden_states, where they are final now.
    """

    images: range
    looks: range
    rows: list[torch.Tensor]


class Steps:
    """Iterator over the steps of one pass; PS3VisionEncoder.steps makes it. The same bits as forward, step by step.

    Images run in chunks, as memory allows: the low resolution and the selection of a chunk first, then groups of its
    looks. Stopping the iteration stops the work; tokens of looks that did not run are then uninitialised memory.
    Each step runs on torch's current stream, as forward does.

    A step that raised (KeyboardInterrupt, say) runs again when the next one is asked for. Until the last step leave the
    input tensors as they are. An iterator belongs to one thread at a time.

    Attributes:
        plan: the engine's plan.
        outputs: "hidden_states", "selection_maps" (absent without looks), "selection_probs" and, if asked for,
            "pooled", each for the whole batch.
        count: how many steps there are.
    """

    def __init__(self, plan: Any, outputs: dict[str, Any], run: Callable[..., None], device: torch.device):
        """run: plan.run without its workspace, step and the settings that torch has when it is called."""
        self.plan = plan
        self.outputs = outputs
        self._entries = plan.steps
        self.count = len(self._entries)
        self._run = run
        self._device = device
        self._next = 0
        self._workspace: torch.Tensor | None = None

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> Step:
        if self._next == self.count:
            raise StopIteration
        tensors.check_recording()
        if self._workspace is None:
            self._workspace = tensors.workspace(self.plan, self._device)
        first_image, images, first_look, looks = self._entries[self._next]
        self._run(workspace=self._workspace, step=self._next, **tensors.settings(self._device))
        rows = self._rows() if looks else []
        self._next += 1
        if self._next == self.count:
            self._workspace = None
        return Step(range(first_image, first_image + images), range(first_look, first_look + looks), rows)

    def _rows(self) -> list[torch.Tensor]:
        # The next chunk of images overwrites the engine's table: a copy.
        offset, (looks, images, tokens) = self.plan.rows(self._next, self._workspace.data_ptr())
        table = self._workspace[offset : offset + 4 * looks * images * tokens].view(torch.int32)
        rows = table.view(looks, images, tokens).to(torch.int64) + self.plan.low_res_tokens
        return list(rows)

"""Tiny models of ps3c._core with all that a run needs, in any dtype and on any device of the engine."""

import core_support
import torch

VISION = {**core_support.VISION, "width": 16, "mlp_hidden": 16, "pool_width": 16, "pool_hidden": 16, "grid": 2}
VISION.update(scales=[16, 32, 48], max_select_num=[2, 4])
TEXT = {**core_support.TEXT, "width": 16, "mlp_hidden": 16, "output_dim": 8, "prompt_dim": 16, "vocab_size": 30}


class Pass:
    """A pass over a tiny model: `plan` makes its plan, `arguments` all that the run wants, with outputs of NaN.

    Args:
        core: the instance of ps3c._core.
        vision: the vision tower, over images of 32 x 32; else the text tower, over texts of 8 tokens.
        request: of `plan`. steps: run one step at a time.
    """

    def __init__(self, core, name: str, vision: bool, dtype: torch.dtype, batch: int = 1, steps=False, **request):
        self.name, self.vision, self.dtype, self.batch, self.steps = name, vision, dtype, batch, steps
        self.request = {"dtype": str(dtype).removeprefix("torch."), **request}
        self.model = core.VisionModel(VISION) if vision else core.TextModel({**TEXT, "tanh_gelu": batch % 2 == 1})
        self.weights = core_support.random_weights(self.model, dtype)
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(batch, 3, 32, 32, generator=generator).to(dtype)
        self.prompt = torch.randn(batch, 16, generator=generator).to(dtype)
        self.gt_maps = torch.rand(batch, 6, 5, generator=generator).round()

    def plan(self):
        return self.model.plan(self.batch, *((32, 32) if self.vision else (8,)), **self.request)

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.full((self.batch, *shape), float("nan"), dtype=self.dtype)

    def arguments(self, plan) -> dict:
        """By name, in the order of the engine's table."""
        if not self.vision:
            ids = torch.arange(self.batch * 8).reshape(self.batch, 8) % 30
            outputs = dict(pooled=self._empty(8), prompt=self._empty(16))
            return dict(weights=self.weights, ids=ids, **outputs, workspace=self._workspace(plan))
        made = dict(weights=self.weights, pixel_values=self.images)
        if self.request.get("prompt"):
            made["prompt"] = self.prompt
        if self.request.get("gt_maps"):
            made["gt_maps"] = self.gt_maps
        if self.request.get("global_text"):
            made["global_text"] = torch.arange(self.batch, dtype=torch.float32)[:, None] % 2
        hidden = plan.low_res_tokens + plan.selected_tokens, 16
        made["hidden_states"] = [self._empty(*hidden) for _ in range(plan.hidden_states)]
        pretrain = self.request.get("mode") == "pretrain"
        for name in ["selection_maps", "selection_probs", *(["bottomup_probs", "topdown_probs"] if pretrain else [])]:
            made[name] = [self._empty(*grid) for grid in plan.grids[1:]]
        if pretrain:
            made["pooled"] = self._empty(16)
        return dict(made, workspace=self._workspace(plan))

    def _workspace(self, plan) -> torch.Tensor:
        return torch.empty(plan.workspace_bytes, dtype=torch.uint8)

    def outputs(self, arguments: dict) -> list[torch.Tensor]:
        names = {"hidden_states", "selection_maps", "selection_probs", "bottomup_probs", "topdown_probs", "pooled"}
        if not self.vision:
            names.add("prompt")
        values = [value for name, value in arguments.items() if name in names]
        return [tensor for value in values for tensor in (value if isinstance(value, list) else [value])]

    def run(self, plan, arguments: dict):
        """Runs all steps of the plan."""
        named = dict(arguments)
        first = named.pop("weights"), named.pop("pixel_values" if self.vision else "ids")
        if not self.vision:
            plan.run(*first, **named)
            return
        for step in range(len(plan.steps)) if self.steps else [None]:
            plan.run(*first, **{"step": step, **named})

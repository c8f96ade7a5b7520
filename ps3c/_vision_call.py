"""One forward pass of the vision encoder: checks of the arguments, plan, outputs, run."""

import functools
from collections.abc import Sequence
from typing import Any

import torch

from . import _arguments, _engine
from ._steps import Steps


class VisionCall:
    """One forward pass: checks of the arguments, plan, outputs, run."""

    def __init__(self, encoder, pixel_values, prompt=None, gt_selection_maps=None):
        self._encoder = encoder
        self._model = encoder._engine_model()
        self._weights = self._model.parameters.collect()
        self._dtype = _engine.check_weights(self._weights)
        self._device = self._weights[0].device
        self._pixels = self._check_pixels(pixel_values)
        self._batch = self._pixels.shape[0]
        self._prompt = self._check_prompt(prompt)
        self._gt_maps = self._check_gt_maps(gt_selection_maps)
        _engine.check_grad(
            {"pixel_values": self._pixels, "prompt": self._prompt, "gt_selection_maps": self._gt_maps},
            encoder.training,
            self._weights,
        )

    # ---- arguments ---------------------------------------------------------------------------------------------

    def _check_place(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device != self._device:
            raise RuntimeError(
                f"{name}: got a tensor on {tensor.device}, expected {self._device}, where the weights are"
            )
        return tensor

    def _check_pixels(self, pixels) -> torch.Tensor:
        _engine.check_tensor("pixel_values", pixels)
        if pixels.dim() != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixel_values: got shape {tuple(pixels.shape)}, expected (batch, 3, height, width)")
        if pixels.numel() == 0:
            raise ValueError(
                f"pixel_values: got an empty tensor of shape {tuple(pixels.shape)}, expected one image or "
                "more of one pixel or more"
            )
        return self._check_place("pixel_values", self._check_dtype("pixel_values", pixels))

    def _check_dtype(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype != self._dtype:
            raise TypeError(
                f"{name}: got {tensor.dtype}, expected {self._dtype}, the dtype of the weights: call "
                f"{name}.to({self._dtype}) or .to({tensor.dtype}) on the model"
            )
        return tensor

    def _check_batch(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        # One for all images is as good as one each.
        if tensor.shape[0] == 1 != self._batch:
            return tensor.expand(self._batch, *tensor.shape[1:])
        if tensor.shape[0] != self._batch:
            raise ValueError(
                f"{name}: got a batch of {tensor.shape[0]}, expected {self._batch} as in pixel_values, or 1"
            )
        return tensor

    def _check_prompt(self, prompt) -> torch.Tensor | None:
        if prompt is None:
            return None
        _engine.check_tensor("prompt", prompt)
        width = self._encoder.width
        if prompt.dim() != 2 or prompt.shape[1] != width:
            raise ValueError(f"prompt: got shape {tuple(prompt.shape)}, expected (batch, {width})")
        return self._check_batch(
            "prompt", self._check_place("prompt", self._check_dtype("prompt", prompt))
        ).contiguous()

    def _check_gt_maps(self, maps) -> torch.Tensor | None:
        if maps is None:
            return None
        _engine.check_tensor("gt_selection_maps", maps)
        if maps.dim() != 3 or maps.numel() == 0:
            raise ValueError(f"gt_selection_maps: got shape {tuple(maps.shape)}, expected (batch, height, width)")
        return self._check_batch("gt_selection_maps", self._check_place("gt_selection_maps", maps))

    def _check_global_text(self, is_global_text) -> torch.Tensor | None:
        if is_global_text is None:
            return None
        _engine.check_tensor("is_global_text", is_global_text)
        if tuple(is_global_text.shape) != (self._batch, 1):
            raise ValueError(f"is_global_text: got shape {tuple(is_global_text.shape)}, expected ({self._batch}, 1)")
        _engine.check_grad({"is_global_text": is_global_text}, False, ())
        return self._check_place("is_global_text", is_global_text).to(torch.float32).contiguous()

    def _check_first_n(self, value) -> tuple[int, ...] | None:
        if value is None:
            return None
        name, most = "only_select_first_n_scale", len(self._encoder.ps3_scales) - 1
        values = value if isinstance(value, (list, tuple, torch.Tensor)) else [value]
        numbers = [_arguments.index(name, one, f"an integer from 1 to {most}, or one for each image") for one in values]
        if not isinstance(value, (list, tuple, torch.Tensor)) or getattr(value, "ndim", 1) == 0:
            numbers = numbers * self._batch
        if len(numbers) != self._batch:
            raise ValueError(f"{name}: got {len(numbers)} numbers, expected one for each of {self._batch} images")
        for number in numbers:
            if not 1 <= number <= most:
                raise ValueError(f"{name}: got {number}, expected 1 to {most}, the number of high-res scales")
        return tuple(numbers)

    # ---- the forms of a pass -----------------------------------------------------------------------------------

    def plan(self, **request):
        height, width = self._pixels.shape[2:]
        return self._model.plan(
            self._batch,
            height,
            width,
            dtype=_engine.DTYPES[self._dtype],
            device=_engine.device_of(self._weights[0]),
            workspace_limit=_engine.workspace_limit(self._encoder.workspace_limit),
            **request,
        )

    def _features_plan(self, num_look_close, num_token_look_close, smooth, first_n, **request):
        looks = _arguments.looks("num_look_close", num_look_close)
        tokens = _arguments.looks("num_token_look_close", num_token_look_close)
        if looks is None and tokens is None:
            raise ValueError(
                "num_look_close, num_token_look_close: got neither, expected one of them: a number or "
                "'all' (0 for the low resolution alone)"
            )
        return self.plan(
            mode="features",
            num_look_close=looks,
            num_token_look_close=tokens,
            first_n_scales=self._check_first_n(first_n),
            prompt=self._prompt is not None,
            gt_maps=self._gt_maps is not None,
            smooth=bool(smooth),
            hidden_states=self._layers_to_return(),
            **request,
        )

    def features(self, num_look_close, num_token_look_close, smooth, first_n) -> dict[str, Any]:
        plan = self._features_plan(num_look_close, num_token_look_close, smooth, first_n)
        outputs = self.run(plan, maps=plan.selection_maps, probs=("selection_probs",))
        return dict(
            last_hidden_state=outputs["hidden_states"][-1],
            hidden_states=outputs["hidden_states"],
            selection_maps=outputs["selection_maps"] if plan.selection_maps else None,
            selection_probs=outputs["selection_probs"],
        )

    def steps(self, num_look_close, num_token_look_close, smooth, first_n, pooled, looks_per_step) -> Steps:
        """As features, in steps."""
        looks_per_step = _arguments.positive("looks_per_step", looks_per_step, least=0)
        plan = self._features_plan(
            num_look_close, num_token_look_close, smooth, first_n, pooled=bool(pooled), looks_per_step=looks_per_step
        )
        outputs = self.outputs(plan, maps=plan.selection_maps, probs=("selection_probs",), pooled=bool(pooled))
        return Steps(plan, outputs, self._bind(plan, outputs), self._device)

    def pretrain(self, is_global_text, pool_gt_token_only, smooth) -> dict[str, Any]:
        if pool_gt_token_only and self._gt_maps is None:
            raise ValueError("pool_gt_token_only: got True without gt_selection_maps, which say what to pool")
        global_text = self._check_global_text(is_global_text)
        prompted = self._prompt is not None
        plan = self.plan(
            mode="pretrain",
            prompt=prompted,
            gt_maps=self._gt_maps is not None,
            smooth=bool(smooth),
            pool_gt_only=bool(pool_gt_token_only),
            global_text=global_text is not None,
        )
        probs = ("selection_probs", "bottomup_probs") + (("topdown_probs",) if prompted else ())
        outputs = self.run(plan, maps=True, probs=probs, pooled=True, global_text=global_text)
        pooled = outputs["pooled"]
        if is_global_text is not None:
            pooled = pooled.to(torch.promote_types(pooled.dtype, is_global_text.dtype))
        return dict(
            pooled_output=pooled,
            selection_maps=outputs["selection_maps"],
            selection_probs=outputs["selection_probs"],
            bottomup_selection_probs=outputs["bottomup_probs"],
            topdown_selection_probs=outputs["topdown_probs"] if prompted else None,
        )

    def low_res(self, layers: int) -> dict[str, Any]:
        """The low-resolution pass alone: "pooled" (B, C) and "hidden_states", the last `layers`."""
        return self.run(self.plan(mode="low_res", hidden_states=layers), pooled=True)

    def _layers_to_return(self) -> int:
        name, layers = "num_hidden_layers_to_return", self._encoder.layers
        number = _arguments.index(name, self._encoder.num_hidden_layers_to_return, "a positive integer")
        if number < 1:
            raise ValueError(f"{name}: got {number}, expected 1 to {layers}")
        return min(number, layers)

    def outputs(self, plan, maps: bool = False, probs: Sequence[str] = (), pooled: bool = False) -> dict[str, Any]:
        """Memory for the outputs that were asked for, by the engine's names."""

        def new(name: str, *shape: int) -> torch.Tensor:
            return _engine.empty(name, (self._batch, *shape), self._dtype, self._device)

        tokens = plan.low_res_tokens + plan.selected_tokens
        outputs: dict[str, Any] = {
            "hidden_states": [new("hidden_states", tokens, self._encoder.width) for _ in range(plan.hidden_states)]
        }
        for name in (("selection_maps",) if maps else ()) + tuple(probs):
            outputs[name] = [new(name, *grid) for grid in plan.grids[1:]]
        if pooled:
            outputs["pooled"] = new("pooled_output", plan.pooled_width)
        return outputs

    def _bind(self, plan, outputs: dict[str, Any], global_text=None):
        """plan.run with all of its tensors but the workspace."""
        inputs = dict(prompt=self._prompt, gt_maps=self._gt_maps, global_text=global_text)
        return functools.partial(plan.run, self._weights, self._pixels, **inputs, **outputs)

    def run(self, plan, *, global_text=None, **wanted) -> dict[str, Any]:
        """Runs the plan; returns outputs(plan, **wanted), filled."""
        outputs = self.outputs(plan, **wanted)
        self._bind(plan, outputs, global_text)(**_engine.run_arguments(plan, self._device))
        return outputs

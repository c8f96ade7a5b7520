"""One forward pass of a tower: its tensors, plan, outputs, run.

The engine checks shapes, dtypes and devices when the pass runs. This file checks only what the engine cannot check:
that an argument is a dense tensor, that pixel_values has four dimensions, and that no gradient is requested.

A new argument of the vision forward needs no edit here: scalars go through `request`, tensors through `add`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import _arguments
from ..engine import tensors
from .stepwise import Steps

_MOST_IMAGES = (1 << 31) - 1  # of the engine: checked here before anything is made for each image
_MOST_NUMBERS = 1 << 24  # of an argument that has one for each image


class Forward:
    """A pass over the weights that a tower has now.

    Args:
        tower: PS3VisionEncoder or TextTransformer.
    """

    def __init__(self, tower):
        tensors.check_recording()
        self._tower = tower
        self._model = tower._engine_model()
        self._weights = self._model.parameters.collect()
        self.dtype = tensors.check_weights(self._weights)
        self.device = self._weights[0].device

    def check_grad(self, inputs: dict[str, torch.Tensor]) -> None:
        """NotImplementedError where an input or the weights want gradients."""
        tensors.check_grad(inputs, self._tower.training, self._weights)

    def plan(self, *sizes: int, **request) -> Any:
        return self._model.plan(
            *sizes,
            dtype=tensors.DTYPES[self.dtype],
            device=tensors.device_of(self._weights[0]),
            workspace_limit=tensors.workspace_limit(self._tower.workspace_limit),
            **request,
        )

    def empty(self, name: str, *shape: int) -> torch.Tensor:
        """Memory for an output, in the weights' dtype."""
        return tensors.empty(name, shape, self.dtype, self.device)

    def run(self, plan, *inputs: torch.Tensor, **named) -> None:
        """Runs a plan of one step, or all steps of a plan. named: inputs and outputs by the engine's names."""
        plan.run(self._weights, *inputs, **named, **tensors.run_arguments(plan, self.device))


class VisionForward(Forward):
    """A pass of a PS3VisionEncoder over pixel_values (B, 3, H, W). `add` takes its other tensors."""

    def __init__(self, encoder, pixel_values):
        pixels = self._check_pixels(pixel_values)
        super().__init__(encoder)
        self._encoder = encoder
        self._pixels = self._autocast(pixels)
        self.batch = self._pixels.shape[0]
        self._inputs: dict[str, torch.Tensor] = {}
        self.check_grad({"pixel_values": self._pixels})

    def _autocast(self, value: torch.Tensor) -> torch.Tensor:
        """Inside torch.autocast: a floating input in the weights' dtype, which a pass computes in."""
        if value.dtype == self.dtype or value.dtype not in tensors.DTYPES or not tensors.autocast_is_on(self.device):
            return value
        return value.to(self.dtype)

    @staticmethod
    def _check_pixels(pixels) -> torch.Tensor:
        tensors.check_tensor("pixel_values", pixels)
        tensors.check_tangents([("pixel_values", pixels)])
        if pixels.dim() != 4:
            raise ValueError(f"pixel_values: got shape {tuple(pixels.shape)}, expected (batch, 3, height, width)")
        if pixels.numel() == 0:
            raise ValueError(
                f"pixel_values: got an empty tensor of shape {tuple(pixels.shape)}, expected one image or "
                "more of one pixel or more"
            )
        if len(pixels) > _MOST_IMAGES:
            raise ValueError(f"pixel_values.shape[0] (batch): got {len(pixels)}, expected 1 to {_MOST_IMAGES}")
        return pixels

    def add(
        self,
        name: str,
        value: Any,
        *,
        field: str,
        broadcast: bool = False,
        contiguous: bool = False,
        autocast: bool = False,
    ) -> None:
        """Hands an input to the engine; None: there is none.

        Args:
            name: Python's name, for messages. field: the engine's, of the request's flag and of the run's tensor.
            broadcast: a batch of 1 stands for every image.
            contiguous: the engine reads no strides of this input; its shape is (B, width).
            autocast: inside torch.autocast, convert to the weights' dtype.
        """
        if value is None:
            return
        tensors.check_tensor(name, value)
        tensors.check_tangents([(name, value)])
        tensors.check_grad({name: value}, False, ())
        if broadcast and value.dim() > 0 and value.shape[0] == 1:
            value = value.expand(self.batch, *value.shape[1:])
        if autocast:
            value = self._autocast(value)
        if contiguous and tuple(value.shape) == (self.batch, self._encoder.width):  # else the engine refuses it
            value = tensors.contiguous(name, value)
        self._inputs[field] = value

    def add_global_text(self, value: torch.Tensor) -> torch.dtype:
        """Hands is_global_text (B, 1) to the engine. Returns the common dtype of it and the weights."""
        name = "is_global_text"
        tensors.check_tensor(name, value)
        try:
            common = torch.promote_types(self.dtype, value.dtype)
        except RuntimeError:
            raise TypeError(
                f"{name}: got {value.dtype}, expected bool, integers, or floats of 16 bits or more"
            ) from None
        if tuple(value.shape) != (self.batch, 1):
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {(self.batch, 1)}")
        self.add(name, tensors.converted(name, value, torch.float32), field="global_text")
        return common

    # ---- the forms of a pass -----------------------------------------------------------------------------------

    def plan_of(self, mode: str, request: Mapping[str, Any]) -> Any:
        """request: fields of ps3c_vision_request; the flag of each input that was added is set."""
        flags = dict.fromkeys(self._inputs, True)
        return self.plan(self.batch, *self._pixels.shape[2:], mode=mode, **flags, **request)

    def features(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """last_hidden_state, hidden_states, selection_maps and selection_probs of PS3VisionModelOutput."""
        plan = self.plan_of("features", request)
        outputs = self.outputs(plan, maps=plan.selection_maps, probs=("selection_probs",))
        self._run(plan, outputs)
        return dict(
            last_hidden_state=outputs["hidden_states"][-1],
            hidden_states=outputs["hidden_states"],
            selection_maps=outputs.get("selection_maps"),
            selection_probs=outputs["selection_probs"],
        )

    def steps(self, request: Mapping[str, Any], *, pooled: bool, looks_per_step: int) -> Steps:
        """As features, in steps."""
        looks_per_step = _arguments.positive("looks_per_step", looks_per_step, least=0)
        plan = self.plan_of("features", {**request, "pooled": pooled, "looks_per_step": looks_per_step})
        outputs = self.outputs(plan, maps=plan.selection_maps, probs=("selection_probs",), pooled=pooled)
        named = {**self._inputs, **outputs}
        plan.check(
            self._weights, self._pixels, **named, workspace=torch.empty(0, dtype=torch.uint8, device=self.device)
        )
        run = functools.partial(plan.run, self._weights, self._pixels, **named)
        return Steps(plan, outputs, run, self.device)

    def pretrain(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """pooled_output, selection_maps and all probabilities of PS3VisionModelOutput."""
        plan = self.plan_of("pretrain", request)
        prompted = "prompt" in self._inputs
        probs = ("selection_probs", "bottomup_probs") + (("topdown_probs",) if prompted else ())
        outputs = self.outputs(plan, maps=True, probs=probs, pooled=True)
        self._run(plan, outputs)
        return dict(
            pooled_output=outputs["pooled"],
            selection_maps=outputs["selection_maps"],
            selection_probs=outputs["selection_probs"],
            bottomup_selection_probs=outputs["bottomup_probs"],
            topdown_selection_probs=outputs.get("topdown_probs"),
        )

    def low_res(self, layers: int) -> dict[str, Any]:
        """The low-resolution pass alone: "pooled" (B, C) and "hidden_states", the last `layers`."""
        plan = self.plan_of("low_res", {"hidden_states": layers})
        outputs = self.outputs(plan, pooled=True)
        self._run(plan, outputs)
        return outputs

    def outputs(self, plan, maps: bool = False, probs: Sequence[str] = (), pooled: bool = False) -> dict[str, Any]:
        """Memory for the outputs that were asked for, by the engine's names."""
        shape = (self.batch, plan.low_res_tokens + plan.selected_tokens, self._encoder.width)
        outputs: dict[str, Any] = {
            "hidden_states": [self.empty("hidden_states", *shape) for _ in range(plan.hidden_states)]
        }
        for name in (("selection_maps",) if maps else ()) + tuple(probs):
            outputs[name] = [self.empty(name, self.batch, *grid) for grid in plan.grids[1:]]
        if pooled:
            outputs["pooled"] = self.empty("pooled_output", self.batch, plan.pooled_width)
        return outputs

    def _run(self, plan, outputs: dict[str, Any]) -> None:
        self.run(plan, self._pixels, **self._inputs, **outputs)


# ---- checks of arguments -------------------------------------------------------------------------------------------


def looks_request(num_look_close: Any, num_token_look_close: Any) -> dict[str, _arguments.Looks]:
    """The request's fields of the same names. ValueError: neither was given."""
    looks = _arguments.looks("num_look_close", num_look_close)
    tokens = _arguments.looks("num_token_look_close", num_token_look_close)
    if looks is None and tokens is None:
        raise ValueError(
            "num_look_close, num_token_look_close: got neither, expected one of them: a number or "
            "'all' (0 for the low resolution alone); a transformers pipeline passes neither on: use "
            "ps3c.load(folder).embed_images"
        )
    return {"num_look_close": looks, "num_token_look_close": tokens}


def first_n_scales(value: Any, batch: int, most: int) -> tuple[int, ...] | None:
    """only_select_first_n_scale as one number an image. most: the number of high-res scales."""
    if value is None:
        return None
    name = "only_select_first_n_scale"
    expected = f"an integer from 1 to {most}, or one for each image"
    if batch > _MOST_NUMBERS:
        raise ValueError(
            f"{name}, pixel_values: got {batch} images, expected at most {_MOST_NUMBERS} with a number each"
        )
    if issubclass(type(value), torch.Tensor) and not value.is_nested and value.dim() > 0:
        several = tensors.check_tensor(name, value)
    elif isinstance(value, (list, tuple)):
        several = value
    else:
        return (_arguments.index(name, value, expected),) * batch
    if len(several) != batch:  # before its numbers are looked at: there may be 2^40
        raise ValueError(f"{name}: got {len(several)} entries, expected {batch}, one for each of the batch")
    return tuple(_arguments.index(name, one, expected) for one in several)


def layers_to_return(value: Any, layers: int) -> int:
    """num_hidden_layers_to_return, at most `layers`."""
    name = "num_hidden_layers_to_return"
    number = _arguments.index(name, value, "a positive integer")
    if number < 1:
        raise ValueError(f"{name}: got {_arguments.shown(number)}, expected 1 to {layers}")
    return min(number, layers)

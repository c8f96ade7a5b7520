"""The calls that hostile.py makes: valid arguments, the tables of their hostile values, what an answer must be."""

import functools
import random
from typing import Any

import torch
from hostile_values import Table, canonical_number, canonical_tensor

import ps3c
from ps3c.torch_api import architectures

WIDTH = 16
VISION = dict(
    model_name="ps3c_test_tiniest",
    pool="map",
    hidden_size=WIDTH,
    ps3_scales=[16, 32, 64],
    select_based_on_layer=[0, 1],
    max_select_num=20,
    highres_selection_feature=False,
)
TEXT = dict(
    output_dim=8,
    prompt_proj_dim=WIDTH,
    context_length=6,
    vocab_size=50,
    width=16,
    heads=2,
    layers=1,
    mlp_ratio=2.0,
    no_causal_mask=False,
    embed_cls=True,
    pool_type="argmax",
)


def built(kind: str, config: Any) -> torch.nn.Module:
    """A model with random weights, the same in every process."""
    model = getattr(ps3c, kind)(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@functools.cache
def vision_model() -> torch.nn.Module:
    """A trunk of 2 blocks of 16 channels."""
    architectures.ARCHITECTURES["ps3c_test_tiniest"] = architectures.Architecture(16, 2, 2, 2.0, 8, 16, False)
    return built("PS3VisionModel", ps3c.PS3VisionConfig(**VISION))


@functools.cache
def text_model() -> torch.nn.Module:
    return built("PS3TextModel", ps3c.PS3TextConfig(**TEXT))


POOL = torch.randn(1 << 16, generator=torch.Generator().manual_seed(2))


def floats(chance: random.Random, *shape: int) -> torch.Tensor:
    size = int(torch.Size(shape).numel())
    first = chance.randrange(len(POOL) - size)
    return POOL[first : first + size].reshape(shape).clone()


def tensors(value: Any):
    """The tensors in an output, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


class Target:
    """A call.

    tables: the hostile values of its arguments. nullable: arguments that are made hostile also where they are None.
    numbers, flags: arguments that a plain call gets as int and bool. aliases: other names in messages.
    """

    name, weight = "", 1.0
    tables: dict[str, Table] = {}
    nullable: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}

    def __init__(self):
        self.plain = self.valid(random.Random(self.name))
        self.expected = None

    def valid(self, chance: random.Random) -> dict[str, Any]:
        raise NotImplementedError

    def call(self, **arguments) -> Any:
        raise NotImplementedError

    def check(self, arguments: dict, outputs: Any) -> str:
        raise NotImplementedError

    def canonical(self, arguments: dict) -> dict:
        kinds = dict.fromkeys(self.numbers, canonical_number) | dict.fromkeys(self.flags, bool)
        return {name: kinds.get(name, canonical_tensor)(value) for name, value in arguments.items()}

    def words(self, name: str) -> tuple[str, ...]:
        """What a message about the argument may call it."""
        return (name, *self.aliases.get(name, ()))

    def bits(self, outputs: Any) -> list[bytes]:
        return [one.detach().contiguous().view(torch.uint8).numpy().tobytes() for one in tensors(outputs)]

    def still_right(self) -> bool:
        """Does the plain call give the bits of the first one?"""
        with torch.no_grad():
            bits = self.bits(self.call(**self.plain))
        self.expected = self.expected or bits
        return bits == self.expected


def are_finite(values: Any) -> bool:
    """Finite, and far from the end of float32, where a sum may overflow."""
    return all(bool(((one.abs() < 1e4) | (one == 0)).all()) for one in tensors(values) if one.is_floating_point())


def targets() -> list[Target]:
    """All of them, ready."""
    import hostile_core
    import hostile_images
    import hostile_vision  # which import this module

    with torch.no_grad():
        made = [kind() for part in (hostile_vision, hostile_core, hostile_images) for kind in part.TARGETS]
    for target in made:
        target.still_right()
    return made

"""For `ps3c check`: finds ps3-torch, imports it under another name and compares it with ps3c on the same weights.

Release 0.1.3 splits a look among the scales slightly differently and breaks ties in another order (README, What
differs). Neither matters for one look that takes every patch, so that look is compared.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ._errors import CommandError, one_line
from ._selftest import random_weight, relative_error

_NAME = "ps3c_check_reference"  # the name ps3 belongs to ps3c's drop-in package
_VISION = dict(
    model_name="vit_tiny_patch16_224",
    class_token=False,
    pool="map",
    img_size=64,
    hidden_size=192,
    radio=False,
    ps3_scales=[64, 128, 192],
    select_based_on_layer=[0, 3, 6, 11],
    max_select_num_each_scale=[64, 144],
    highres_selection_module_hidden_dim=16,
    highres_selection_module_out_dim=24,
    highres_selection_module_depth=1,
    highres_selection_module_kernel_size=56,
)
_TEXT = dict(
    output_dim=48,
    prompt_proj_dim=40,
    context_length=12,
    vocab_size=97,
    width=64,
    heads=4,
    layers=3,
    no_causal_mask=True,
    pool_type="last",
    proj_bias=True,
    norm_kwargs={"eps": 1e-6},
)
_LIMIT = 5e-6  # relative error of a small model in float32
_CHECKPOINT_LIMIT = 2e-5


def find(folder: str | None) -> tuple[types.ModuleType | None, str]:
    """ps3-torch's package (None if there is none) and a note: its folder, or the reason.

    Raises:
        CommandError: `folder` or PS3C_REFERENCE names a folder that does not have it or cannot be imported from.
    """
    named = folder or os.environ.get("PS3C_REFERENCE")
    place = _package(Path(named)) if named else _installed()
    if place is None:
        if named:
            raise CommandError(f"--reference: got {named}, expected a folder that has ps3/modeling_ps3.py of ps3-torch")
        return None, "not installed; --reference FOLDER names a folder that has it"
    try:
        return _import(place), f"compared with {place}"
    except Exception as error:
        reason = f"{place} cannot be imported: {one_line(error)}"
        if named:
            raise CommandError(f"--reference: {reason}") from error
        return None, f"not compared: {reason}"


def _package(base: Path) -> Path | None:
    return next((place for place in (base / "ps3", base) if (place / "modeling_ps3.py").is_file()), None)


def _installed() -> Path | None:
    """The ps3-torch that pip installed; None if ps3c's package `ps3` has overwritten its files."""
    try:
        place = _package(Path(str(importlib.metadata.distribution("ps3-torch").locate_file("ps3"))))
    except importlib.metadata.PackageNotFoundError:
        return None
    return None if place is None or "ps3c" in (place / "modeling_ps3.py").read_text(encoding="utf-8") else place


def _import(place: Path) -> types.ModuleType:
    known = sys.modules.get(_NAME)
    if known is not None and Path(str(known.__file__)).parent == place:
        return known
    spec = importlib.util.spec_from_file_location(_NAME, place / "__init__.py", submodule_search_locations=[str(place)])
    assert spec is not None and spec.loader is not None  # a spec made from a file has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        with _quiet():
            spec.loader.exec_module(module)
    except BaseException:
        for name in [name for name in sys.modules if name.split(".")[0] == _NAME]:
            del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def compare(reference: types.ModuleType, encoder: Any) -> Iterator[tuple[str, float]]:
    """Compares small models, and the encoder's checkpoint if there is an encoder: (name, error / tolerance)."""
    import ps3c

    def pair(model: str, config: str, settings: dict) -> tuple[Any, Any]:
        with _quiet():
            ours, theirs = (getattr(one, model)(getattr(one, config)(**settings)) for one in (ps3c, reference))
        generator = torch.Generator().manual_seed(4)
        state = {
            name: random_weight(name, tuple(value.shape), generator)
            for name, value in sorted(ours.state_dict().items())
        }
        for one in (ours, theirs):
            one.load_state_dict(state)
            one.eval()
        return ours, theirs

    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(1, 3, 160, 160, generator=generator)
    prompt = torch.randn(1, 192, generator=generator)
    models = pair("PS3VisionModel", "PS3VisionConfig", _VISION)
    results = [one(pixels, num_look_close=1, prompt=prompt) for one in models]
    for what, worst in _vision_errors(*results):
        yield f"small model, {what}", worst / _LIMIT
    ids = torch.arange(24).reshape(2, 12) * 7 % 97
    ours, theirs = (one(ids) for one in pair("PS3TextModel", "PS3TextConfig", _TEXT))
    yield "small model, text", relative_error(ours.pooled_output, theirs.pooled_output) / _LIMIT
    if encoder is not None:
        yield from _compare_checkpoint(reference, encoder)


def _compare_checkpoint(reference: types.ModuleType, encoder: Any) -> Iterator[tuple[str, float]]:
    import ps3c

    side = encoder.scales[-1]
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(6))
    results = []
    for package in (ps3c, reference):  # one model at a time: each may take gigabytes of memory
        with _quiet():
            model = package.PS3VisionModel.from_pretrained(encoder.folder, torch_dtype=torch.float32).eval()
            results.append(model(pixels, num_look_close=0))
        del model
    for what, worst in _vision_errors(*results):
        yield f"the model, {what}", worst / _CHECKPOINT_LIMIT


def _vision_errors(ours: Any, theirs: Any) -> Iterator[tuple[str, float]]:
    yield "features", relative_error(ours.last_hidden_state, theirs.last_hidden_state)
    for scale, (our, their) in enumerate(zip(ours.selection_probs, theirs.selection_probs), 1):
        yield f"probabilities {scale}", relative_error(our, their)

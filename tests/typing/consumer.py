"""Code of a user, never run: `make typecheck` holds it to the types that ps3c publishes, py.typed and all."""

from pathlib import Path

from torch import Tensor
from typing_extensions import assert_type

import ps3c
from ps3c import _core


def embed(folder: Path, images: list[Path]) -> ps3c.ImageFeatures:
    encoder = ps3c.load(folder, device="cpu")
    assert_type(encoder, ps3c.Encoder)
    features = encoder.embed_images(images, text="a dog", looks=2)
    assert_type(features, ps3c.ImageFeatures)
    features.save(folder / "features.npz", overwrite=True)
    return features


def by_name(cache: Path) -> ps3c.Encoder:
    return ps3c.load("nvidia/PS3-4K-SigLIP2", revision="main", cache_dir=cache, local_files_only=True)


def look(encoder: ps3c.Encoder, image: Path) -> list[int]:
    return [look.number for look in encoder.looks(image, text="a dog")]


def texts(encoder: ps3c.Encoder) -> Tensor:
    return encoder.embed_texts(["a dog"]).pooled


def machine() -> str:
    assert_type(_core.cuda_error(), str | None)
    encoder = _core.VisionModel({"width": 8})
    plan = encoder.plan(1, 8, 8, num_look_close="all")
    assert_type(plan.workspace_bytes, int)
    plan.no_such_attribute  # type: ignore[attr-defined]  # noqa: B018
    return _core.cpu_level()

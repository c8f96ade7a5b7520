"""Loads the model that -m names."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from .. import _signals
from ..errors import CheckpointError
from . import _console
from ._errors import MODEL, CommandError, UsageError


def load(arguments) -> Any:
    """Calls ps3c.load with the model options. Without -v, transformers' messages are not shown.

    Raises:
        CheckpointError: the folder cannot be used, or the model cannot be downloaded.
    """
    # First: _quiet turns off the progress bars of a download, too.
    folder = find(arguments.model, arguments.revision)
    _quiet(arguments.verbose)
    import torch

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    from ..features.load import load as load_folder

    begin = time.perf_counter()
    with _signals.not_lost():
        encoder = load_folder(folder, device=arguments.device, dtype=arguments.dtype)
    if arguments.verbose:
        seconds = time.perf_counter() - begin
        _console.say(f"{arguments.model}: {encoder.dtype} on {encoder.device}, loaded in {seconds:.1f} s")
    return encoder


def find(model: str, revision: str | None) -> Path:
    """The folder of a model. One of the Hugging Face hub is downloaded if the local cache does not have it.

    Raises:
        CheckpointError: there is no such folder or model. UsageError: a folder has no revision.
    """
    from ..features.hub import find_model

    try:
        with _signals.not_lost():
            return find_model(model, revision=revision)
    except CheckpointError:
        raise
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _quiet(verbose: bool) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if verbose:
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()


def need_text_tower(encoder) -> None:
    """Raises CommandError if texts cannot be encoded."""
    if encoder.tokenizer is None:
        raise CommandError(f"{encoder.folder}: cannot encode texts: {encoder.text_error}", MODEL)


def channels(encoder) -> int:
    """Width of an image's pooled vector."""
    return encoder.model.vision_model.trunk.attn_pool.latent.shape[-1]

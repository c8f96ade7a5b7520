"""What one model class needs to be built, loaded and saved by transformers 4.46 and everything newer."""

import os

import torch
import transformers
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .layers import initialise
from .limits import check_limits

TRANSFORMERS = Version(Version(transformers.__version__).base_version)
_TAKES_DTYPE = TRANSFORMERS >= Version("4.56")  # from_pretrained's dtype=, before that torch_dtype=


_READ = (".json", ".safetensors", ".bin")  # suffixes of files that transformers may open

# Up to 4.46 transformers renames every "gamma" of a checkpoint to "weight"; LayerScale takes it under that name too.
_RENAMES_GAMMA = TRANSFORMERS < Version("4.48")


class PretrainedBase(PreTrainedModel):
    supports_gradient_checkpointing = True
    # The engine has one attention of its own, so that no choice of another is an error.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    _keys_to_ignore_on_load_missing = [r"\.ls_[12]\.gamma$"] if _RENAMES_GAMMA else []

    def __init__(self, config, *arguments, **options):
        """ValueError: a number of the configuration is too large to build layers of."""
        check_limits(config)
        super().__init__(config, *arguments, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """transformers' from_pretrained; dtype= and torch_dtype= both work whatever its version.

        Raises:
            OSError: no such folder or repository, or a weights file that cannot be read; the message names the file.
            RuntimeError: a parameter of another shape than the model's; the message names it.
        """
        for ours, theirs in (("torch_dtype", "dtype"), ("dtype", "torch_dtype")):
            if ours in kwargs and (theirs == "dtype") == _TAKES_DTYPE:
                kwargs[theirs] = kwargs.pop(ours)
        kwargs.pop("attn_implementation", None)
        check_folder(pretrained_model_name_or_path)
        default = torch.get_default_dtype()
        load = super().from_pretrained
        try:
            return load(pretrained_model_name_or_path, *model_args, **kwargs)
        except SafetensorError as error:
            raise OSError(f"{_unreadable(pretrained_model_name_or_path)} cannot be read: {error}") from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error) or "size mismatch" in str(error):
                raise
            # transformers 5 names the parameters in its log only.
            kwargs.update(ignore_mismatched_sizes=True, output_loading_info=True)
            _, info = load(pretrained_model_name_or_path, *model_args, **kwargs)
            lines = [
                f"{name}: got {tuple(got)}, expected {tuple(wanted)}"
                for name, got, wanted in sorted(info["mismatched_keys"])
            ]
            raise RuntimeError(
                f"{pretrained_model_name_or_path}: size mismatch of parameters of {cls.__name__}: " + "; ".join(lines)
            ) from error
        finally:
            torch.set_default_dtype(default)  # transformers 4.46 leaves it changed after an error

    def _init_weights(self, module: nn.Module) -> None:
        # Called for modules with parameters that a checkpoint lacks, whose memory may hold anything.
        initialise(module, lambda parameter: not getattr(parameter, "_is_hf_initialized", False))

    def init_weights(self) -> None:
        """Nothing to do: the modules' constructors have filled their parameters."""


def check_folder(path) -> None:
    """OSError for what can only be a folder and is none; transformers takes it for a repository's name.

    Also for a folder with a named pipe or a device in place of a file: opening it could wait for ever.
    """
    if (isinstance(path, os.PathLike) or os.path.isabs(str(path))) and not os.path.exists(path):
        raise OSError(f"{path}: there is no such folder")
    if os.path.isdir(path):
        for entry in os.scandir(path):
            if entry.name.endswith(_READ) and os.path.exists(entry) and not (entry.is_file() or entry.is_dir()):
                raise OSError(f"{entry.path}: got a pipe or a device, expected a regular file")


def _unreadable(folder) -> str:
    """The safetensors file in folder that cannot be opened, or folder."""
    if os.path.isdir(str(folder)):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".safetensors"):
                path = os.path.join(str(folder), name)
                try:
                    with safe_open(path, framework="pt"):
                        pass
                except (SafetensorError, OSError):
                    return path
    return str(folder)

"""Tensors out of checkpoint files from anywhere, without running anything that a file may carry."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.models.folder import read_tensors

_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("model", "teacher", "state_dict")
_MODULE_PREFIX = re.compile(r"^(?:module\.|backbone\.|_orig_mod\.)+")


def find_weights(path: Path) -> Path:
    """The weight file that a path stands for: the file itself, or the one in a folder of ``transformers`` or timm.

    Raises:
        MixreorgError: nothing there, or a folder without weights.
    """
    if path.is_dir():
        for name in _FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        raise MixreorgError(f"{path} holds no weights: expected {' or '.join(_FOLDER_FILES)}; or name the file itself")
    if not path.exists():
        raise MixreorgError(f"there is no checkpoint at {path}")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file or a file of ``torch.save``, onto the CPU.

    What a training run saves around its weights is taken off: ``{"model": ...}``, ``{"teacher": ...}`` or
    ``{"state_dict": ...}``, and the prefixes ``module.``, ``backbone.`` and ``_orig_mod.`` of names.

    Raises:
        MixreorgError: unreadable or damaged file, a file that holds code, or one without tensors.
    """
    if path.suffix == ".safetensors":
        content: Any = read_tensors(path)
    else:
        content = _read_torch(path)
    state = {
        _MODULE_PREFIX.sub("", name): value
        for name, value in _unwrap(content).items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        raise MixreorgError(
            f"{path} holds no weights: expected tensors by name, or a mapping of them under {', '.join(_WRAPPERS)}"
        )
    return state


def _read_torch(path: Path) -> Any:
    """Only tensors and plain containers come out: torch's restricted reader refuses everything else."""
    try:
        with warnings.catch_warnings():
            # A foreign pickle is warned about before it is refused.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # bytes that are no checkpoint make the reader fail in many ways
        refused = re.search(r"GLOBAL:? ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if refused is None:
            raise MixreorgError(f"{path} is damaged or not a checkpoint; restore it") from error
        raise MixreorgError(_explain_refusal(path, refused[1])) from None


def _explain_refusal(path: Path, name: str) -> str:
    return (
        f"{path} holds more than weights (a pickled {name}), and reading that could run code. If you trust where it "
        "comes from, save its weights alone and give that file:\n"
        f"  python -c \"import torch; c = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        f"w = next(c[k] for k in {_WRAPPERS} if k in c); "
        f"torch.save({{'model': w}}, {str(path.with_suffix('.weights.pth'))!r})\""
    )


def _unwrap(content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        return {}
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _unwrap(content[name])
    return content

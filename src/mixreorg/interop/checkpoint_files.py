"""Tensors out of checkpoint files from anywhere, without running anything that a file may carry."""

import json
import pickle
import re
import shlex
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.files import exists
from mixreorg.models.folder import NOTE, read_tensors

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weight files of a folder, the safer one first."""
FOLDER_INDICES = tuple(f"{name}.index.json" for name in FOLDER_FILES)
"""What a folder has in place of them where its weights are spread over several files."""
_WRAPPERS = ("model", "teacher", "state_dict")
_MODULE_PREFIX = re.compile(r"^(?:module\.|backbone\.|_orig_mod\.)+")
# Names of the standard library that carry no behaviour; those of anybody else's packages are never looked up.
_HARMLESS = (
    "argparse.Namespace",
    "collections.defaultdict",
    "typing.Any",
    *(
        f"builtins.{name}"
        for name in ("bool", "bytes", "complex", "dict", "float", "int", "list", "set", "str", "tuple")
    ),
)


@dataclass(frozen=True)
class WeightFile:
    """Contents of a weight file."""

    state: dict[str, Tensor]
    """Tensors by the names of the file."""
    note: dict[str, Any] | None
    """What this package wrote beside them; None in files of others."""


def find_weights(path: Path) -> Path:
    """The weight file that a path stands for: the file itself, or the one in a folder of ``transformers`` or timm.

    Raises:
        MixreorgError: nothing there, or a folder without weights or with weights in several files.
    """
    if not exists(path):
        raise MixreorgError(f"there is no checkpoint at {path}")
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        if any((path / name).is_file() for name in FOLDER_INDICES):
            raise MixreorgError(
                f"{path} holds weights in several files, and only whole ones are read; load the model with "
                "transformers and save it again with save_pretrained(folder, max_shard_size='1TB')"
            )
        raise MixreorgError(f"{path} holds no weights: expected {' or '.join(FOLDER_FILES)}; or name the file itself")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: the tensors of :func:`read_weight_file`."""
    return read_weight_file(path).state


def read_weight_file(path: Path) -> WeightFile:
    """Read a safetensors file or a file of ``torch.save``, onto the CPU.

    What a training run saves around its weights is taken off: ``{"model": ...}``, ``{"teacher": ...}`` or
    ``{"state_dict": ...}``, and the prefixes ``module.``, ``backbone.`` and ``_orig_mod.`` of names.

    Raises:
        MixreorgError: unreadable or damaged file, a file that holds code, or one without tensors.
    """
    if path.suffix == ".safetensors":
        content: Any = read_tensors(path)
        with safe_open(path, "pt") as file:
            note = (file.metadata() or {}).get(NOTE)
    else:
        content = _read_torch(path)
        note = content.get(NOTE) if isinstance(content, Mapping) else None
    state = {
        _MODULE_PREFIX.sub("", name): _plain(value, name, path)
        for name, value in _unwrap(content).items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        raise MixreorgError(
            f"{path} holds no weights: expected tensors by name, or a mapping of them under {', '.join(_WRAPPERS)}"
        )
    return WeightFile(state, _parse_note(note, path))


def _plain(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The values of a tensor, without the attributes that a file can give it (even in place of its methods).

    Raises:
        MixreorgError: quantised, sparse, or a name and shape alone: a model of this package is none of these.
    """
    # Asked of the class, as the tensor's own attributes may be anything.
    plain = Tensor.detach(tensor)
    if plain.is_meta or plain.is_nested or plain.is_quantized or plain.layout != torch.strided:
        raise MixreorgError(
            f"{path}: {name} is quantised, sparse, nested or without values; save the checkpoint with plain tensors"
        )
    return plain


def _parse_note(text: Any, path: Path) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        note = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise MixreorgError(
            f"{path} is damaged: what it says of its model is not JSON ({error}); restore it"
        ) from error
    if not isinstance(note, dict):
        raise MixreorgError(f"{path} is damaged: what it says of its model is no mapping; restore it")
    return note


class _Inert:
    """Stands for a class of another package: making one gives a plain mapping, whatever the file says of it.

    A plain one, because torch's reader fills and builds no others than those it knows.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def _foreign_names(path: Path) -> list[str]:
    """Pickled names that may be passed over: classes of packages that surround weights, such as configurations.

    They are not imported; plain mappings take their place. What the standard library or torch could do something
    with is not among them, so the restricted reader refuses it.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the older format of torch, or no checkpoint at all: the reader itself decides
        return []
    known = {*sys.stdlib_module_names, "__builtin__", "torch"}
    return [name for name in names if name in _HARMLESS or name.partition(".")[0] not in known]


def _read_torch(path: Path) -> Any:
    """Only tensors and plain containers come out: torch's restricted reader refuses what could do anything else."""
    foreign: list[Any] = [(_Inert, name) for name in _foreign_names(path)]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(foreign):
            # A foreign pickle is warned about before it is refused.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # bytes that are no checkpoint make the reader fail in many ways
        if "TorchScript" in str(error):
            raise MixreorgError(
                f"{path} is a program (TorchScript), as the published files of CLIP are; such a file is not "
                "read: give one of weights"
            ) from error
        if not isinstance(error, pickle.UnpicklingError):
            raise MixreorgError(f"{path} is damaged or not a checkpoint; restore it") from error
        named = (re.sub(r"[^\w.]", "?", name) for _, name in foreign)
        refused = [*re.findall(r"GLOBAL:? ([\w.]+)", str(error)), *named]
        if not refused:
            raise MixreorgError(f"{path} is damaged or not a checkpoint; restore it") from error
        raise MixreorgError(_explain_refusal(path, refused[0])) from None


def _explain_refusal(path: Path, name: str) -> str:
    code = (
        f'import torch; c = torch.load({_quoted(path)}, map_location="cpu", weights_only=False); '
        f"w = next(c[k] for k in {json.dumps(_WRAPPERS)} if k in c); "
        f'torch.save({{"model": w}}, {_quoted(path.with_suffix(".weights.pth"))})'
    )
    return (
        f"{path} holds more than weights (a pickled {name}), and reading that could run code. If you trust where it "
        f"comes from, save its weights alone and give that file:\n  python -c {shlex.quote(code)}"
    )


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _unwrap(content: Any, depth: int = 0) -> Mapping[Any, Any]:
    # A pickle may hold itself; no checkpoint wraps its weights more than a few times.
    if not isinstance(content, Mapping) or depth > len(_WRAPPERS):
        return {}
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _unwrap(content[name], depth + 1)
    return content

"""Starting a training run from weights that exist, with an account of what was taken."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.interop.architecture import HEAD_WIDTH, side_of_grid
from mixreorg.interop.groupvit_checkpoint import GroupViTWeights, read_groupvit
from mixreorg.interop.vit_checkpoint import read_vit
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import check_finite

_POSITIONS = "image_encoder.position_embedding"
# Fields in which a model may differ from the weights it starts from: positions are resized, the others act in training
# alone. Those of the assignment change what the weights compute, which the account mentions.
_FREE = ("image_size", "drop_path", "init_std", "group_token_std", "gumbel_temperature", "multi_label")
_MENTIONED = ("assignment", "assignment_logits", "centre_keys", "num_local_blocks", "local_window")
_BY_TOKENIZER = ("vocab_size", "context_length", "end_id")


class InitConfig(StrictConfig):
    """The weights that a run starts from."""

    weights: Literal["none", "groupvit", "vit"] = "none"
    """``none``: random ones. ``groupvit``: a whole model (see :func:`read_groupvit` for the layouts). ``vit``: patch
    embedding, positions, blocks and final norm of the image encoder, from a ViT in timm's key layout."""
    path: str | None = None
    """File or folder of the weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights == "none" and self.path is not None:
            raise ValueError(f"path {self.path} is not used while weights is 'none'; choose groupvit or vit")
        return self


@dataclass(frozen=True)
class InitReport:
    """What a model took from a checkpoint."""

    source: Path
    """The weight file."""
    loaded: dict[str, int]
    """Tensors taken, with their number of parameters; buffers have 0."""
    missing: dict[str, int]
    """Tensors of the model left at their initial values, with their number of parameters."""
    resized: dict[str, str]
    """Tensors taken after a change of size, such as ``14x14 -> 7x7``."""
    ignored: tuple[str, ...]
    """Tensors of the file for which the model has no place."""
    notes: tuple[str, ...]
    """What else somebody should know who expects the checkpoint's results."""

    def summary(self) -> str:
        """A few lines for people."""
        taken, left = sum(self.loaded.values()), sum(self.missing.values())
        lines = [
            f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors "
            f"({taken / 1e6:.2f} of {(taken + left) / 1e6:.2f} M parameters) from {self.source}"
        ]
        lines += [f"resized: {name} {change}" for name, change in self.resized.items()]
        if self.missing:
            lines.append(f"left as initialised: {_listed(self.missing, self.loaded)}")
        if self.ignored:
            lines.append(f"ignored: {_listed(self.ignored, self.loaded)}")
        return "\n".join([*lines, *self.notes])


def settings_of(source: str) -> dict[str, Any]:
    """Settings of a run that goes on with a model: its weights, architecture, tokenizer, image size and protocol.

    What acts in training alone, such as drop path, is left to the run.

    Args:
        source: whatever :func:`~mixreorg.interop.loading.load_model` reads.

    Returns:
        Nested values to lay over those of a :class:`~mixreorg.train.config.TrainConfig`.

    Raises:
        MixreorgError: nothing usable there, or a tokenizer in a form that training does not read.
    """
    weights = read_groupvit(source)
    is_readable = weights.layout == "native" or weights.tokenizer is None or weights.tokenizer.is_clip
    if not is_readable:
        raise MixreorgError(
            f"{weights.file} has a tokenizer of its own in a form that training does not read; bring the model to ours "
            f"first: mixreorg convert {source} FOLDER --to native"
        )
    model = weights.config.to_dict()
    kept = {
        name: {key: item for key, item in value.items() if key not in _FREE} if isinstance(value, dict) else value
        for name, value in model.items()
        if name not in _FREE
    }
    side = weights.config.image.image_size
    settings = {
        "initialise": {"weights": "groupvit", "path": source},
        "model": {**kept, "image": {**kept["image"], "image_size": side}},
        "data": {"tokenizer": weights.tokenizer_setting, "transform": {"image_size": side}},
    }
    return settings if weights.protocol is None else {**settings, "protocol": weights.protocol}


def initialise(model: DualEncoder, config: InitConfig) -> InitReport | None:
    """Load weights into a fresh model, in place.

    Position embeddings of another grid are resized (bicubic, as the encoder does for images of another size).

    Returns:
        The account, or None where the configuration asks for no weights.

    Raises:
        MixreorgError: no path, nothing usable there, or a checkpoint of another architecture (the remedy is named).
    """
    if config.weights == "none":
        return None
    if config.path is None:
        raise MixreorgError(
            f"this run starts from a checkpoint (initialise.weights is {config.weights}): "
            "name it with --set initialise.path=FILE_OR_FOLDER"
        )
    if config.weights == "vit":
        vit = read_vit(config.path, model.config.image)
        notes = _note_heads("image", model.config.image.width, model.config.image.num_heads)
        return _load(model, vit.state, vit.file, notes, vit.ignored)
    weights = read_groupvit(config.path, unseen=model.config)
    notes = _compare(weights, model)
    return _load(model, weights.state, weights.file, notes)


def _load(
    model: DualEncoder, state: dict[str, Tensor], source: Path, notes: Iterable[str], ignored: tuple[str, ...] = ()
) -> InitReport:
    expected = model.state_dict()
    state, resized = _with_grid(state, model.config.image.grid, source)
    taken = {name: tensor for name, tensor in state.items() if name in expected}
    for name, tensor in taken.items():
        if tensor.shape != expected[name].shape:
            raise MixreorgError(
                f"{source} does not fit the model: {name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        if tensor.is_complex():
            raise MixreorgError(f"{source} is damaged: {name} holds complex numbers; restore it")
    check_finite(taken, str(source))
    model.load_state_dict(taken, strict=False)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return InitReport(
        source=source,
        loaded={name: sizes.get(name, 0) for name in expected if name in taken},
        missing={name: sizes.get(name, 0) for name in expected if name not in taken},
        resized=resized,
        ignored=(*(name for name in state if name not in expected), *ignored),
        notes=tuple(notes),
    )


def _with_grid(
    state: dict[str, Tensor], grid: tuple[int, int], source: Path
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Bring the positions ``[1, N, D]`` to the model's grid."""
    table = state[_POSITIONS]
    try:
        side = side_of_grid(table.shape[1])
    except ValueError as error:
        raise MixreorgError(f"{source}: {error}") from None
    if (side, side) == grid:
        return state, {}
    # [1, N, D] -> [1, D, h, w] -> resized -> [1, N', D]
    pixels = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    pixels = F.interpolate(pixels.float(), size=grid, mode="bicubic", align_corners=False)
    resized = pixels.permute(0, 2, 3, 1).flatten(1, 2)
    return {**state, _POSITIONS: resized}, {_POSITIONS: f"{side}x{side} -> {grid[0]}x{grid[1]}"}


def _compare(weights: GroupViTWeights, model: DualEncoder) -> list[str]:
    """Refuse weights of another architecture; note what changes their meaning.

    Raises:
        MixreorgError: naming every field that differs and the settings that would fit.
    """
    found, wanted = _fields(weights.config), _fields(model.config)
    differing = [name for name, value in found.items() if wanted[name] != value]
    parts = {name: name.rpartition(".")[2] for name in differing}
    notes = [
        f"differs from the checkpoint: model.{name} {found[name]} -> {wanted[name]}"
        for name in differing
        if parts[name] in _MENTIONED
    ]
    strict = [name for name in differing if parts[name] not in (*_FREE, *_MENTIONED)]
    if strict:
        raise MixreorgError(_explain(weights, {name: (found[name], wanted[name]) for name in strict}))
    if weights.tokenizer is not None and model.tokenizer is not None:
        ids = range(model.config.text.vocab_size)
        if weights.tokenizer.decode(ids) != model.tokenizer.decode(ids):
            raise MixreorgError(
                f"{weights.file} was trained with another tokenizer; "
                f"take its own: --set data.tokenizer={weights.tokenizer_setting}"
            )
    if not weights.described:
        for name, part in (("image", model.config.image), ("text", model.config.text)):
            notes += _note_heads(name, part.width, part.num_heads)
    return notes


def _explain(weights: GroupViTWeights, differing: dict[str, tuple[Any, Any]]) -> str:
    values = "; ".join(f"model.{name} is {there} there, {here} here" for name, (there, here) in differing.items())
    by_tokenizer = [name for name in differing if name.rpartition(".")[2] in _BY_TOKENIZER]
    settings = [
        f"--set model.{name}={json.dumps(there, separators=(',', ':'))}"
        for name, (there, _) in differing.items()
        if name not in by_tokenizer
    ]
    if by_tokenizer:
        settings.append(f"--set data.tokenizer={weights.tokenizer_setting}")
    return f"{weights.file} does not fit the configuration: {values}. Take its own: {' '.join(settings)}"


def _note_heads(encoder: str, width: int, num_heads: int) -> list[str]:
    if num_heads * HEAD_WIDTH == width:
        return []
    return [
        f"the file does not tell the number of heads: {num_heads} as model.{encoder}.num_heads says; published models "
        f"of width {width} have {max(width // HEAD_WIDTH, 1)}"
    ]


def _fields(config: DualEncoderConfig) -> dict[str, Any]:
    """Dotted names and plain values."""
    flat: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat


def _listed(names: Iterable[str], others: Iterable[str]) -> str:
    """Names in short: ``prefix.* (count)`` for all names under a prefix that none of ``others`` has."""
    others = list(others)
    counts: dict[str, int] = {}
    for name in names:
        steps = [match.start() for match in re.finditer(r"\.", name)]
        prefixes = [name[: end + 1] for end in steps]
        shared = next((prefix for prefix in prefixes if not any(other.startswith(prefix) for other in others)), name)
        counts[shared] = counts.get(shared, 0) + 1
    return ", ".join(f"{prefix}* ({count})" if prefix.endswith(".") else prefix for prefix, count in counts.items())

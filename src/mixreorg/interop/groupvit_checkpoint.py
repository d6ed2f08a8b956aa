"""GroupViT checkpoints of every origin, brought to the native names: ours, the original code's, ``transformers``'."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mixreorg.bundled import bundled_name
from mixreorg.errors import MixreorgError
from mixreorg.files import exists, read_json
from mixreorg.interop.architecture import infer_config
from mixreorg.interop.checkpoint_files import WeightFile, find_weights, read_weight_file
from mixreorg.interop.hf_tokenizer import read_hf_tokenizer
from mixreorg.interop.hub import locate
from mixreorg.interop.key_maps import MULTI_LABEL_SCALE, from_hf, from_original
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.models.folder import FORMAT, resolve_model_folder
from mixreorg.segment.calibration import CALIBRATION_FILE
from mixreorg.text.tokenizer import CLIP_VOCAB_SIZE, Tokenizer

Layout = Literal["native", "original", "transformers"]
"""Whose names and files a checkpoint has."""

# A tensor of the image encoder that is called so in one layout alone.
_MARKS: dict[str, Layout] = {
    "image_encoder.position_embedding": "native",
    "img_encoder.pos_embed": "original",
    "vision_model.embeddings.position_embeddings": "transformers",
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "image": {"assignment": "hard", "centre_keys": False, "num_local_blocks": 0},
    "text": {"activation": "quick_gelu"},
}
# What transformers can configure and this package cannot.
_FIXED = {"hidden_act": "gelu", "assign_eps": 1.0, "layer_norm_eps": 1e-5}
_FIXED_OF_TEXT = {"layer_norm_eps": 1e-5}
# Configurations with this id were written before it had a meaning; it stands for the highest id.
_LEGACY_END_ID = 2


@dataclass(frozen=True)
class GroupViTWeights:
    """A checkpoint as it was read: nothing says yet that it is complete."""

    file: Path
    """The weight file."""
    layout: Layout
    state: dict[str, Tensor]
    """Tensors by native name."""
    config: DualEncoderConfig
    """Architecture, inferred from the tensors."""
    described: bool
    """Whether the file or a ``config.json`` beside it gave the head counts, which tensors do not show."""
    tokenizer: Tokenizer | None
    """Found with the weights; None where there is none."""
    protocol: dict[str, Any] | None
    """Values of the evaluation protocol, where this package wrote the weights."""
    calibration: dict[str, Any] | None
    """Values of a calibration of these very weights, likewise."""

    @property
    def tokenizer_setting(self) -> str:
        """What ``data.tokenizer`` of a training run must be."""
        if self.tokenizer is None or self.tokenizer.is_clip:
            return "clip"
        if self.layout != "native":
            return "the tokenizer.json that mixreorg convert --to native writes"
        return bundled_name(self.file.parent) or str(self.file.parent / "tokenizer.json")


def read_groupvit(source: str | Path, unseen: DualEncoderConfig | None = None) -> GroupViTWeights:
    """Read a GroupViT checkpoint.

    Args:
        source: a model, checkpoint or run folder; a folder of ``transformers`` (``config.json`` with
            ``model.safetensors`` or ``pytorch_model.bin``); a single file in one of these layouts; a ``.pth`` of the
            original code; or the name of a model on the hub (see :func:`locate`). A ``config.json`` beside a file is
            read, too.
        unseen: values that neither tensors nor a ``config.json`` tell, such as drop path; the published by default.

    Raises:
        MixreorgError: nothing there, damaged, holds code, another kind of model, or a file of this package's own names
            that stands alone and says nothing of its architecture.
    """
    file = weight_file(source)
    contents = read_weight_file(file)
    layout = _layout(contents.state, file)
    description = _description(file.parent, layout)
    state = {**_to_native(contents.state, layout, file), **_noted_scale(contents, file)}
    config = _config(state, layout, description, contents.note, file, unseen)
    note = contents.note or {}
    described = description if layout == "native" and description is not None else note
    protocol = described.get("protocol")
    if protocol is not None and not isinstance(protocol, dict):
        where = file if described is note else file.parent / "config.json"
        raise MixreorgError(f"{where} is damaged: the protocol that it names is no mapping; restore it")
    return GroupViTWeights(
        file=file,
        layout=layout,
        state=state,
        config=config,
        described=description is not None or "model" in note,
        tokenizer=_find_tokenizer(file, layout, description is not None, note, config),
        protocol=protocol,
        # A .pth may lie among others, so that a file beside it says nothing about it.
        calibration=note.get("calibration") if layout == "original" else _find_calibration(file.parent, note),
    )


def weight_file(source: str | Path) -> Path:
    """The file that a model's weights are in; of a run folder, that of its best checkpoint.

    Raises:
        MixreorgError: as :func:`read_groupvit`, where there is none.
    """
    path = locate(source)
    is_run = exists(path) and ((path / "state.json").is_file() or (path / "checkpoints").is_dir())
    return find_weights(resolve_model_folder(path) if is_run else path)


def _find_calibration(folder: Path, note: Mapping[str, Any]) -> dict[str, Any] | None:
    path = folder / CALIBRATION_FILE
    return read_json(path) if path.is_file() else note.get("calibration")


def _config(
    state: Mapping[str, Tensor],
    layout: Layout,
    description: Mapping[str, Any] | None,
    note: Mapping[str, Any] | None,
    file: Path,
    unseen: DualEncoderConfig | None,
) -> DualEncoderConfig:
    beside = file.parent / "config.json"
    told: Mapping[str, Mapping[str, Any]] | None = None
    if layout == "native" and description is not None:
        unseen = DualEncoderConfig.from_dict(description["model"], source=str(beside))
    elif note is not None and "model" in note:
        unseen = DualEncoderConfig.from_dict(note["model"], source=str(file))
    elif layout != "native":
        told = _PUBLISHED
    elif unseen is None:
        raise MixreorgError(
            f"{file} does not say how its model assigns patches and how many heads it has; put the config.json that "
            "it was saved with beside it"
        )
    told_by = None
    if layout == "transformers" and description is not None:
        told, told_by = _told(description, beside), str(beside)
    return infer_config(state, unseen or DualEncoderConfig(), str(file), told, told_by)


def _find_tokenizer(
    file: Path, layout: Layout, is_folder: bool, note: Mapping[str, Any], config: DualEncoderConfig
) -> Tokenizer | None:
    beside = file.parent / "tokenizer.json"
    is_published = config.text.vocab_size == CLIP_VOCAB_SIZE
    if note.get("tokenizer") is not None:
        return Tokenizer.from_dict(note["tokenizer"], source=str(file))
    if layout == "transformers":
        # As below: beside a lone file of the published vocabulary may lie files of other things.
        if is_published and not is_folder:
            return None
        return read_hf_tokenizer(file.parent, config.text.vocab_size, config.text.context_length)
    if is_folder or (not is_published and beside.is_file()):
        return Tokenizer.from_file(beside)
    return None


def _noted_scale(contents: WeightFile, file: Path) -> dict[str, Tensor]:
    """The logit scale of the multi-label loss, which ``transformers`` has no tensor for."""
    noted = (contents.note or {}).get(MULTI_LABEL_SCALE)
    if noted is None:
        return {}
    try:
        return {MULTI_LABEL_SCALE: torch.tensor([float.fromhex(noted)], dtype=contents.state["logit_scale"].dtype)}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MixreorgError(f"{file} is damaged: {MULTI_LABEL_SCALE} is {noted!r}; restore it") from error


def _layout(raw: Mapping[str, Tensor], file: Path) -> Layout:
    for mark, layout in _MARKS.items():
        if mark in raw:
            return layout
    if any("class_embedding" in name for name in raw):
        kind = "it looks like CLIP, which has no grouping blocks"
    elif "cls_token" in raw:
        kind = "it looks like a vision transformer; take --set initialise.weights=vit"
    else:
        kind = f"its tensors are called {', '.join(list(raw)[:3])}, ..."
    raise MixreorgError(f"{file} is not a GroupViT checkpoint: {kind}")


def _to_native(raw: Mapping[str, Tensor], layout: Layout, file: Path) -> dict[str, Tensor]:
    try:
        match layout:
            case "native":
                return dict(raw)
            case "original":
                return from_original(raw)
            case "transformers":
                return from_hf(raw)
    except (KeyError, RuntimeError, ValueError) as error:
        raise MixreorgError(f"{file} is damaged or not a whole GroupViT: {error.args[0]}") from None


def _description(folder: Path, layout: Layout) -> dict[str, Any] | None:
    """The ``config.json`` beside the weights, where it is one of the weights' own kind."""
    path = folder / "config.json"
    content = read_json(path) if layout != "original" and path.is_file() else None
    if not isinstance(content, dict):
        return None
    own = content.get("format") == FORMAT and isinstance(content.get("model"), dict)
    theirs = content.get("model_type") == "groupvit"
    return content if (own if layout == "native" else theirs) else None


def _told(description: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Fields that the ``config.json`` of ``transformers`` tells and tensors do not show."""
    vision, text = (_section(description, name, path) for name in ("vision_config", "text_config"))
    for encoder, section, fixed in (("vision", vision, _FIXED), ("text", text, _FIXED_OF_TEXT)):
        for name, value in fixed.items():
            if section.get(name, value) != value:
                raise MixreorgError(
                    f"{path}: {name} {section[name]!r} of the {encoder} encoder is not supported, only {value!r}"
                )
    told: dict[str, dict[str, Any]] = {
        "image": {**_PUBLISHED["image"], "num_heads": vision.get("num_attention_heads", 6)},
        "text": {
            "num_heads": text.get("num_attention_heads", 4),
            "activation": text.get("hidden_act", "quick_gelu"),
        },
    }
    end_id = text.get("eos_token_id", _LEGACY_END_ID)
    if end_id != _LEGACY_END_ID:
        told["text"]["end_id"] = end_id
    return told


def _section(description: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = description.get(name)
    if not isinstance(section, dict):
        raise MixreorgError(f"{path} is damaged: it has no {name}; restore it, or remove it to go by the tensors alone")
    return section

"""One model, three layouts: ours, ``transformers``', the original code's. No value changes on the way unless asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.files import folder_in_one_step, require_replaceable, write_atomically, write_json
from mixreorg.interop.groupvit_checkpoint import GroupViTWeights, read_groupvit
from mixreorg.interop.hf_folder import inexpressible, write_hf_companions
from mixreorg.interop.key_maps import MULTI_LABEL_SCALE, to_hf, to_original
from mixreorg.interop.loading import load_model, require_tokenizer
from mixreorg.interop.model_card import CARD, PICTURE, CardFacts, CardModel, write_card
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import NOTE, check_state, save_state, save_tensors
from mixreorg.segment.calibration import CALIBRATION_FILE
from mixreorg.segment.photos import read_photo
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.tokenizer import Tokenizer

Target = Literal["hf", "native", "original"]
"""``hf``: a folder of ``transformers``. ``native``: a model folder. ``original``: one ``.pth`` file."""
Half = Literal["fp16", "bf16"]
"""``fp16`` keeps 11 significant bits, ``bf16`` 8 and the range of float32."""
_HALVES: dict[Half, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_SUFFIXES = (".pth", ".pt")
_WRITTEN = (
    *("config.json", "model.safetensors", CALIBRATION_FILE, "preprocessor_config.json"),
    *("tokenizer.json", "merges.txt", "vocab.json", "special_tokens_map.json", "tokenizer_config.json"),
    *(CARD, PICTURE),
)
"""Files of a converted folder."""
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def convert_model(
    source: str | Path,
    destination: str | Path,
    to: Target,
    *,
    facts: CardFacts | None = None,
    precision: Half | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model in another layout, bit for bit.

    Tensors keep their values and types, unless a precision is asked for. What a layout has no place for (training
    options, protocol, calibration, the second logit scale, an own tokenizer beside a ``.pth``) goes into the weight
    file as a note, which nobody else reads and from which the way back restores it. The result is read again and
    compared before it takes its place.

    Args:
        source: whatever :func:`~mixreorg.interop.loading.load_model` reads.
        destination: a folder, or for ``original`` a file that ends in ``.pth`` or ``.pt``.
        to: the layout.
        facts: for the model card of a folder.
        precision: round weights to 16 bits: half the space. Whoever loads them gets float32 back, with these values.
        overwrite: replace an earlier conversion.

    Returns:
        ``destination``.

    Raises:
        MixreorgError: no usable model at ``source``, an architecture that the layout cannot express (every reason is
            named), values beyond the range of ``precision``, a destination in use, or a full disk.
    """
    if to not in get_args(Target):
        raise MixreorgError(f"there is no layout {to!r}; take {', '.join(get_args(Target))}")
    out = Path(destination).expanduser()
    _check_destination(out, to, overwrite)
    weights = read_groupvit(source)
    check_state(weights.state, DualEncoder.for_weights(weights.config).state_dict(), str(weights.file))
    if precision is not None:
        # A calibration holds for the very weights that it was made with.
        weights = replace(weights, state=_rounded(weights, precision), calibration=None)
    tokenizer = require_tokenizer(weights)
    if to != "native":
        _check_expressible(weights, to)
    if to == "original":
        if facts is not None:
            raise MixreorgError("a .pth file has no model card; leave out name, licence, data, photo and classes")
        write_atomically(out, lambda path: _write_original(weights, tokenizer, path))
        return out
    with folder_in_one_step(out) as folder:
        if to == "native":
            note = _metadata(weights, to)
            if weights.calibration is not None:
                write_json(folder / CALIBRATION_FILE, weights.calibration)
            save_state(_contiguous(weights.state), weights.config, tokenizer, folder, weights.protocol, note)
        else:
            state = {name: tensor for name, tensor in weights.state.items() if name != MULTI_LABEL_SCALE}
            note = {"format": "pt", **_metadata(weights, to)}
            save_tensors(_contiguous(to_hf(state)), folder / "model.safetensors", note)
            write_hf_companions(weights.config, tokenizer, folder)
        _compare(weights, folder)
        _describe(weights, facts or CardFacts(), folder, out.name, is_hf=to == "hf")
    return out


def _check_destination(out: Path, to: Target, overwrite: bool) -> None:
    if to == "original":
        if out.suffix not in _SUFFIXES or out.is_dir():
            raise MixreorgError(f"{out} cannot be a checkpoint of the original code; name a file that ends in .pth")
        if out.exists() and not overwrite:
            raise MixreorgError(f"{out} exists; name another file, or add --overwrite to replace it")
        return
    if out.is_file():
        raise MixreorgError(f"{out} is a file; name a folder to write the model to")
    require_replaceable(out)
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise MixreorgError(f"{out} is not empty; name another folder, or add --overwrite to replace it")
    # A wrong path must not cost somebody else's files, a clone its history or a run its checkpoints.
    foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in _WRITTEN or not entry.is_file())
    if foreign or not (out / "config.json").is_file():
        reason = f"it holds {foreign[0]}" if foreign else "it has no config.json"
        raise MixreorgError(
            f"{out} was not written by this command ({reason}), so it is not replaced; name another folder"
        )


def _check_expressible(weights: GroupViTWeights, to: Literal["hf", "original"]) -> None:
    problems = inexpressible(weights.config, to)
    if problems:
        whose = "transformers' GroupViTModel" if to == "hf" else "the original code"
        raise MixreorgError(
            f"{weights.file} cannot be written for {whose}, which does not have: {'; '.join(problems)}. Only models of "
            "the published architecture can; --to native takes all"
        )


def _rounded(weights: GroupViTWeights, precision: Half) -> dict[str, Tensor]:
    dtype = _HALVES[precision]
    rounded = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.state.items()
    }
    too_large = next((name for name, tensor in rounded.items() if not tensor.isfinite().all()), None)
    if too_large is not None:
        raise MixreorgError(f"{weights.file}: {too_large} holds values beyond the range of {precision}; take bf16")
    return rounded


def _metadata(weights: GroupViTWeights, to: Target, tokenizer: Tokenizer | None = None) -> dict[str, str]:
    note: dict[str, Any] = {"model": weights.config.to_dict(), "protocol": weights.protocol}
    if weights.calibration is not None:
        note["calibration"] = weights.calibration
    if to == "hf" and MULTI_LABEL_SCALE in weights.state:
        note[MULTI_LABEL_SCALE] = float(weights.state[MULTI_LABEL_SCALE]).hex()
    if tokenizer is not None:
        note["tokenizer"] = tokenizer.to_dict()
    return {NOTE: json.dumps(note)}


def _write_original(weights: GroupViTWeights, tokenizer: Tokenizer, path: Path) -> None:
    state = to_original(weights.state)
    own = None if tokenizer.is_clip else tokenizer
    try:
        torch.save({"model": _contiguous(state), **_metadata(weights, "original", own)}, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(f"torch failed ({str(error).splitlines()[0]}); is the disk full?") from error
    _compare(weights, path)


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that own their memory: parts of a shared one would be saved whole, or not at all."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _compare(weights: GroupViTWeights, written: Path) -> None:
    again = read_groupvit(written)
    same = again.state.keys() == weights.state.keys() and all(
        tensor.dtype == again.state[name].dtype and torch.equal(_bytes(tensor), _bytes(again.state[name]))
        for name, tensor in weights.state.items()
    )
    if not same or again.config != weights.config:
        raise MixreorgError(f"{weights.file} did not come back from {written} as it was; the disk may be damaged")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _describe(weights: GroupViTWeights, facts: CardFacts, folder: Path, name: str, *, is_hf: bool) -> None:
    """Write the model card, with a picture that the written model made."""
    if facts.photo is not None and facts.classes is not None:
        photo = read_photo(facts.photo)
        overlay = Segmenter(load_model(folder))(photo, facts.classes, background=facts.background).overlay(photo)
        overlay.save(folder / PICTURE, format="PNG")
    parameters = {key: tensor for key, tensor in weights.state.items() if not key.endswith(_BUFFERS)}
    model = CardModel(
        name=facts.name or name,
        config=weights.config,
        num_parameters=sum(tensor.numel() for tensor in parameters.values()),
        protocol=weights.protocol,
        is_hf=is_hf,
    )
    write_card(model, facts, weights.file.parent, folder)

"""Model folders: ``config.json``, ``model.safetensors``, ``tokenizer.json``; how models are saved and found.

A ``calibration.json`` may lie beside them: thresholds for this model (:mod:`mixreorg.segment.calibration`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mixreorg.errors import MixreorgError
from mixreorg.files import exists, read_json, write_atomically, write_json
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.text.tokenizer import Tokenizer

FORMAT = "mixreorg-model-1"
NOTE = "mixreorg"
"""Name under which a weight file of any layout carries what its layout has no place for, as JSON."""
_CONFIG, _WEIGHTS, _TOKENIZER, _CALIBRATION = "config.json", "model.safetensors", "tokenizer.json", "calibration.json"


def save_model(model: DualEncoder, folder: Path, protocol: dict[str, Any] | None = None) -> None:
    """Write a model folder.

    Args:
        model: with its tokenizer.
        folder: created if missing; each file is replaced whole.
        protocol: values of the evaluation protocol that the model was trained to be used with.
    """
    if model.tokenizer is None:
        raise ValueError("a model is saved with its tokenizer, and this one has none")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_state(state, model.config, model.tokenizer, folder, protocol)


def save_state(
    state: dict[str, torch.Tensor],
    config: DualEncoderConfig,
    tokenizer: Tokenizer,
    folder: Path,
    protocol: dict[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder from its parts; tensors keep their types.

    ``metadata`` goes into the weight file; by default the architecture, so that the file can be read alone.
    """
    note = metadata or {NOTE: json.dumps({"model": config.to_dict(), "protocol": protocol})}
    write_atomically(folder / _WEIGHTS, lambda path: save_tensors(state, path, note))
    tokenizer.save(folder / _TOKENIZER)
    content = {"format": FORMAT, "model": config.to_dict(), "protocol": protocol}
    # The configuration comes last: a folder that has one is complete.
    write_json(folder / _CONFIG, content)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file.

    Args:
        tensors: contiguous, by name.
        path: the file.
        metadata: texts for the header of the file, by default those that ``transformers`` asks for. The library writes
            several in any order: with one alone, equal tensors give equal files.

    Raises:
        OSError: also where the library reports a full disk as an error of its own.
    """
    try:
        save_file(tensors, path, metadata=dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        MixreorgError: missing, damaged, or another format.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise MixreorgError(f"{path} is missing; the folder is not complete") from error
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise MixreorgError(f"{path} is damaged or not a safetensors file ({error}); restore it") from error


def load_model_folder(source: str | Path, device: str | torch.device = "cpu") -> DualEncoder:
    """Load a model of this package for inference; :func:`mixreorg.load_model` takes those of others, too.

    Args:
        source: a model folder, a checkpoint folder, or a run folder (its best checkpoint by mIoU, or the newest
            where none was evaluated).
        device: where the weights go.

    Returns:
        The model in evaluation mode, with tokenizer and, where one was saved, ``inference_protocol``.

    Raises:
        MixreorgError: nothing there, not a model, or tensors that are missing, unexpected or mis-shaped.
    """
    folder = resolve_model_folder(Path(source))
    content = read_json(folder / _CONFIG)
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise MixreorgError(f"{folder / _CONFIG} is not the configuration of a mixreorg model ({FORMAT})")
    config = DualEncoderConfig.from_dict(content["model"], source=str(folder / _CONFIG))
    tokenizer = Tokenizer.from_file(folder / _TOKENIZER)
    if tokenizer.vocab_size != config.text.vocab_size or tokenizer.context_length != config.text.context_length:
        raise MixreorgError(
            f"{folder / _TOKENIZER} has {tokenizer.vocab_size} ids and context {tokenizer.context_length}, the model "
            f"{config.text.vocab_size} and {config.text.context_length}; restore the tokenizer it was trained with"
        )
    model = DualEncoder.for_weights(config, tokenizer)
    load_weights(model, folder / _WEIGHTS)
    model.inference_protocol = content.get("protocol")
    if (folder / _CALIBRATION).is_file():
        model.inference_calibration = read_json(folder / _CALIBRATION)
    return move(model, device).eval()


def move(model: DualEncoder, device: str | torch.device) -> DualEncoder:
    """Bring a model to a device.

    Raises:
        MixreorgError: there is no such device.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MixreorgError(f"the device {str(device)!r} cannot be used: {reason}; take cpu") from error


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file strictly into a module.

    Raises:
        MixreorgError: unreadable file, or tensors that are missing, unexpected or mis-shaped (the first are named).
    """
    state = read_tensors(path)
    check_state(state, module.state_dict(), str(path))
    # A copy: what was read is still tied to the file, and follows it where somebody writes into it.
    module.load_state_dict(state)


def check_state(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], source: str) -> None:
    """Compare tensors with what a module expects, by name, shape and kind of number (of any precision).

    Raises:
        MixreorgError: naming the first missing, unexpected, mis-shaped or mis-typed tensors, or one with values that
            are not numbers.
    """
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems += [
        f"{name} holds {state[name].dtype}, expected {tensor.dtype}"
        for name, tensor in expected.items()
        if name in state and state[name].is_floating_point() != tensor.is_floating_point()
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise MixreorgError(f"{source} does not fit the model: {'; '.join(problems[:5])}{more}")
    check_finite(state, source)


def check_finite(state: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse weights that can compute nothing.

    Raises:
        MixreorgError: naming the first tensor that holds NaN or an infinite value.
    """
    # One sum tells of any such value, in a fraction of the time that looking at each takes; it may overflow.
    suspects = (name for name, tensor in state.items() if not _summable(tensor).sum().isfinite())
    for name in suspects:
        if not state[name].float().isfinite().all():
            raise MixreorgError(
                f"{source} is damaged: {name} holds values that are NaN or infinite; restore it, or take an earlier "
                "checkpoint"
            )


def _summable(tensor: torch.Tensor) -> torch.Tensor:
    # Floating-point types of one byte have no sum of their own.
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def resolve_model_folder(path: Path) -> Path:
    """Find the model folder that a path stands for; a run folder stands for its best or newest checkpoint."""
    if not exists(path):
        raise MixreorgError(
            f"no model at {path}; give a model folder, a checkpoint, a run folder or the name of one on the hub"
        )
    if (path / _CONFIG).is_file():
        return path
    if (path / "checkpoints").is_dir() or (path / "state.json").is_file():
        checkpoints = sorted((path / "checkpoints").glob("step-*"), reverse=True)
        whole = [folder.name for folder in checkpoints if folder.name.removeprefix("step-").isdigit()]
        for name in (*_pointed_to(path / "state.json"), *whole):
            if (path / "checkpoints" / name / _CONFIG).is_file():
                return path / "checkpoints" / name
        raise MixreorgError(f"{path} is a run folder without a usable checkpoint; train longer or resume it")
    raise MixreorgError(f"{path} holds no model: expected {_CONFIG} and {_WEIGHTS}, or the state.json of a run")


def _pointed_to(state_file: Path) -> list[str]:
    """Names of a run's best and newest checkpoint; none where the file is missing or damaged."""
    try:
        state: Any = read_json(state_file)
        names = [(state["best"] or {}).get("checkpoint"), state["latest"]]
    except (MixreorgError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in names if isinstance(name, str)]

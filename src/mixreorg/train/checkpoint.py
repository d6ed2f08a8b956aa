"""Checkpoints: a model folder plus all that is needed to go on, written whole or not at all.

Layout of a run folder::

    RUN/train_config.json          the resolved configuration; ``mixreorg train --config`` runs it again
    RUN/state.json                 newest and best checkpoint
    RUN/log.jsonl, RUN/tensorboard/
    RUN/checkpoints/step-00001000/ config.json, model.safetensors, tokenizer.json   (a model folder)
                                   objective.safetensors   parameters of the objective alone, if any
                                   optimizer.safetensors   moments by parameter name
                                   trainer.json            step, seed, versions, metrics
                                   train_config.json
"""

import math
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mixreorg
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import load_weights, read_tensors, save_model, save_tensors
from mixreorg.train.config import TrainConfig

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the number of finished steps and the newest evaluation."""

    step: int
    metrics: dict[str, float]


class CheckpointStore:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path, config: TrainConfig) -> None:
        self.run = run
        self.config = config
        self.folder = run / "checkpoints"

    def save(
        self, objective: nn.Module, model: DualEncoder, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> Path:
        """Write one checkpoint, then let ``state.json`` point to it, then remove those no longer kept."""
        name = f"step-{progress.step:08d}"
        target, temporary = self.folder / name, self.folder / f".{name}.partial"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_model(model, temporary, self.config.protocol.to_dict())
            own = _own_parameters(objective)
            if own:
                save_tensors(own, temporary / "objective.safetensors")
            save_tensors(_optimizer_tensors(objective, optimizer), temporary / "optimizer.safetensors")
            write_json(temporary / "train_config.json", self.config.to_dict())
            write_json(temporary / "trainer.json", _trainer_state(self.config, progress))
            shutil.rmtree(target, ignore_errors=True)
            temporary.replace(target)
        except OSError as error:
            raise MixreorgError(f"cannot write checkpoint {target}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._point_to(name, progress)
        return target

    def latest(self) -> Path | None:
        """Folder of the newest checkpoint, or None for a fresh run."""
        state = self._state()
        return self.folder / state["latest"] if state.get("latest") else None

    def restore(
        self, checkpoint: Path, objective: nn.Module, model: DualEncoder, optimizer: torch.optim.Optimizer
    ) -> int:
        """Load model, objective and optimizer in place.

        Returns:
            Number of finished steps.

        Raises:
            MixreorgError: the checkpoint is damaged or of another architecture.
        """
        load_weights(model, checkpoint / "model.safetensors")
        own = _own_parameters(objective)
        if own:
            state = read_tensors(checkpoint / "objective.safetensors")
            if state.keys() != own.keys():
                raise MixreorgError(f"{checkpoint} belongs to a run with another objective; start a new run folder")
            objective.load_state_dict(state, strict=False)
        _restore_optimizer(objective, optimizer, read_tensors(checkpoint / "optimizer.safetensors"))
        return int(read_json(checkpoint / "trainer.json")["step"])

    def _state(self) -> dict[str, Any]:
        path = self.run / "state.json"
        state: dict[str, Any] = read_json(path) if path.is_file() else {}
        return state

    def _point_to(self, name: str, progress: Progress) -> None:
        state = self._state()
        best = state.get("best")
        score = progress.metrics.get("foreground_miou")
        if score is not None and math.isfinite(score) and (best is None or score >= best["foreground_miou"]):
            best = {"checkpoint": name, "step": progress.step, "foreground_miou": score}
        write_json(self.run / "state.json", {"latest": name, "best": best})
        kept = sorted(path.name for path in self.folder.glob("step-*"))[-self.config.keep_checkpoints :]
        for path in self.folder.glob("step-*"):
            if path.name not in kept and path.name != (best or {}).get("checkpoint"):
                shutil.rmtree(path)


def _own_parameters(objective: nn.Module) -> dict[str, Tensor]:
    """Tensors of the objective that are not the model's."""
    state = objective.state_dict()
    return {name: tensor.cpu().contiguous() for name, tensor in state.items() if not name.startswith("model.")}


def _optimizer_tensors(objective: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in objective.named_parameters()}
    tensors = {}
    for parameter, state in optimizer.state.items():
        for moment in _MOMENTS:
            tensors[f"{names[parameter]}.{moment}"] = state[moment].cpu().contiguous()
        tensors[f"{names[parameter]}.step"] = torch.as_tensor(state["step"]).cpu().reshape(1)
    return tensors


def _restore_optimizer(objective: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    for name, parameter in objective.named_parameters():
        if f"{name}.step" not in tensors:
            continue
        optimizer.state[parameter] = {
            "step": tensors[f"{name}.step"].reshape(()).to(parameter.device),
            **{moment: tensors[f"{name}.{moment}"].to(parameter.device) for moment in _MOMENTS},
        }


def _trainer_state(config: TrainConfig, progress: Progress) -> dict[str, Any]:
    return {
        "step": progress.step,
        "steps": config.steps,
        "seed": config.seed,
        "metrics": progress.metrics,
        "versions": {
            "mixreorg": mixreorg.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }

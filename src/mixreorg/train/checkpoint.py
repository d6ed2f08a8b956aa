"""Checkpoints: a model folder plus all that is needed to go on, written whole or not at all.

Layout of a run folder::

    RUN/train_config.json          the resolved configuration; ``mixreorg train --config`` runs it again
    RUN/state.json                 newest and best checkpoint
    RUN/card.json                  run card of the newest checkpoint
    RUN/log.jsonl, RUN/tensorboard/
    RUN/checkpoints/step-00001000/ config.json, model.safetensors, tokenizer.json   (a model folder)
                                   objective.safetensors   parameters of the objective alone, if any
                                   optimizer.safetensors   moments by parameter name
                                   train_config.json
                                   card.json               step, data, seed, versions, metrics, losses
                                   checksums.json          of all the others
    RUN/checkpoints/step-00001000.damaged/   found damaged by a resumed run, which began with the one before

Names that begin with a dot are work in progress; what a killed process left of them is put in order at the next start.
"""

import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from mixreorg.config import StrictConfig
from mixreorg.distributed import on_first_process
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, sync, write_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import load_weights, read_tensors, save_model, save_tensors
from mixreorg.train.card import CARD, RunFacts, earlier_steps, logged_losses, make_card, read_card
from mixreorg.train.config import TrainConfig
from mixreorg.train.integrity import damage, seal

_MOMENTS = ("exp_avg", "exp_avg_sq")
_NAME = r"^step-(\d{8,})$"
_WRITTEN_ATOMICALLY = ("train_config", "state", "card", "log")


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the number of finished steps and the newest evaluation."""

    step: int
    metrics: dict[str, float]
    scaler: dict[str, float] | None = None
    """State of the loss scaling that fp16 needs."""


class _Best(StrictConfig):
    checkpoint: str = Field(pattern=_NAME)
    step: int
    foreground_miou: float


class _State(StrictConfig):
    """Content of ``state.json``."""

    latest: str | None = Field(pattern=_NAME)
    best: _Best | None


class CheckpointStore:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path, config: TrainConfig, facts: RunFacts | None = None) -> None:
        """Open a run folder, which need not exist yet.

        Args:
            run: the run folder.
            config: of the run.
            facts: what run cards say of data and device.
        """
        self.run = run
        self.config = config
        self.facts = facts or RunFacts(fingerprint=None, num_pairs=0, device=torch.device("cpu"))
        self.folder = run / "checkpoints"
        self._opened = time.monotonic()
        self._seconds_before = 0.0
        self._earlier_steps: dict[int, int] = {}

    def save(
        self, objective: nn.Module, model: DualEncoder, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> Path:
        """Write one checkpoint, let ``state.json`` point to it, put it in place, remove those no longer kept.

        Whenever the process ends, :meth:`latest` finds this checkpoint or the one before.

        Raises:
            MixreorgError: it cannot be written, a full disk for example; the earlier checkpoints are untouched.
        """
        name = f"step-{progress.step:08d}"
        target, temporary = self.folder / name, self.folder / f".{name}.partial"
        try:
            self._tidy()
            temporary.mkdir(parents=True)
            self._write(temporary, objective, model, optimizer, progress)
            # Before the checkpoint is there: a pointer to nothing is noticed, one to an older step is obeyed.
            self._point_to(name, progress)
            self._put_in_place(temporary, target)
            write_json(self.run / CARD, read_json(target / CARD))
            self._prune(progress.step)
        except (OSError, MixreorgError) as error:
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause
            raise MixreorgError(
                f"cannot write checkpoint {target}: {reason}; earlier checkpoints are untouched, so resume the run "
                "when the cause (a full disk, most often) is gone"
            ) from error
        finally:
            self._tidy()
        return target

    def latest(self, warn: Callable[[str], None] | None = None) -> Path | None:
        """Folder of the newest intact checkpoint, or None for a fresh run; all processes call it together.

        The first process removes what a killed one left behind and verifies checksums. It begins with the
        checkpoint that ``state.json`` names, then takes older ones. Damaged ones are renamed to ``*.damaged``.

        Args:
            warn: gets a line for each damaged checkpoint, on the first process.

        Raises:
            MixreorgError: there are checkpoints, but none is intact.
        """
        name = on_first_process(lambda: self._recover(warn or (lambda line: None)))
        return self.folder / name if name else None

    def restore(
        self, checkpoint: Path, objective: nn.Module, model: DualEncoder, optimizer: torch.optim.Optimizer
    ) -> int:
        """Load model, objective and optimizer in place.

        Returns:
            Number of finished steps.

        Raises:
            MixreorgError: the checkpoint is damaged or of another architecture.
        """
        card = read_card(checkpoint)
        load_weights(model, checkpoint / "model.safetensors")
        own = _own_parameters(objective)
        if own:
            state = read_tensors(checkpoint / "objective.safetensors")
            if state.keys() != own.keys():
                raise MixreorgError(f"{checkpoint} belongs to a run with another objective; start a new run folder")
            objective.load_state_dict(state, strict=False)
        _restore_optimizer(objective, optimizer, read_tensors(checkpoint / "optimizer.safetensors"))
        self._seconds_before = card.seconds
        self._earlier_steps = earlier_steps(card, self.config.steps)
        return card.step

    def _write(
        self,
        folder: Path,
        objective: nn.Module,
        model: DualEncoder,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        save_model(model, folder, self.config.protocol.to_dict())
        own = _own_parameters(objective)
        if own:
            save_tensors(own, folder / "objective.safetensors")
        save_tensors(_optimizer_tensors(objective, optimizer), folder / "optimizer.safetensors")
        write_json(folder / "train_config.json", self.config.to_dict())
        card = make_card(
            self.config,
            self.facts,
            step=progress.step,
            seconds=self._seconds_before + time.monotonic() - self._opened,
            metrics=progress.metrics,
            scaler=progress.scaler,
            losses=logged_losses(self.run / "log.jsonl", progress.step),
            earlier_steps=self._earlier_steps,
        )
        write_json(folder / CARD, card.to_dict())
        seal(folder)

    def _put_in_place(self, temporary: Path, target: Path) -> None:
        """Give a finished checkpoint its name; an older one of that name stays until then."""
        if target.exists():
            target.replace(self.folder / f".{target.name}.replaced")
        temporary.replace(target)
        sync(self.folder)

    def _point_to(self, name: str, progress: Progress) -> None:
        best = self._state().best
        score = progress.metrics.get("foreground_miou")
        if score is not None and math.isfinite(score) and (best is None or score >= best.foreground_miou):
            best = _Best(checkpoint=name, step=progress.step, foreground_miou=score)
        self._write_state(_State(latest=name, best=best))

    def _prune(self, step: int) -> None:
        """Remove all but the newest checkpoints up to a step, and the best one."""
        best = self._state().best
        for path in self._candidates(step)[self.config.keep_checkpoints :]:
            if best is None or path.name != best.checkpoint:
                # Renamed first: half of a checkpoint would look like a damaged one.
                shutil.rmtree(path.replace(self.folder / f".{path.name}.removed"), ignore_errors=True)

    def _recover(self, warn: Callable[[str], None]) -> str | None:
        """Put the run folder in order and return the name of the newest intact checkpoint."""
        try:
            self._tidy()
            for stem in _WRITTEN_ATOMICALLY:
                for path in self.run.glob(f".{stem}-*"):
                    path.unlink(missing_ok=True)
            return self._newest_intact(warn)
        except OSError as error:
            raise MixreorgError(f"cannot put {self.run} in order: {error.strerror or error}") from error

    def _newest_intact(self, warn: Callable[[str], None]) -> str | None:
        state = self._state()
        for path in self._candidates(_step(state.latest) if state.latest else None):
            reason = damage(path)
            if reason is None:
                self._correct(state, path.name)
                return path.name
            aside = self._set_aside(path)
            warn(f"checkpoint {path.name} is damaged ({reason}): kept as {aside.name}, taking the one before it")
        damaged = sorted(path.name for path in self.folder.glob("step-*.damaged*"))
        if damaged:
            raise MixreorgError(
                f"no checkpoint in {self.folder} is intact ({', '.join(damaged)}); restore one from a copy and name it "
                "without .damaged, or start again in a new run folder"
            )
        return None

    def _candidates(self, step: int | None) -> list[Path]:
        """Checkpoints in the order in which to go on from them: newest first, up to a step where one is given.

        After these come the later ones, which a run leaves that was set back to an earlier step.
        """
        found = [path for path in self.folder.glob("step-*") if re.match(_NAME, path.name)]
        return sorted(found, key=lambda path: (step is not None and _step(path.name) > step, -_step(path.name)))

    def _set_aside(self, path: Path) -> Path:
        aside = path.with_name(f"{path.name}.damaged")
        number = 2
        while aside.exists():
            aside = path.with_name(f"{path.name}.damaged-{number}")
            number += 1
        return path.replace(aside)

    def _state(self) -> _State:
        """Content of ``state.json``; where that is missing or damaged, as the checkpoints themselves tell it."""
        path = self.run / "state.json"
        try:
            return _State.from_dict(read_json(path), source=str(path))
        except MixreorgError:
            newest_first = self._candidates(None)
            return _State(latest=newest_first[0].name if newest_first else None, best=self._best(newest_first))

    def _best(self, checkpoints: list[Path]) -> _Best | None:
        """The best by mIoU, the later of equals, as far as the cards can be read."""
        best: _Best | None = None
        for path in reversed(checkpoints):
            try:
                score = read_card(path).metrics.get("foreground_miou")
            except MixreorgError:
                continue
            if score is not None and (best is None or score >= best.foreground_miou):
                best = _Best(checkpoint=path.name, step=_step(path.name), foreground_miou=score)
        return best

    def _correct(self, state: _State, latest: str) -> None:
        """Let ``state.json`` and the run's card name checkpoints that are there."""
        best = state.best
        if best is not None and not (self.folder / best.checkpoint).is_dir():
            best = self._best(self._candidates(None))
        self._write_state(_State(latest=latest, best=best))
        write_json(self.run / CARD, read_json(self.folder / latest / CARD))

    def _write_state(self, state: _State) -> None:
        write_json(self.run / "state.json", state.to_dict())

    def _tidy(self) -> None:
        """Undo what was not finished: remove half a checkpoint, bring back one whose successor never came."""
        for path in self.folder.glob(".step-*"):
            target = self.folder / path.stem.removeprefix(".")
            if path.suffix == ".replaced" and not target.exists():
                path.replace(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))


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
            # Copied: what was read is mapped from the file, which would hold on to a checkpoint long removed.
            "step": tensors[f"{name}.step"].reshape(()).to(parameter.device, copy=True),
            **{moment: tensors[f"{name}.{moment}"].to(parameter.device, copy=True) for moment in _MOMENTS},
        }

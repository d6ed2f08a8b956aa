"""Measuring a trained run, in a process of its own: ``python -m mixreorg.ablate.measuring JOB``."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.eval.confusion import mean_percent
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.mixed_masks import held_out_pairs, mixed_mask_accuracy_on
from mixreorg.eval.result import BACKGROUND_THRESHOLDS, SplitResult
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json, write_json
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import read_tensors, resolve_model_folder
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.train.config import TrainConfig

SELECTION_RULE = (
    "The best checkpoint is the evaluated one of the highest foreground mIoU on the validation split of the training "
    "world (the newest of equals); the last one is that of the last step. The background threshold is chosen on the "
    "same validation split, under the protocol of the split that is measured."
)

MEASURED = "ablate_measured.json"
"""File in a run folder with what was measured."""


class SplitJob(StrictConfig):
    """A split to measure on."""

    name: str
    root: str
    split: str
    files: str | None = None
    """Digest of the files of data that exist; measured again where it is another. None for worlds that are made."""
    max_images: int | None
    protocol: Protocol
    stuff: tuple[str, ...] = ()
    """Classes that are stuff, areas without a shape of their own. Where there are any, things and they are also
    measured apart: stuff is learned first and can be most of a mean over all classes."""


class MeasureJob(StrictConfig):
    """Everything that decides the numbers of a trained run."""

    splits: tuple[SplitJob, ...]
    validation: str | None
    """Folder whose split ``val`` chooses thresholds and gives the scenes to mix; None for none."""
    validation_files: str | None = None
    """Like ``files`` of a split."""
    mixed_scenes: int
    mixing: MixReorgConfig


class CheckpointResult(StrictConfig):
    """What was measured of one checkpoint."""

    step: int
    mixed_mask_accuracy: dict[str, float]
    """Percent on validation scenes: ``own`` with the run's own mixing, where it has one, ``common`` with the mixing
    that all runs are asked with."""
    splits: dict[str, dict[str, float | None]]
    """Metrics by name of the split, as :meth:`~mixreorg.eval.result.SplitResult.metrics` gives them with its details
    (of the label maps without background), and ``num_images``."""


class Measured(StrictConfig):
    """Content of :data:`MEASURED`."""

    job: MeasureJob
    """What was asked."""
    steps: dict[str, int]
    """Step of the measured checkpoints."""
    checkpoints: dict[Literal["best", "last"], CheckpointResult]


def checkpoints_of(run: Path) -> dict[Literal["best", "last"], Path]:
    """Folders of the best and the last checkpoint of a run.

    Raises:
        MixreorgError: there is none.
    """
    best = resolve_model_folder(run)
    last = sorted((run / "checkpoints").glob("step-????????"))[-1]
    return {"best": best, "last": last}


def is_measured(run: Path, job: MeasureJob) -> bool:
    """Whether a run folder holds the answer to this very job, for the checkpoints it has now."""
    path = run / MEASURED
    if not path.is_file():
        return False
    try:
        found = Measured.from_dict(read_json(path), source=str(path))
    except MixreorgError:
        return False  # of an earlier version: measured again
    steps = {name: _step(folder) for name, folder in checkpoints_of(run).items()}
    return found.job == job and found.steps == steps


def measure_run(run: Path, job: MeasureJob, device: str) -> Measured:
    """Measure the best and the last checkpoint of a run; one time where they are the same.

    Args:
        run: the run folder.
        job: what to measure.
        device: where to compute.

    Raises:
        MixreorgError: a checkpoint or a split cannot be read.
    """
    config = TrainConfig.from_dict(read_json(run / "train_config.json"), source=str(run))
    folders = checkpoints_of(run)
    results = {folder: _measure(folder, config, job, device) for folder in dict.fromkeys(folders.values())}
    return Measured(
        job=job,
        steps={name: _step(folder) for name, folder in folders.items()},
        checkpoints={name: results[folder] for name, folder in folders.items()},
    )


def _measure(checkpoint: Path, config: TrainConfig, job: MeasureJob, device: str) -> CheckpointResult:
    model = load_model(checkpoint, device)
    thresholds: dict[str, tuple[float, ...]] = {}
    splits: dict[str, dict[str, float | None]] = {}
    for item in job.splits:
        segmenter = Segmenter(model, item.protocol, window_batch=64)
        if item.protocol.hash() not in thresholds:
            thresholds[item.protocol.hash()] = _choose_threshold(segmenter, job.validation)
        split = open_voc_split(Path(item.root), item.split, item.max_images)
        result = evaluate_split(segmenter, split, thresholds[item.protocol.hash()], detail=True)
        kinds = things_and_stuff(result, item.stuff)
        splits[item.name] = {**result.metrics(), **kinds, "num_images": float(result.num_images)}
    return CheckpointResult(
        step=_step(checkpoint), mixed_mask_accuracy=_mixed_masks(checkpoint, model, config, job), splits=splits
    )


def things_and_stuff(result: SplitResult, stuff: Collection[str]) -> dict[str, float]:
    """Means in percent over the classes of each kind that occur, all of them competing; empty without stuff.

    With them, where it was counted with the true names given: the share in percent of the pixels of things that take
    the name of stuff of their photo, and the reverse. Captions alone do not tell which of two groups has which name.

    Args:
        result: with details.
        stuff: names of the classes that are stuff.
    """
    if not stuff:
        return {}
    is_stuff = np.array([name in stuff for name in result.class_names])
    iou = result.foreground.iou()
    values = {"things_miou": mean_percent(iou[~is_stuff]), "stuff_miou": mean_percent(iou[is_stuff])}
    if result.details is not None and result.details.grouping.matrix.any():
        values["things_grouping_oracle_miou"] = mean_percent(result.details.grouping.iou()[~is_stuff])
    present = result.present.matrix
    for name, truth in (("things_named_stuff", ~is_stuff), ("stuff_named_things", is_stuff)):
        if pixels := present[truth].sum():
            values[name] = float(100 * present[np.ix_(truth, ~truth)].sum() / pixels)
    return values


def _choose_threshold(segmenter: Segmenter, validation: str | None) -> tuple[float, ...]:
    """The background threshold that is best on validation images; none without such."""
    if validation is None:
        return ()
    return (evaluate_split(segmenter, open_voc_split(Path(validation), "val"), BACKGROUND_THRESHOLDS).best_threshold(),)


def _mixed_masks(checkpoint: Path, model: DualEncoder, config: TrainConfig, job: MeasureJob) -> dict[str, float]:
    pairs = [] if job.validation is None else held_out_pairs(Path(job.validation), "val", job.mixed_scenes)
    side = config.model.image.image_size
    if not pairs or any(pair.image.size != (side, side) for pair in pairs):
        return {}
    asked = {"common": MixReorgObjective(model, job.mixing)}
    if isinstance(config.objective, MixReorgConfig):
        # As in inference, no context is left out.
        own = config.objective.updated(context_dropout=0.0)
        asked["own"] = MixReorgObjective(model, own)
        parameters = checkpoint / "objective.safetensors"
        if parameters.is_file():
            asked["own"].load_state_dict(read_tensors(parameters), strict=False)
    device = model.logit_scale.device
    return {
        name: 100 * mixed_mask_accuracy_on(objective.to(device).eval(), pairs)
        for name, objective in sorted(asked.items())
    }


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def main(arguments: list[str]) -> int:
    """Measure as a job file says and write :data:`MEASURED` into the run folder.

    Args:
        arguments: run folder, job file, device.
    """
    run, job_file, device = Path(arguments[0]), Path(arguments[1]), arguments[2]
    try:
        torch.manual_seed(0)
        job = MeasureJob.from_dict(read_json(job_file), source=str(job_file))
        write_json(run / MEASURED, measure_run(run, job, device).to_dict())
    except MixreorgError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

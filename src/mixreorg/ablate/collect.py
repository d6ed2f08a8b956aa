"""Collecting the results of an ablation from its run folders."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from mixreorg.ablate.accounts import cost_of, read_parts
from mixreorg.ablate.grid import PlannedRun, train_command
from mixreorg.ablate.measuring import (
    MEASURED,
    SELECTION_RULE,
    Measured,
    MeasureJob,
    is_measured,
)
from mixreorg.ablate.results import (
    FORMAT,
    AblationResults,
    CodeState,
    Curve,
    RowResult,
    RunResult,
    SplitFacts,
    WorldResult,
)
from mixreorg.ablate.spec import AblationSpec
from mixreorg.ablate.worlds import world_commands, world_paths
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json
from mixreorg.train.alarms import LOSS_TERMS
from mixreorg.train.card import RunCard, read_card
from mixreorg.train.run_log import LogRecord, read_log

_TRAIN_VALUES = ("loss", *LOSS_TERMS, "mixed_mask_accuracy", "segments_in_use")


def is_trained(run: Path, steps: int) -> bool:
    """Whether a run folder holds a run that was trained to its last step, and evaluated there if it is evaluated."""
    if not (run / "card.json").is_file():
        return False
    card = read_card(run)
    return card.step >= steps and (card.config.evaluation.root is None or bool(card.metrics))


def collect(spec: AblationSpec, runs: Sequence[PlannedRun], jobs: dict[Path, MeasureJob], out: Path) -> AblationResults:
    """All results that the run folders hold by now.

    Args:
        spec: the ablation.
        runs: all of its runs.
        jobs: what is measured of each, by its folder.
        out: the output folder.
    """
    rows = {run.row.name: run for run in runs}
    return AblationResults(
        format=FORMAT,
        title=spec.title,
        budget_note=spec.budget_note,
        selection_rule=SELECTION_RULE,
        splits=tuple(SplitFacts(name=item.name, world=item.world) for item in spec.measure.splits),
        worlds=tuple(
            WorldResult(name=name, preset=world.preset, commands=world_commands(name, world))
            for name, world in spec.worlds.items()
        ),
        rows=tuple(_row(spec, run) for run in rows.values()),
        runs=tuple(
            _run(spec, run, jobs[run.folder], out) for run in runs if (out / run.folder / "card.json").is_file()
        ),
        spec=spec.to_dict(),
    )


def _row(spec: AblationSpec, run: PlannedRun) -> RowResult:
    row = run.row
    return RowResult(
        name=row.name,
        label=row.label,
        section=row.section,
        recipe=row.recipe,
        method=run.config.objective.kind,
        world=row.world,
        preset=spec.worlds[row.world].preset,
        settings=row.settings,
        baseline=row.baseline,
        num_seeds=len(row.seeds),
    )


def _run(spec: AblationSpec, run: PlannedRun, job: MeasureJob, out: Path) -> RunResult:
    folder = out / run.folder
    card, log, parts = read_card(folder), _read_log(folder / "log.jsonl"), read_parts(folder)
    done = is_trained(folder, run.config.steps) and is_measured(folder, job)
    measured = Measured.from_dict(read_json(folder / MEASURED), source=str(folder)) if done else None
    world = world_paths(run.row.world, spec.worlds[run.row.world], as_written=True)
    # The name of a GPU is known to the run: the queue itself does not touch the device.
    name = card.layout.device_name if card.layout.device == "cuda" else card.layout.device
    machines = {part.machine.updated(device=name): None for part in parts if part.stage == "train"}
    return RunResult(
        row=run.row.name,
        seed=run.seed,
        state="finished" if measured is not None else "unfinished",
        command=shlex.join(train_command(run, world)),
        steps=card.step,
        total_steps=run.config.steps,
        batch_size=run.config.batch_size,
        precision=card.config.precision,
        num_pairs=card.data.num_pairs,
        code=_code(card),
        machines=tuple(machines),
        cost=cost_of(parts, log, run.config.batch_size),
        checkpoints=measured.checkpoints if measured is not None else {},
        curve=_curve(log),
    )


def _code(card: RunCard) -> CodeState:
    commit = card.versions.get("commit")
    versions = {name: version for name, version in card.versions.items() if name != "commit"}
    dirty = commit is not None and commit.endswith("-dirty")
    return CodeState(commit=commit.removesuffix("-dirty") if commit else None, dirty=dirty, versions=versions)


def _curve(log: Sequence[LogRecord]) -> Curve:
    train = [
        {"step": record["step"], **_chosen(record, "train/", _TRAIN_VALUES)} for record in log if "train/loss" in record
    ]
    val = [
        {"step": record["step"], **_chosen(record, "val/", None)}
        for record in log
        if any(name.startswith("val/") for name in record)
    ]
    return Curve(train=tuple(train), val=tuple(val))


def _chosen(record: LogRecord, prefix: str, names: Sequence[str] | None) -> dict[str, float | None]:
    """Values of a record without their prefix; 5 digits are plenty for a curve."""
    values = {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}
    return {
        name: float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
        for name, value in values.items()
        if names is None or name in names
    }


def _read_log(path: Path) -> list[LogRecord]:
    """The log of a run; empty where its end is missing because the run was killed: the run mends it when it goes on."""
    try:
        return read_log(path)
    except MixreorgError:
        return []

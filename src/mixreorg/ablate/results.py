"""The result file of an ablation: every number with what is needed to make it again."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

from mixreorg.ablate.accounts import Cost, Machine
from mixreorg.ablate.measuring import CheckpointResult
from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json

FORMAT: Literal["mixreorg-ablation-1"] = "mixreorg-ablation-1"


class RowResult(StrictConfig):
    """A row of the tables."""

    name: str
    label: str
    section: str
    recipe: str
    method: str
    """Kind of the objective: ``groupvit`` or ``mixreorg``."""
    world: str
    preset: str | None
    """Of the scenes of that world; None where the data existed."""
    settings: dict[str, Any]
    """Changes to the recipe by dotted name."""
    baseline: str | None
    """Row that it is compared with."""
    num_seeds: int
    """That the ablation asks for."""


class CodeState(StrictConfig):
    """The code that trained a run."""

    commit: str | None
    """None where the package is not a git checkout."""
    dirty: bool
    """Whether files differed from that commit."""
    versions: dict[str, str | None]
    """Of the packages whose change may change a result."""


class Curve(StrictConfig):
    """A run over its steps."""

    train: tuple[dict[str, float | None], ...]
    """Losses and mixed-mask accuracy of logged steps, each with its ``step``."""
    val: tuple[dict[str, float | None], ...]
    """Evaluations, each with its ``step``."""


class RunResult(StrictConfig):
    """One row with one seed."""

    row: str
    seed: int
    state: Literal["finished", "unfinished"]
    """Finished: trained to the last step and measured."""
    command: str
    """Trains it again, in the folder where the worlds were made."""
    steps: int
    """Finished steps."""
    total_steps: int
    batch_size: int
    precision: str
    num_pairs: int
    """Training pairs."""
    code: CodeState
    machines: tuple[Machine, ...]
    """Where its parts ran, each once."""
    cost: Cost
    checkpoints: dict[Literal["best", "last"], CheckpointResult]
    """Empty before it was measured."""
    curve: Curve


class SplitFacts(StrictConfig):
    """A split that was measured."""

    name: str
    world: str | None
    """None for that of the row."""


class WorldResult(StrictConfig):
    """Data that runs were trained or measured on."""

    name: str
    preset: str | None
    commands: tuple[str, ...]
    """Make it again; empty for data that existed."""


class AblationResults(StrictConfig):
    """All results of an ablation."""

    format: Literal["mixreorg-ablation-1"]
    title: str
    budget_note: str
    selection_rule: str
    """How checkpoints and thresholds were chosen."""
    splits: tuple[SplitFacts, ...]
    """The first one is drawn."""
    worlds: tuple[WorldResult, ...]
    rows: tuple[RowResult, ...]
    runs: tuple[RunResult, ...]
    """Runs that have begun."""
    spec: dict[str, Any]
    """The whole ablation as it was read."""

    def finished(self, row: str) -> list[RunResult]:
        """Finished runs of a row, by seed."""
        runs = [run for run in self.runs if run.row == row and run.state == "finished"]
        return sorted(runs, key=lambda run: run.seed)

    def by_seed(
        self, row: str, split: str, metric: str, checkpoint: Literal["best", "last"] = "best"
    ) -> dict[int, float]:
        """Values of a metric by seed; runs that lack it are left out."""
        values = {}
        for run in self.finished(row):
            value = run.checkpoints[checkpoint].splits.get(split, {}).get(metric)
            if value is not None:
                values[run.seed] = value
        return values

    def metrics(self, split: str) -> list[str]:
        """Names of all metrics of a split, in the order in which they were measured."""
        names: dict[str, None] = {}
        for run in self.runs:
            for result in run.checkpoints.values():
                names |= dict.fromkeys(result.splits.get(split, {}))
        return list(names)


def read_results(path: Path) -> AblationResults:
    """Read a result file.

    Raises:
        MixreorgError: missing, damaged, or another kind of file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MixreorgError(
            f"{path} holds no results of an ablation ({FORMAT}); give a results.json of mixreorg ablate"
        )
    return AblationResults.from_dict(content, source=str(path))


def to_csv(results: AblationResults) -> str:
    """One line per row, seed and split; metrics of the best checkpoint, then of the last one with ``last_``."""
    rows = {row.name: row for row in results.rows}
    metrics = list(dict.fromkeys(name for split in results.splits for name in results.metrics(split.name)))
    lines = [
        _line(rows[run.row], run, split.name, metrics)
        for run in results.runs
        if run.checkpoints
        for split in results.splits
    ]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, fieldnames=[*_FACTS, *metrics, *(f"last_{name}" for name in metrics)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


_FACTS = (
    "section",
    "row",
    "label",
    "recipe",
    "method",
    "world",
    "preset",
    "seed",
    "split",
    "steps",
    "best_step",
    "batch_size",
    "precision",
    "commit",
    "dirty",
    "train_seconds",
    "train_cpu_seconds",
    "process_seconds",
    "process_cpu_seconds",
    "mixed_mask_accuracy_own",
    "mixed_mask_accuracy_common",
)


def _line(row: RowResult, run: RunResult, split: str, metrics: list[str]) -> dict[str, object]:
    best, last = run.checkpoints["best"], run.checkpoints["last"]
    mixed = {f"mixed_mask_accuracy_{name}": value for name, value in best.mixed_mask_accuracy.items()}
    known: dict[str, object] = {
        **row.to_dict(),
        **run.to_dict(),
        **run.code.to_dict(),
        **run.cost.to_dict(),
        **mixed,
        "split": split,
        "row": row.name,
        "best_step": best.step,
    }
    values: dict[str, object] = {name: known.get(name) for name in _FACTS}
    values |= {name: best.splits.get(split, {}).get(name) for name in metrics}
    return values | {f"last_{name}": last.splits.get(split, {}).get(name) for name in metrics}

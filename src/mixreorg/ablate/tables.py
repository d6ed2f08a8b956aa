"""The tables of an ablation as plain text cells, for the page and for Markdown alike."""

from dataclasses import dataclass

from mixreorg.ablate.results import AblationResults, RowResult, RunResult, SplitFacts
from mixreorg.ablate.statistics import Difference, Spread, paired_difference, spread

HEADLINE = "foreground_miou"
"""Metric that rows are compared by and that charts show."""
WITH_BACKGROUND = "background_miou"
"""Shown beside it where all rows are drawn."""

NONE = "–"
_NAMES = {
    HEADLINE: "foreground mIoU",
    WITH_BACKGROUND: "mIoU with background",
    "present_miou": "true names given",
    "boundary_iou": "boundary IoU",
    "naming_oracle_miou": "naming oracle",
    "grouping_oracle_miou": "grouping oracle",
    "things_miou": "things: foreground mIoU",
    "stuff_miou": "stuff: foreground mIoU",
    "things_grouping_oracle_miou": "things: grouping oracle",
    "things_named_stuff": "things that take the name of stuff",
    "stuff_named_things": "stuff that takes the name of a thing",
}
# Facts about a measurement rather than merits of a model, and metrics that only the result file and the CSV hold.
_NOT_SHOWN = (
    "background_threshold",
    "num_images",
    "miou",
    "pixel_accuracy",
    "zero_iou_share",
    "small_region_iou",
    "medium_region_iou",
    "large_region_iou",
)


@dataclass(frozen=True)
class Table:
    """Cells as text, none of it escaped."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The first cell of each is its heading."""


@dataclass(frozen=True)
class Section:
    """Rows under one heading."""

    title: str
    """Empty where the ablation gives none."""
    rows: tuple[RowResult, ...]
    """With the baseline first, where it stands in another section."""
    tables: tuple[Table, ...]
    """One per split, then mixed masks and cost."""


def sections(results: AblationResults) -> list[Section]:
    """All sections in the order of their first rows."""
    titles = dict.fromkeys(row.section for row in results.rows)
    return [_section(results, title) for title in titles]


def rows_of(results: AblationResults, title: str) -> tuple[RowResult, ...]:
    """Rows of a section, after the baselines they are compared with that stand elsewhere."""
    rows = [row for row in results.rows if row.section == title]
    wanted = {row.baseline for row in rows} - {row.name for row in rows}
    return tuple([row for row in results.rows if row.name in wanted] + rows)


def is_comparable(results: AblationResults, row: RowResult, split: SplitFacts) -> bool:
    """Whether a row was measured on the same images as its baseline."""
    if row.baseline is None or row.baseline == row.name:
        return False
    (baseline,) = (item for item in results.rows if item.name == row.baseline)
    return split.world is not None or baseline.world == row.world


def difference(
    results: AblationResults, row: RowResult, split: SplitFacts, metric: str = HEADLINE
) -> Difference | None:
    """Difference of a row to its baseline; None where they cannot be compared."""
    if row.baseline is None or not is_comparable(results, row, split):
        return None
    values = results.by_seed(row.name, split.name, metric)
    return paired_difference(values, results.by_seed(row.baseline, split.name, metric))


def over_seeds(results: AblationResults, row: str, split: SplitFacts, metric: str) -> Spread | None:
    """A metric of a row's best checkpoints; None where no run is finished."""
    return spread(results.by_seed(row, split.name, metric).values())


def metric_name(metric: str) -> str:
    """What tables call a metric."""
    return _NAMES.get(metric, metric.replace("_miou", " mIoU").replace("_", " "))


def write_spread(value: Spread | None, digits: int = 1) -> str:
    """Mean and standard deviation."""
    if value is None:
        return NONE
    mean = f"{value.mean:,.{digits}f}"
    return mean if value.deviation is None else f"{mean} ± {value.deviation:,.{digits}f}"


def write_difference(value: Difference | None) -> str:
    """Mean difference and its interval."""
    if value is None:
        return NONE
    if value.low is None or value.high is None:
        return f"{_signed(value.mean)} (1 seed)"
    return f"{_signed(value.mean)} [{_signed(value.low)}, {_signed(value.high)}]"


def _section(results: AblationResults, title: str) -> Section:
    rows = rows_of(results, title)
    finished = any(results.finished(row.name) for row in rows)
    tables = [
        _metric_table(results, rows, split)
        for split in results.splits
        # Joined parts may have been measured on different splits; before anything is finished all are shown.
        if not finished or any(results.by_seed(row.name, split.name, HEADLINE) for row in rows)
    ]
    if any(_mixed(results.finished(row.name), "common") for row in rows):
        tables.append(_mixed_table(results, rows))
    return Section(title, rows, (*tables, _cost_table(results, rows)))


def _metric_table(results: AblationResults, rows: tuple[RowResult, ...], split: SplitFacts) -> Table:
    others = [name for name in results.metrics(split.name) if name not in (*_NOT_SHOWN, HEADLINE)]
    compared = any(row.baseline is not None for row in rows)
    header = ["", "seeds", metric_name(HEADLINE), *(["difference to the baseline [95 %]"] if compared else [])]
    header += [*(metric_name(name) for name in others), f"{metric_name(HEADLINE)}, last step"]
    cells = []
    for row in rows:
        count = len(results.finished(row.name))
        line = [row.label, str(count) if count == row.num_seeds else f"{count} of {row.num_seeds}"]
        line.append(write_spread(over_seeds(results, row.name, split, HEADLINE)))
        if compared:
            # A row of another section is here because rows of this one, which come last, are compared with it.
            is_baseline = row.baseline == row.name or row.section != rows[-1].section
            line.append("baseline" if is_baseline else write_difference(difference(results, row, split)))
        line += [write_spread(over_seeds(results, row.name, split, name)) for name in others]
        last = results.by_seed(row.name, split.name, HEADLINE, "last")
        cells.append((*line, write_spread(spread(last.values()))))
    world = "" if split.world is None or split.world == split.name else f" ({split.world})"
    return Table(f"Split {split.name}{world}, %", tuple(header), tuple(cells))


def _mixed_table(results: AblationResults, rows: tuple[RowResult, ...]) -> Table:
    cells = []
    for row in rows:
        runs = results.finished(row.name)
        own, common = (write_spread(spread(_mixed(runs, name))) for name in ("own", "common"))
        cells.append((row.label, own, common))
    header = ("", "with the mixing of its training", "with the mixing that all are asked with")
    return Table("Mixed-mask accuracy on validation scenes, %", header, tuple(cells))


def _cost_table(results: AblationResults, rows: tuple[RowResult, ...]) -> Table:
    cells = []
    for row in rows:
        runs = results.finished(row.name)
        cpu = [run.cost.train_cpu_seconds for run in runs if run.cost.train_cpu_seconds is not None]
        rate = [run.steps * run.batch_size / run.cost.train_seconds for run in runs if run.cost.train_seconds]
        cells.append(
            (
                row.label,
                ", ".join(sorted({f"{run.steps:,} x {run.batch_size:,}" for run in runs})) or NONE,
                _digits(spread([run.cost.train_seconds for run in runs])),
                _digits(spread(cpu)),
                _digits(spread(rate)),
                write_spread(spread([float(run.checkpoints["best"].step) for run in runs]), 0),
                ", ".join(sorted({run.precision for run in runs})) or NONE,
            )
        )
    header = ("", "steps x batch", "training, s", "training, CPU s", "pairs/s", "step of the best", "precision")
    return Table("Cost", header, tuple(cells))


def _mixed(runs: list[RunResult], name: str) -> list[float]:
    found = (run.checkpoints["best"].mixed_mask_accuracy.get(name) for run in runs)
    return [value for value in found if value is not None]


def _digits(value: Spread | None) -> str:
    """No digit after the point where the whole number tells enough."""
    return write_spread(value, 0 if value is not None and value.mean >= 20 else 1)


def _signed(value: float) -> str:
    return f"{value:+.1f}"

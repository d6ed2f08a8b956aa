"""Charts of an ablation: rows against each other, and every run over its steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from mixreorg.ablate.results import AblationResults, RowResult, RunResult, SplitFacts
from mixreorg.ablate.statistics import spread
from mixreorg.ablate.tables import HEADLINE, WITH_BACKGROUND, Section, metric_name, over_seeds, sections
from mixreorg.charts import INK, add_legend, new_axes, new_panels, plain_text, two_line_label

if TYPE_CHECKING:
    from mixreorg.charts import Axes, Figure

_COLORS = ("#2f7fd6", "#e07b1a", "#2e9e63", "#b0479a", "#8a7d1f", "#5a6acf", "#c2453d", "#3a9aa5")
_MAX_POINTS = 200
_LEAST_POINTS = 5.0
"""Width of a chart of rows: an axis cut to a fraction of a point would make nothing look like much."""
_SECTIONS_WITHOUT_OVERVIEW = 4
"""So many sections are taken in at a glance."""


@dataclass(frozen=True)
class Chart:
    """A picture of an ablation and what goes with it."""

    section: str | None
    """Heading that it belongs to; None: to the whole ablation."""
    title: str
    """What it shows, in words."""
    caption: str
    """How to read it."""
    draw: Callable[[], "Figure"]
    """Drawing takes time that a list of the charts does not need."""


def all_charts(results: AblationResults) -> list[Chart]:
    """All of an ablation: an overview where there are many sections, and for each section its rows and their curves.

    A section that holds a baseline alone has nothing to compare and no chart.
    """
    split = results.splits[0]
    found = sections(results)
    charts = []
    if len(found) > _SECTIONS_WITHOUT_OVERVIEW:
        title = f"All rows, {split.name}"
        caption = "Means over seeds; the dashed line is the baseline of a section's rows, drawn as a row in orange."
        charts.append(Chart(None, title, caption, partial(overview_chart, results, found, split)))
    for section in found:
        if all(row.name == row.baseline for row in section.rows):
            continue
        name = section.title or "Results"
        title = f"{name}, {split.name}"
        caption = "Dots are seeds, diamonds their means, bars one standard deviation; orange is the baseline."
        charts.append(Chart(section.title, title, caption, partial(row_chart, results, section.rows, split)))
        title = f"{name}, validation scenes over the steps of training"
        curves = partial(section_curves, results, section.rows)
        charts.append(Chart(section.title, title, "A line per seed.", curves))
    return charts


def row_chart(results: AblationResults, rows: Sequence[RowResult], split: SplitFacts) -> "Figure":
    """Foreground mIoU of rows: a dot per seed, a mark at the mean, a bar of one standard deviation to either side.

    Args:
        results: of the ablation.
        rows: from top to bottom; the mean of a baseline is drawn through all of them.
        split: that was measured.
    """
    figure, axes = new_axes(7.2, 0.9 + 0.42 * len(rows))
    baselines = {row.baseline for row in rows}
    for place, row in enumerate(rows):
        values = list(results.by_seed(row.name, split.name, HEADLINE).values())
        found = spread(values)
        if found is None:
            continue
        color = _COLORS[1] if row.name in baselines else _COLORS[0]
        axes.errorbar(
            found.mean, place, xerr=found.deviation, fmt="D", color=color, markersize=6, capsize=4, elinewidth=1.6
        )
        axes.plot(values, [place + 0.24] * len(values), "o", color=color, markersize=4, alpha=0.6, markeredgewidth=0)
        if row.name in baselines:
            axes.axvline(found.mean, color=color, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [two_line_label(row.label) for row in rows], color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _widen(axes)
    axes.set_xlabel(f"{metric_name(HEADLINE)} on {plain_text(split.name)}, %", color=INK)
    return figure


def overview_chart(results: AblationResults, parts: Sequence[Section], split: SplitFacts) -> "Figure":
    """Mean mIoU of every row without background and with it, section by section, and a line at the baseline of each.

    Args:
        results: of the ablation.
        parts: sections from top to bottom; a baseline is a row of its own where it belongs, a line elsewhere.
        split: that was measured.
    """
    lines: list[tuple[RowResult | None, str]] = []
    marks: list[tuple[str, float, float]] = []
    for section in parts:
        own = [row for row in section.rows if row.section == section.title]
        lines.append((None, section.title))
        marks += [
            (name, len(lines) - 0.5, len(lines) + len(own) - 0.5) for name in {row.baseline for row in own} if name
        ]
        lines += [(row, row.label) for row in own]
    metrics = [metric for metric in (HEADLINE, WITH_BACKGROUND) if metric in results.metrics(split.name)]
    labels = [two_line_label(text) for _, text in lines]
    line_height = 0.33 if any("\n" in label for label in labels) else 0.24
    figure, panels = new_panels(7.2, 0.9 + line_height * len(lines), max(1, len(metrics)))
    for axes, metric in zip(panels, metrics, strict=False):
        for name, top, bottom in marks:
            found = over_seeds(results, name, split, metric)
            if found is not None:
                axes.plot([found.mean] * 2, [top, bottom], color=_COLORS[1], linestyle="--", linewidth=1)
        for place, (row, _) in enumerate(lines):
            if row is None or (found := over_seeds(results, row.name, split, metric)) is None:
                continue
            color = _COLORS[1] if row.name == row.baseline else _COLORS[0]
            axes.errorbar(found.mean, place, xerr=found.deviation, fmt="D", color=color, markersize=5, capsize=3)
        _widen(axes)
        axes.set_xlabel(f"{metric_name(metric)}, %", color=INK)
    axes = panels[0]
    axes.set_yticks(range(len(lines)), labels, color=INK)
    for (row, _), tick in zip(lines, axes.get_yticklabels(), strict=True):
        tick.set_fontsize(9)
        tick.set_fontweight("bold" if row is None else "normal")
    axes.set_ylim(len(lines) - 0.5, -0.5)
    return figure


def section_curves(results: AblationResults, rows: Sequence[RowResult]) -> "Figure":
    """Foreground mIoU on validation images over the steps: a colour per row, a line per seed.

    Args:
        results: of the ablation.
        rows: of a section; baselines are orange and dashed.
    """
    figure, axes = new_axes(7.2, 2.4 + 0.2 * len(rows))
    baselines = {row.baseline for row in rows}
    others = _COLORS[:1] + _COLORS[2:]
    # Solid lines first: a page rarely has more rows in a section than there are colours.
    styles = cycle([(color, line, marker) for marker in "os^" for line in ("-", ":") for color in others])
    for row in rows:
        color, line, marker = (_COLORS[1], "--", "o") if row.name in baselines else next(styles)
        label: str | None = two_line_label(row.label)
        for run in results.finished(row.name):
            points = _points(run.curve.val, HEADLINE)
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, values, line, marker=marker, color=color, label=label, markersize=3, linewidth=1.4)
            label = None
    axes.set_xlabel("training step", color=INK)
    axes.set_ylabel("validation mIoU, %", color=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    add_legend(axes, columns=2)
    return figure


def run_curves(runs: Sequence[RunResult]) -> tuple["Figure", "Figure"]:
    """Loss, and foreground mIoU on validation images, over the steps of a row; a line per seed.

    Args:
        runs: of one row.
    """
    loss, miou = new_axes(4.4, 2.6), new_axes(4.4, 2.6)
    for index, run in enumerate(runs):
        color = _COLORS[index % len(_COLORS)]
        for (_, axes), records, name in ((loss, run.curve.train, "loss"), (miou, run.curve.val, HEADLINE)):
            points = _points(records, name)
            points = points[:: len(points) // _MAX_POINTS + 1]
            if points:
                steps, values = zip(*points, strict=True)
                marker = "o" if len(points) < 12 else ""
                axes.plot(steps, values, color=color, label=f"seed {run.seed}", marker=marker, markersize=3)
    for (_, axes), label in ((loss, "loss"), (miou, "validation mIoU, %")):
        axes.set_xlabel("training step", color=INK)
        axes.set_ylabel(label, color=INK)
        axes.set_xlim(left=0)
        add_legend(axes, columns=4)
    miou[1].set_ylim(bottom=0)
    return loss[0], miou[0]


def _widen(axes: "Axes") -> None:
    low, high = axes.get_xlim()
    missing = _LEAST_POINTS - (high - low)
    if missing > 0:
        axes.set_xlim(low - missing / 2, high + missing / 2)


def _points(records: Sequence[dict[str, float | None]], name: str) -> list[tuple[float | None, float | None]]:
    """Steps and values where there is a value."""
    return [(record["step"], record[name]) for record in records if record.get(name) is not None]

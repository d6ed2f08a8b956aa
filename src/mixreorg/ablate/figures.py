"""Charts of an ablation: rows against each other, and every run over its steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixreorg.ablate.results import AblationResults, RowResult, RunResult, SplitFacts
from mixreorg.ablate.statistics import spread
from mixreorg.ablate.tables import HEADLINE, metric_name
from mixreorg.charts import INK, add_legend, new_axes, plain_text, two_line_label

if TYPE_CHECKING:
    from mixreorg.charts import Figure

_COLORS = ("#2f7fd6", "#e07b1a", "#2e9e63", "#b0479a", "#8a7d1f", "#5a6acf", "#c2453d", "#3a9aa5")
_MAX_POINTS = 200


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
    axes.set_xlabel(f"{metric_name(HEADLINE)} on {plain_text(split.name)}, %", color=INK)
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
            points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
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

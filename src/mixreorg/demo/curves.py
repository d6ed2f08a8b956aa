"""Curves of a training run as SVG for inlining into a page of any theme."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixreorg.charts import INK, add_legend, new_axes, to_svg
from mixreorg.train.run_log import LogRecord

_LOSS_TERMS = {
    "train/contrastive": ("contrastive", "#2f7fd6"),
    "train/mixed": ("mixed masks", "#e07b1a"),
    "train/restored": ("restored", "#2e9e63"),
}
_MIOU_TERMS = {
    "val/foreground_miou": ("foreground", "#2f7fd6"),
    "val/background_miou": ("with background", "#e07b1a"),
}


@dataclass(frozen=True)
class Curves:
    """Curves over training steps as SVG elements for inlining; their ink is the page's text colour."""

    losses: str
    miou: str


def draw_curves(records: Sequence[LogRecord]) -> Curves:
    """Plot the loss terms and the validation mIoU of a run over its steps.

    Args:
        records: from :func:`~mixreorg.train.run_log.read_log`; measures that a run did not log are left out.

    Raises:
        MixreorgError: matplotlib is not installed.
    """
    return Curves(
        losses=_plot(records, _LOSS_TERMS, "loss", zero_based=False),
        miou=_plot(records, _MIOU_TERMS, "validation mIoU (%)", zero_based=True),
    )


def _plot(records: Sequence[LogRecord], terms: dict[str, tuple[str, str]], y_label: str, *, zero_based: bool) -> str:
    """Draw one set of axes with a line per term, marked where there are few points."""
    figure, axes = new_axes(4.4, 2.9)
    for name, (label, color) in terms.items():
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=color, label=label, marker="o" if len(points) < 12 else "", markersize=3)
    axes.set_xlabel("training step", color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.set_xlim(left=0)
    if zero_based:
        axes.set_ylim(bottom=0)
    add_legend(axes)
    return to_svg(figure, f"{y_label} over training steps")

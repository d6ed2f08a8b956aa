"""Charts of a report as SVG for inlining."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixreorg.charts import INK, new_axes, plain_label, plain_text, to_svg

_BLUE, _ORANGE = "#2f7fd6", "#e07b1a"


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot."""

    label: str
    value: float
    low: float
    high: float
    clear: bool
    """Whether the interval leaves out 0."""


def class_chart(per_class: Sequence[tuple[str, float]]) -> str:
    """Bars of IoU in percent, in the given order from the top; classes without a value are left out."""
    known = [(name, value) for name, value in per_class if value == value]
    figure, axes = new_axes(6.4, 0.6 + 0.2 * len(known))
    places = range(len(known))
    axes.barh(list(places), [value for _, value in known], color=_BLUE, height=0.7)
    axes.set_yticks(list(places), [plain_label(name) for name, _ in known], color=INK, fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_xlim(0, max(5, max((value for _, value in known), default=0) * 1.12))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("IoU (%)", color=INK)
    for place, (_, value) in zip(places, known, strict=True):
        axes.text(value, place, f" {value:.1f}", va="center", color=INK, fontsize=7)
    return to_svg(figure, "IoU by class, best first")


def threshold_chart(curve: Sequence[tuple[float, float]], threshold: float | None) -> str:
    """mIoU in percent over background thresholds, with the one that was used."""
    figure, axes = new_axes(6.4, 3.0)
    axes.plot([value for value, _ in curve], [miou for _, miou in curve], color=_BLUE)
    if threshold is not None:
        axes.axvline(threshold, color=_ORANGE, linewidth=1.2, linestyle="--")
        axes.text(threshold, 1.01, f"used: {threshold:g}", color=INK, fontsize=8, ha="center", va="bottom",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("background threshold", color=INK)
    axes.set_ylabel("mIoU (%)", color=INK)
    return to_svg(figure, "mIoU over background thresholds")


def forest_chart(rows: Sequence[ForestRow], label: str) -> str:
    """Differences with their intervals, one line each from the top; those within noise in grey."""
    figure, axes = new_axes(6.4, 0.9 + 0.32 * len(rows))
    for place, row in enumerate(rows):
        color = _BLUE if row.clear else "#8a8f99"
        axes.plot([row.low, row.high], [place, place], color=color, linewidth=2)
        axes.plot([row.value], [place], color=color, marker="s", markersize=6)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [plain_label(row.label) for row in rows], color=INK, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(plain_text(label), color=INK)
    return to_svg(figure, label)

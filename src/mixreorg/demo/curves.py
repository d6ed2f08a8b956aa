"""Curves of a training run as SVG for inlining into a page of any theme."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Replaced by currentColor in the finished SVG, which matplotlib cannot write: ink follows the page's theme.
_INK = "#010203"
_LOSS_TERMS = {
    "train/contrastive": ("contrastive", "#2f7fd6"),
    "train/mixed": ("mixed masks", "#e07b1a"),
    "train/restored": ("restored", "#2e9e63"),
}
_MIOU_TERMS = {
    "val/foreground_miou": ("foreground", "#2f7fd6"),
    "val/background_miou": ("with background", "#e07b1a"),
}

LogRecord = dict[str, float]
"""One line of a run's ``log.jsonl``: the step and scalars by name."""


@dataclass(frozen=True)
class Curves:
    """Curves over training steps as SVG elements for inlining; their ink is the page's text colour."""

    losses: str
    miou: str


def read_log(path: Path) -> list[LogRecord]:
    """Read a run's ``log.jsonl``.

    Raises:
        MixreorgError: missing, unreadable or damaged.
    """
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MixreorgError(f"{path} is not a training log ({error}); resume the run, which mends its end") from error
    if not all(isinstance(record, dict) and "step" in record for record in records):
        raise MixreorgError(f"{path} is not a training log: every line must hold a step and scalars")
    return records


def draw_curves(records: Sequence[LogRecord]) -> Curves:
    """Plot the loss terms and the validation mIoU of a run over its steps.

    Args:
        records: from :func:`read_log`; measures that a run did not log are left out.

    Raises:
        MixreorgError: matplotlib is not installed.
    """
    return Curves(
        losses=_plot(records, _LOSS_TERMS, "loss", zero_based=False),
        miou=_plot(records, _MIOU_TERMS, "validation mIoU (%)", zero_based=True),
    )


def _plot(records: Sequence[LogRecord], terms: dict[str, tuple[str, str]], y_label: str, *, zero_based: bool) -> str:
    """Draw one set of axes with a line per term, marked where there are few points."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MixreorgError("curves need the training extra: pip install 'mixreorg[train]'") from error
    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for name, (label, color) in terms.items():
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=color, label=label, marker="o" if len(points) < 12 else "", markersize=3)
    axes.set_xlabel("training step", color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.set_xlim(left=0)
    if zero_based:
        axes.set_ylim(bottom=0)
    axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
    axes.tick_params(colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    if axes.lines:
        # Above the axes, where no line can run through it.
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
            labelcolor=_INK,
            fontsize=9,
            handlelength=1.2,
            columnspacing=1.2,
        )
    return _to_svg(figure, f"{y_label} over training steps")


def _to_svg(figure: "Figure", title: str) -> str:
    """Write a figure as one ``svg`` element: text stays text, ink follows the page, width is the page's."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    # Two figures on one page would repeat the names of their parts, which nothing refers to.
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    return f'{opening} role="img" aria-label="{title}">{rest}'

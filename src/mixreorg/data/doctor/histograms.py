"""Bins that suit what is counted, and their picture as SVG for inlining into a page of any theme."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from mixreorg.data.doctor.statistics import Distribution


class Histogram(NamedTuple):
    """Counts of values in bins."""

    starts: tuple[float, ...]
    """Lower end of each bin; it reaches to the next one, and the last one has no upper end."""
    counts: tuple[int, ...]


class Scale(NamedTuple):
    """How a measure is shown."""

    unit: float
    """What one step of the counted whole numbers is worth."""
    edges: tuple[int, ...]
    """Lower ends of the bins, in those steps."""


SCALES: dict[str, Scale] = {
    "num_words": Scale(1, (*range(20), *range(20, 60, 5), 60, 80, 100)),
    "num_tokens": Scale(1, (*range(2, 77, 5), 77, 78, 100, 150, 200)),
    "short_side": Scale(1, (1, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 2048)),
    "aspect": Scale(0.01, (100, 110, 120, 130, 140, 150, 160, 180, 200, 250, 300, 400, 500, 1000)),
    "kilobytes": Scale(1, (0, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)),
}
"""By name of the measure."""

_WIDTH, _HEIGHT = 440, 170
_LEFT, _BOTTOM, _TOP = 8, 24, 18
_LABELS_AT_MOST = 9


def histogram(name: str, distribution: Distribution) -> Histogram:
    """Bin a measure; empty bins at both ends are left out."""
    scale = SCALES[name]
    counts = distribution.bins(list(scale.edges))
    filled = [place for place, count in enumerate(counts) if count] or [0]
    kept = slice(filled[0], filled[-1] + 1)
    return Histogram(tuple(edge * scale.unit for edge in scale.edges[kept]), tuple(counts[kept]))


def draw(bins: Histogram, title: str) -> str:
    """An ``svg`` element: one bar per bin with its lower end beneath, its count and share as a tooltip.

    Args:
        bins: at least one.
        title: what is counted, for readers who cannot see it.
    """
    total, most = max(sum(bins.counts), 1), max(*bins.counts, 1)
    step = (_WIDTH - 2 * _LEFT) / len(bins.counts)
    floor = _HEIGHT - _BOTTOM
    every = -(-len(bins.counts) // _LABELS_AT_MOST)
    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{floor}" y2="{floor}" class="axis"/>']
    for place, (start, count) in enumerate(zip(bins.starts, bins.counts, strict=True)):
        left = _LEFT + place * step
        height = max((floor - _TOP) * count / most, 1 if count else 0)
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{floor - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}">'
            f"<title>{_range(bins.starts, place)}: {count:,} ({count / total:.1%})</title></rect>"
        )
        if place % every == 0:
            parts.append(f'<text x="{left + step / 2:.1f}" y="{_HEIGHT - 8}">{start:g}</text>')
    peak = bins.counts.index(max(bins.counts))
    parts.append(f'<text x="{_LEFT + (peak + 0.5) * step:.1f}" y="{_TOP - 6}">{max(bins.counts) / total:.0%}</text>')
    label = escape(f"Histogram of {title}")
    body = "".join(parts)
    return f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{body}</svg>'


def _range(starts: Sequence[float], place: int) -> str:
    if place + 1 == len(starts):
        return f"{starts[place]:g} and more"
    return f"{starts[place]:g} to below {starts[place + 1]:g}"

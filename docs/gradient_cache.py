"""The picture of memory and time by chunk, drawn from the results of ``benchmarks/gradient_cache.py``."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"GroupViT": "#2f7fd6", "MixReorg": "#e07b1a"}
INK, SOFT = "#1c232b", "#4a525c"


def draw_gradient_cache(results: dict[str, Any]) -> Figure:
    """Memory over the size of a chunk, one curve per method and choice of checkpointing, labelled with the time."""
    figure = Figure(figsize=(7.2, 4.6), facecolor="white", layout="constrained")
    axes = figure.subplots()
    share = int(results["share"])
    for method, colour in COLOURS.items():
        for checkpointing in (False, True):
            rows = [row for row in results["rows"] if (row["method"], row["checkpointing"]) == (method, checkpointing)]
            rows.sort(key=lambda row: row["chunk"] or share)
            sizes = [row["chunk"] or share for row in rows]
            memory = [row["tensors"] / 1e6 for row in rows]
            label = f"{method}, checkpointing" if checkpointing else method
            style = "--" if checkpointing else "-"
            axes.plot(sizes, memory, style, color=colour, marker="o", markersize=4.5, linewidth=1.6, label=label)
            for size, value, row in zip(sizes, memory, rows, strict=True):
                _label(axes, size, value, row["time_ratio"], is_below=checkpointing)
    ticks = sorted({row["chunk"] or share for row in results["rows"]})
    _dress(axes, ticks, results)
    return figure


def _label(axes: Axes, size: int, memory: float, ratio: float, *, is_below: bool) -> None:
    """The time of a step over that of the whole share, above or below its point."""
    axes.annotate(
        f"{ratio:.2f}×",
        (size, memory),
        xytext=(0, -7 if is_below else 6),
        textcoords="offset points",
        ha="center",
        va="top" if is_below else "bottom",
        color=SOFT,
        fontsize=8,
    )


def _dress(axes: Axes, ticks: list[int], results: dict[str, Any]) -> None:
    """Axes, grid, legend."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [*map(str, ticks[:-1]), f"{ticks[-1]}, whole share"])
    bottom, top = axes.get_ylim()
    levels = [level for level in (25, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if bottom <= level <= top]
    axes.set_yticks(levels, [f"{level:,}" for level in levels])
    axes.minorticks_off()
    axes.margins(x=0.08, y=0.1)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT, length=3)
    axes.set_xlabel("images per chunk (engine.chunk)", color=INK)
    axes.set_ylabel("MB beyond weights, gradients, moments", color=INK)
    title = f"ViT-S/16, {results['side']} px, fp32; labels: time of a step over that of the whole share"
    axes.set_title(title, color=INK, fontsize=10, loc="left")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper left")

"""Axes that suit a page of any theme, and their figures as SVG for inlining or as PNG."""

import io
import re
import textwrap
import warnings
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

INK = "#010203"
"""Replaced by currentColor in the finished SVG, which matplotlib cannot write: ink follows the page's theme."""
_LABEL_LENGTH = 44


def figure_class() -> type["Figure"]:
    """Matplotlib's class of figures; to be called before long work that ends in a figure.

    Raises:
        MixreorgError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MixreorgError("curves need matplotlib: pip install 'mixreorg[train]' or 'mixreorg[eval]'") from error
    return Figure


def new_axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Empty axes without a frame.

    Args:
        width: of the figure in inches, of which a page makes its own width.
        height: in inches.

    Raises:
        MixreorgError: matplotlib is not installed.
    """
    figure, (axes,) = new_panels(width, height, 1)
    return figure, axes


def new_panels(width: float, height: float, count: int) -> tuple["Figure", list["Axes"]]:
    """As :func:`new_axes`, several side by side that share what stands on the left."""
    figure = figure_class()(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.grid(color=INK, alpha=0.15, linewidth=0.6)
        axes.tick_params(colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
    return figure, panels


def add_legend(axes: "Axes", columns: int = 3) -> None:
    """A legend above the axes, where no line can run through it; none without labelled lines."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            labelcolor=INK,
            fontsize=9,
            handlelength=1.2,
            columnspacing=1.2,
        )


def plain_text(text: str) -> str:
    """Text of a user that matplotlib then shows as it is: dollar signs would make it mathematics, or an error."""
    return text.replace("$", r"\$")


def plain_label(name: str) -> str:
    """The label of a row beside the axes, from a name that a user gave: short enough to leave them room."""
    return plain_text(name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…")


def two_line_label(name: str) -> str:
    """The label of a row that is high enough for two lines: two shorter ones where it is too long for one."""
    if len(name) <= _LABEL_LENGTH:
        return plain_label(name)
    return plain_text("\n".join(textwrap.wrap(name, _LABEL_LENGTH - 8, max_lines=2, placeholder="…")))


def to_svg(figure: "Figure", title: str) -> str:
    """Write a figure as one ``svg`` element: text stays text, ink follows the page, width is the page's.

    Args:
        figure: drawn in :data:`INK`.
        title: what it shows, for those who cannot see it.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own; matplotlib only measures it.
        for message in (r"Glyph \d+ .*missing from", "Matplotlib currently does not support"):
            warnings.filterwarnings("ignore", message, UserWarning)
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    # Two figures on one page would repeat the names of their parts, which nothing refers to.
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    return f'{opening} role="img" aria-label="{escape(title)}">{rest}'


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG on white, of the same bytes for the same figure."""
    write_atomically(
        path,
        lambda temporary: figure.savefig(
            temporary, dpi=150, facecolor="white", metadata={"Software": None}, pil_kwargs={"optimize": True}
        ),
    )

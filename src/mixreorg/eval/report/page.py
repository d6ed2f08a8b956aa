"""A report as one HTML file with charts and photos inside."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from mixreorg.eval.confusion import IntArray
from mixreorg.eval.report import words
from mixreorg.eval.report.diagrams import class_chart, threshold_chart
from mixreorg.eval.report.markdown import CURVE_NOTE, PUBLISHED_NOTE
from mixreorg.html_page import html_page
from mixreorg.palette import class_colors, hex_color
from mixreorg.segment.drawing import draw_overlay

_SIDE = 320


@dataclass(frozen=True, eq=False)
class LabelledPhoto:
    """A photo to show."""

    stem: str
    miou: float
    """Of this photo alone, in percent."""
    photo: Image.Image
    prediction: IntArray
    """``[H, W]`` labels."""
    truth: IntArray
    """``[H, W]`` labels, negative where nothing counts."""


def write_html(facts: dict[str, Any], best: Sequence[LabelledPhoto], worst: Sequence[LabelledPhoto]) -> str:
    """The report of one evaluation.

    Args:
        facts: from :func:`~mixreorg.eval.report.facts.build_facts`.
        best: photos of the highest mIoU.
        worst: of the lowest.

    Raises:
        MixreorgError: matplotlib is not installed.
    """
    title = escape(f"{facts['model']['name']} on {facts['split']}")
    names, has_background = facts["label_names"], facts["protocol"]["threshold_rule"] != "none"
    order = [(name, facts["per_class_iou"][name]) for name, _ in words.class_rows(facts)]
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="headline">{escape(words.headline(facts))}</p>',
        *(f'<p class="caveat">{escape(line)}.</p>' for line in words.caveats(facts)),
        f"<p>{escape(words.protocol_line(facts))}.<br>{escape(words.cost_line(facts))}.</p>",
        "<h2>Measures</h2>" + html_table(("measure", "%", "meaning"), words.measure_rows(facts)),
        f"<h2>IoU by class</h2><figure>{class_chart(order)}</figure>",
        _errors(facts),
        _curve(facts),
        _published(facts),
        _photos("Best photos", best, names, has_background),
        _photos("Worst photos", worst, names, has_background),
    ]
    style = files("mixreorg.eval.report").joinpath("page.css").read_text(encoding="utf-8")
    return html_page(title, style, "\n".join(section for section in sections if section))


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], mark: str | None = None) -> str:
    """A table of plain text; rows whose first cell is ``mark`` stand out."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(_row(row, stands_out=row[0] == mark) for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _row(cells: Sequence[str], *, stands_out: bool) -> str:
    opening = '<tr class="mine">' if stands_out else "<tr>"
    return opening + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _errors(facts: dict[str, Any]) -> str:
    rows = words.pair_rows(facts)
    if not rows:
        return ""
    return "<h2>Commonest errors</h2>" + html_table(("truth", "taken for", "% of the truth"), rows)


def _curve(facts: dict[str, Any]) -> str:
    if not facts["threshold_curve"]:
        return ""
    chart = threshold_chart(facts["threshold_curve"], facts["protocol"]["threshold"])
    return f'<h2>Background thresholds</h2><figure>{chart}</figure><p class="note">{CURVE_NOTE}</p>'


def _published(facts: dict[str, Any]) -> str:
    if not facts["published"]:
        return ""
    header = ("system", "training data", "mIoU %", "protocol", "source")
    rows = html_table(header, words.published_rows(facts), mark="this result")
    return f'<h2>Published numbers</h2><p class="note">{PUBLISHED_NOTE}</p>{rows}'


def _photos(title: str, photos: Sequence[LabelledPhoto], names: Sequence[str], has_background: bool) -> str:
    if not photos:
        return ""
    figures = "\n".join(_figure(photo, names, has_background) for photo in photos)
    return f'<h2>{title}</h2><div class="photos">\n{figures}\n</div>'


def _figure(item: LabelledPhoto, names: Sequence[str], has_background: bool) -> str:
    # Grey after the last class: pixels that do not count.
    colors = (*class_colors(len(names), has_background=has_background), (128, 128, 128))
    clear = 0 if has_background else None
    truth = np.where(item.truth < 0, len(names), item.truth)
    drawn = {
        "photo": item.photo,
        "prediction": draw_overlay(item.photo, item.prediction, colors, clear_index=clear, max_side=_SIDE),
        "truth": draw_overlay(item.photo, truth, colors, clear_index=clear, max_side=_SIDE),
    }
    pictures = "".join(
        f'<div><span>{label}</span><img src="{_jpeg_uri(picture)}" alt="{label} of {escape(item.stem)}"></div>'
        for label, picture in drawn.items()
    )
    used = sorted({*np.unique(item.prediction).tolist(), *np.unique(item.truth[item.truth >= 0]).tolist()})
    legend = "".join(
        f'<li><span class="swatch" style="background:{hex_color(colors[label])}"></span>{escape(names[label])}</li>'
        for label in used
        if label != clear
    )
    return (
        f"<figure><figcaption>{escape(item.stem)}: mIoU {words.number(item.miou)}</figcaption>"
        f'<div class="triple">{pictures}</div><ul class="legend">{legend}</ul></figure>'
    )


def _jpeg_uri(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

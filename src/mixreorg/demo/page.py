"""The demonstration's page: one HTML file with its pictures inside, no scripts, nothing loaded from elsewhere."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from PIL import Image

from mixreorg.demo.curves import Curves
from mixreorg.demo.pictures import MixingRow, SegmentationRow
from mixreorg.files import write_text
from mixreorg.html_page import html_page
from mixreorg.palette import Color, hex_color


@dataclass(frozen=True)
class Scores:
    """mIoU in percent on the test split; None where a measure is not defined."""

    foreground: float
    background: float | None = None
    """At the threshold chosen on the validation split."""
    present: float | None = None


@dataclass(frozen=True)
class Command:
    """A command line for the reader to run."""

    purpose: str
    line: str


@dataclass(frozen=True)
class DemoReport:
    """The facts of one demonstration."""

    seconds: float
    """Of the whole run, data included."""
    recipe: str
    class_names: tuple[str, ...]
    """The C classes asked for."""
    captions: tuple[str, ...]
    """A few captions of the training pairs, as examples."""
    num_pairs: int
    """Training pairs."""
    image_size: int
    """Side of the scenes in pixels."""
    num_parameters: int
    steps: int
    batch_size: int
    group_size: int
    """K, images mixed together."""
    parts: str
    """One sentence: which parts of the method the recipe uses."""
    num_test_scenes: int
    trained: Scores
    untrained: Scores
    """Of the same model with its initial weights."""
    chance: Scores
    threshold: float
    """Background threshold, chosen on the validation split."""
    is_best_checkpoint: bool
    """Whether the checkpoint was chosen by its mIoU on the validation split; it is the last one otherwise."""
    mixed_mask_accuracy: float
    """Share of mixed patches whose source was found, 0 to 1."""
    commands: tuple[Command, ...]


def write_page(
    path: Path,
    report: DemoReport,
    *,
    curves: Curves,
    mixing: Sequence[Sequence[MixingRow]],
    segmentation: Sequence[SegmentationRow],
) -> None:
    """Write the page.

    Args:
        path: the HTML file, replaced whole.
        report: figures and names; texts are escaped, so they may hold anything.
        curves: from ``draw_curves``.
        mixing: groups from ``mixing_groups``.
        segmentation: from ``segmentation_rows``, of scenes picked without regard to their results.

    Raises:
        MixreorgError: the file cannot be written.
    """
    body = "\n".join(
        (
            _introduction(report),
            _figures(report),
            _table(report),
            _curves(curves),
            _segmentation(segmentation, report),
            _mixing(mixing),
            _commands(report.commands),
            _CREDIT,
        )
    )
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    write_text(path, html_page("MixReorg demo: segmentation learned from captions", style, body))


def _introduction(report: DemoReport) -> str:
    quoted = [f"<q>{escape(caption)}</q>" for caption in report.captions[:2]]
    examples = f", such as {' and '.join(quoted)}" if quoted else ""
    chosen = "the checkpoint and the background threshold" if report.is_best_checkpoint else "the background threshold"
    return f"""<header>
<h1>Segmentation learned from captions</h1>
<p>A MixReorg model of {report.num_parameters / 1e6:.2f} million parameters (recipe
<code>{escape(report.recipe)}</code>) started from random weights and trained for {report.steps:,} steps of
{report.batch_size} images. {escape(report.parts)} Its only training data were {report.num_pairs:,} scenes of
{report.image_size} × {report.image_size} pixels, each with one caption{examples}: no masks, no boxes, no class
labels. Then it labelled the pixels of {report.num_test_scenes:,} unseen scenes with {len(report.class_names)} class
names, zero-shot. The scenes are made from OpenMoji drawings, so their exact masks are known. Training never used
these masks: those of the validation split chose {chosen}, and those of the test split gave the figures below.</p>
</header>"""


def _figures(report: DemoReport) -> str:
    trained, untrained, chance = report.trained, report.untrained, report.chance
    tiles = (
        (
            "foreground mIoU",
            f"{_number(trained.foreground)} %",
            f"untrained {_number(untrained.foreground)} %, chance {_number(chance.foreground)} %",
        ),
        ("mIoU with background", f"{_number(trained.background)} %", f"untrained {_number(untrained.background)} %"),
        (
            "mixed-mask accuracy",
            f"{_number(100 * report.mixed_mask_accuracy)} %",
            f"chance {_number(100 / report.group_size)} %",
        ),
        ("from nothing to this page", _duration(report.seconds), "making the scenes included"),
    )
    items = "\n".join(
        f"<div><dt>{name}</dt><dd class='value'>{value}</dd><dd class='note'>{note}</dd></div>"
        for name, value, note in tiles
    )
    return f'<section aria-label="Headline figures">\n<dl class="tiles">\n{items}\n</dl>\n</section>'


def _table(report: DemoReport) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{_number(value)}</td>" for value in (scores.foreground, scores.background, scores.present))
        + "</tr>"
        for name, scores in (
            ("trained model", report.trained),
            ("untrained model", report.untrained),
            ("chance", report.chance),
        )
    )
    names = ", ".join(escape(name) for name in report.class_names)
    return f"""<section>
<h2>Measured on {report.num_test_scenes:,} unseen scenes</h2>
<table>
<thead><tr><th scope="col">mIoU in %</th><th scope="col">foreground</th><th scope="col">with background</th>
<th scope="col">present classes</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<dl class="notes">
<dt>foreground</dt><dd>Pixels of the background are left out; the others take one of all class names.</dd>
<dt>with background</dt><dd>All pixels count; those whose best score is below {report.threshold:g} become
background.</dd>
<dt>present classes</dt><dd>As foreground, but each scene offers only the names of the classes in it: where things
are, not what they are.</dd>
<dt>untrained model</dt><dd>The same model with its random initial weights.</dd>
<dt>chance</dt><dd>To be expected of one class per scene, drawn at random; a dash where there is no such value.</dd>
</dl>
<p class="note">Classes: {names}.</p>
</section>"""


def _curves(curves: Curves) -> str:
    return f"""<section>
<h2>Training</h2>
<div class="curves">
<figure>{curves.losses}
<figcaption>Loss terms before weighting, each of a single batch: images (and restored images, where the recipe uses
them) against captions, and the mixed masks from the step at which they join.
</figcaption></figure>
<figure>{curves.miou}
<figcaption>mIoU on scenes of the validation split, background at its best threshold at each point.
</figcaption></figure>
</div>
</section>"""


def _segmentation(rows: Sequence[SegmentationRow], report: DemoReport) -> str:
    figures = "\n".join(_segmentation_figure(row) for row in rows)
    return f"""<section>
<h2>{len(rows)} test scenes</h2>
<p>Picked at equal distances from the test split, whatever the result.</p>
<dl class="notes">
<dt>photo</dt><dd>The scene as the model sees it.</dd>
<dt>groups</dt><dd>The segments that the grouping blocks form, before any class name is used; a segment's colour has
no meaning.</dd>
<dt>prediction</dt><dd>The class of each pixel, out of all {len(report.class_names)} names; what stays
grey is background (threshold {report.threshold:g}).</dd>
<dt>truth</dt><dd>The true mask, in the same colours.</dd>
</dl>
<div class="scenes">
{figures}
</div>
</section>"""


def _segmentation_figure(row: SegmentationRow) -> str:
    pictures = _pictures(
        (("photo", row.photo), ("groups", row.groups), ("prediction", row.prediction), ("truth", row.truth)),
        f"scene {row.stem}",
    )
    entries = []
    for item in row.legend:
        remark = "" if item.is_true and item.is_predicted else " (missed)" if item.is_true else " (not in truth)"
        entries.append(f"<li>{_swatch(item.color)}{escape(item.name)}{remark}</li>")
    return (
        f'<figure>\n<div class="pictures four">\n{pictures}\n</div>\n'
        f'<figcaption><ul class="legend">{"".join(entries)}</ul></figcaption>\n</figure>'
    )


def _mixing(groups: Sequence[Sequence[MixingRow]]) -> str:
    sections = "\n".join(
        f"<h3>Group {number}</h3>\n" + "\n".join(_mixing_figure(row) for row in rows)
        for number, rows in enumerate(groups, start=1)
    )
    return f"""<section>
<h2>How the captions become masks: mixing</h2>
<p>In training, the patches of a group of images are shuffled among them, so that it is known for every patch of a
mixed image which image, and so which caption, it belongs to. Each image of a group has a colour here.</p>
<dl class="notes">
<dt>original</dt><dd>An image of the group, framed in its colour.</dd>
<dt>mixed</dt><dd>At every place the patches of one image of the group; the frames tell which. (The model mixes patch
tokens; the same source index mixes the pixels here.)</dd>
<dt>source mask</dt><dd>The truth: which image each patch comes from.</dd>
<dt>predicted mask</dt><dd>Which image's caption the model finds most probable for each patch.</dd>
<dt>restored</dt><dd>The mixed patches put back by the same source index: the original again, bit for bit.</dd>
</dl>
{sections}
</section>"""


def _mixing_figure(row: MixingRow) -> str:
    pictures = _pictures(
        (
            ("original", row.original),
            ("mixed", row.mixed),
            ("source mask", row.source_mask),
            ("predicted mask", row.predicted_mask),
            ("restored", row.restored),
        ),
        row.caption,
    )
    return (
        f'<figure class="mixing">\n<figcaption>{_swatch(row.color)}<q>{escape(row.caption)}</q>'
        f'<span class="note">{_number(100 * row.accuracy, 0)} % of the mixed image\'s patches right</span>'
        f'</figcaption>\n<div class="pictures five">\n{pictures}\n</div>\n</figure>'
    )


def _commands(commands: Sequence[Command]) -> str:
    if not commands:
        return ""
    items = "\n".join(
        f"<p>{escape(command.purpose)}</p>\n<pre><code>{escape(command.line)}</code></pre>" for command in commands
    )
    return f"<section>\n<h2>Run it again</h2>\n{items}\n</section>"


def _pictures(labelled: Sequence[tuple[str, Image.Image]], subject: str) -> str:
    return "\n".join(
        f'<div><span class="label">{label}</span>'
        f'<img src="{_data_uri(picture)}" width="{picture.width}" height="{picture.height}" '
        f'alt="{label}: {escape(subject)}"></div>'
        for label, picture in labelled
    )


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _swatch(color: Color) -> str:
    return f'<span class="swatch" style="background:{hex_color(color)}"></span>'


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_CREDIT = """<footer>
<p>The objects in the scenes are <a href="https://openmoji.org">OpenMoji</a> drawings, turned, scaled and recoloured.
All emojis designed by OpenMoji, the open-source emoji and icon project. Licence:
<a href="https://creativecommons.org/licenses/by-sa/4.0/">CC BY-SA 4.0</a>; the scenes on this page are adaptations
under the same licence.</p>
<p>MixReorg: Cai et al., ICCV 2023 (arXiv 2308.04829). GroupViT: Xu et al., CVPR 2022 (arXiv 2202.11094).</p>
</footer>"""

"""The picture of an explanation: panels of the groups and names, a table of scores, the shortlist."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from mixreorg.palette import Color
from mixreorg.segment.drawing import INK, PAPER, draw_overlay, draw_text, percent, text_width
from mixreorg.segment.explain import Explanation, Group

_WIDTH = 1360
_MARGIN = 16
_PANEL = 320
_TITLE, _TEXT, _SMALL = 22, 17, 15
_ROW = 50
_LINE = 26
_SOFT: Color = (96, 104, 114)
_FAINT: Color = (232, 235, 239)
_OTHER: Color = (150, 158, 168)
_FRAME: Color = (220, 38, 38)
_MAX_GROUPS = 16
_MAX_NAMES = 8
_MIN_TAGGED = 0.01
# Left edges of the table's columns: area, name, bars, margin, remark.
_COLUMNS = (64, 256, 470, 850, 960)
_BAR = 190


def draw_explanation(explanation: Explanation, title: str = "") -> Image.Image:
    """Draw an explanation, 1,360 px wide.

    From above: the window, the groups of both stages (those of the first in shades of the one they belong to) and
    the names; then the score of the best name and of the runner-up for each group; then what the shortlist kept and
    removed. At most 16 groups and 8 names of each kind are listed, the others are counted.

    Args:
        explanation: from :func:`~mixreorg.segment.explain.explain`.
        title: what the picture calls the photo.
    """
    parts = [_heading(explanation, title), _panels(explanation), _table(explanation), _shortlist(explanation)]
    canvas = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _MARGIN), PAPER)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return canvas


def shade_first_stage(explanation: Explanation) -> npt.NDArray[np.uint8]:
    """Colours ``[S1, 3]`` of the first stage's groups: shades of the second stage's group that each belongs to."""
    parents = explanation.merges.argmax(axis=0)
    shades = np.zeros((len(parents), 3), dtype=np.uint8)
    for parent, color in enumerate(explanation.group_colors):
        members = [index for index in explanation.first_stage if parents[index] == parent]
        lightness = np.linspace(-0.45, 0.6, len(members)) if len(members) > 1 else np.zeros(1)
        for index, light in zip(members, lightness.tolist(), strict=False):
            towards = 255 if light > 0 else 0
            shades[index] = [round(channel + abs(light) * (towards - channel)) for channel in color]
    return shades


def group_panels(explanation: Explanation, side: int = _PANEL) -> list[tuple[str, Image.Image]]:
    """Titled pictures: the photo with the window, groups of the first and of the second stage, names.

    Args:
        explanation: what to draw.
        side: the longer side of each picture in pixels, at most.
    """
    photo = _fit(explanation.window.picture, side)
    pale = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", photo.size, PAPER), 0.3)
    first, second = _resize(explanation.first_map, photo), _resize(explanation.segment_map, photo)
    names = explanation.labels[second]
    clear = 0 if explanation.protocol.background_threshold is not None else None
    first_colors = [tuple(color) for color in shade_first_stage(explanation).tolist()]
    panels = [
        draw_overlay(pale, first, first_colors, opacity=0.75, min_side=0),
        draw_overlay(pale, second, explanation.group_colors, opacity=0.75, min_side=0),
        draw_overlay(pale, names, explanation.name_colors, clear_index=clear, opacity=0.75, min_side=0),
    ]
    for group in explanation.groups:
        _tag(panels[1], second == group.index, group.letter)
    for label in np.unique(names).tolist():
        _tag(panels[2], names == label, explanation.names[label])
    used, num_first = len(explanation.first_stage), explanation.merges.shape[1]
    titles = (
        "photo" if explanation.window.number is None else "photo, window framed",
        f"stage 1: {used} of {num_first} groups in use",
        f"stage 2: {len(explanation.groups)} of {len(explanation.labels)} groups in use",
        "names",
    )
    return list(zip(titles, (_draw_window(explanation, side), *panels), strict=True))


def _heading(explanation: Explanation, title: str) -> Image.Image:
    part = Image.new("RGB", (_WIDTH, 76), PAPER)
    draw = ImageDraw.Draw(part)
    draw_text(draw, (_MARGIN, 26), f"Why each pixel of {title or 'the photo'} got its name", _TITLE, _WIDTH - 32)
    draw_text(draw, (_MARGIN, 56), f"Explained: {explanation.window.describe()}.", _SMALL, _WIDTH - 32, _SOFT)
    return part


def _panels(explanation: Explanation) -> Image.Image:
    panels = group_panels(explanation)
    height = max(picture.height for _, picture in panels)
    part = Image.new("RGB", (_WIDTH, height + 2 * _LINE + 14), PAPER)
    draw = ImageDraw.Draw(part)
    step = (_WIDTH - 2 * _MARGIN - _PANEL) / (len(panels) - 1)
    for place, (title, picture) in enumerate(panels):
        left = _MARGIN + round(place * step)
        draw_text(draw, (left, _LINE // 2), title, _TEXT, _PANEL)
        part.paste(picture, (left, _LINE))
    note = "Stage 1 is drawn in shades of the stage-2 group that each of its groups belongs to."
    draw_text(draw, (_MARGIN, height + _LINE + 16), note, _SMALL, _WIDTH, _SOFT)
    return part


def _table(explanation: Explanation) -> Image.Image:
    shown = explanation.groups[:_MAX_GROUPS]
    note = _threshold_note(explanation)
    bottom = 70 + len(shown) * _ROW
    part = Image.new("RGB", (_WIDTH, bottom + (_LINE + 8 if note else 0) + 14), PAPER)
    draw = ImageDraw.Draw(part)
    draw_text(draw, (_MARGIN, bottom + 18), note, _SMALL, _WIDTH - 32, _SOFT)
    left_out = len(explanation.groups) - len(shown)
    more = f" (the {left_out} smallest are not listed)" if left_out else ""
    draw_text(draw, (_MARGIN, 20), f"The name that each stage-2 group took{more}", _TITLE - 2, _WIDTH)
    heads = ("group, its area", "name", "score of the best name and of the runner-up, 0 to 1", "margin", "remark")
    for left, head in zip((_MARGIN, *_COLUMNS[1:]), heads, strict=True):
        draw_text(draw, (left, 54), head, _SMALL, _WIDTH - left, _SOFT)
    for place, group in enumerate(shown):
        _table_row(draw, explanation, group, 70 + place * _ROW)
    return part


def _table_row(draw: ImageDraw.ImageDraw, explanation: Explanation, group: Group, top: int) -> None:
    middle = top + _ROW // 2
    draw.line((_MARGIN, top, _WIDTH - _MARGIN, top), fill=_FAINT)
    area, name, bars, margin, remark = _COLUMNS
    _swatch(draw, _MARGIN, middle, explanation.group_colors[group.index], 32)
    tag_left = _MARGIN + 16 - text_width(group.letter, _TEXT) // 2
    draw.rectangle((tag_left - 3, middle - 11, tag_left + text_width(group.letter, _TEXT) + 3, middle + 11), fill=PAPER)
    draw_text(draw, (tag_left, middle), group.letter, _TEXT, 60)
    draw_text(draw, (area, middle - 10), f"{percent(group.area_share)} of the pixels", _SMALL, name - area - 8)
    # With soft assignments a group may live on parts of groups that belong to others more.
    count = len(group.first_stage)
    of_first = f"{count} group{'' if count == 1 else 's'} of stage 1" if count else "parts of stage 1's groups"
    draw_text(draw, (area, middle + 10), of_first, _SMALL, name - area - 8, _SOFT)
    _swatch(draw, name, middle, explanation.name_colors[group.label], 18)
    draw_text(draw, (name + 26, middle), explanation.names[group.label], _TEXT, bars - name - 40)
    for index, shift in zip(group.ranking[:2], (-11, 11), strict=False):
        color = explanation.name_colors[index + explanation.name_offset] if shift < 0 else _OTHER
        score = float(explanation.scores[group.index, index])
        _bar(draw, (bars, middle + shift), score, color)
        label = f"{score:.3f} {explanation.compared[index].name}"
        draw_text(draw, (bars + _BAR + 8, middle + shift), label, _SMALL, margin - bars - _BAR - 16)
    draw_text(draw, (margin, middle), f"{group.margin:.3f}", _TEXT, 100)
    remarks = _remarks(explanation, group)
    for place, text in enumerate(remarks):
        height = middle + 20 * place - 10 * (len(remarks) - 1)
        draw_text(draw, (remark, height), text, _SMALL, _WIDTH - _MARGIN - remark, _SOFT)


def _threshold_note(explanation: Explanation) -> str:
    asked, used = explanation.protocol.background_threshold, explanation.threshold
    if asked is None or used is None:
        return ""
    rule = f", lowered to {used:.3f}, the best score in this window (the published rule)" if used < asked else ""
    return f"Background threshold: {asked:g}{rule}. A group whose best score is below it becomes background."


def _remarks(explanation: Explanation, group: Group) -> list[str]:
    remarks = []
    best = group.ranking[0]
    threshold = explanation.threshold
    if threshold is not None and group.label == 0 and explanation.scores[group.index, best] < threshold:
        remarks.append(f"background: the best score is below {threshold:.3f}")
    if group.removed is not None:
        remarks.append(f"fits '{explanation.compared[group.removed].name}' better, which was removed")
    if group.phrase != explanation.compared[best].name:
        remarks.append(f"by its phrase '{group.phrase}'")
    return remarks


def _shortlist(explanation: Explanation) -> Image.Image:
    order = np.argsort(-explanation.image_logits, kind="stable").tolist()
    kept = [index for index in order if explanation.shortlist[index]]
    removed = list(explanation.removed)
    rows = min(_MAX_NAMES, max(len(kept), len(removed), 1)) + int(max(len(kept), len(removed)) > _MAX_NAMES)
    part = Image.new("RGB", (_WIDTH, 76 + rows * _LINE), PAPER)
    draw = ImageDraw.Draw(part)
    draw_text(draw, (_MARGIN, 20), _shortlist_title(explanation, len(kept), len(order)), _TITLE - 2, _WIDTH - 32)
    cosines = explanation.image_logits / explanation.logit_scale
    low, high = min(0.0, float(cosines.min())), max(1e-6, float(cosines.max()))
    zero = -low / (high - low)
    half = _WIDTH // 2
    for left, head, indices in ((_MARGIN, "kept", kept), (half, "removed", removed)):
        heading = f"{head}: {len(indices)}" + (", cosine of name and window" if indices else "")
        draw_text(draw, (left, 54), heading, _SMALL, half - 32, _SOFT)
        for place, index in enumerate(indices[:_MAX_NAMES]):
            middle = 82 + place * _LINE
            color = explanation.name_colors[index + explanation.name_offset] if head == "kept" else _OTHER
            _swatch(draw, left, middle, color, 14)
            draw_text(draw, (left + 24, middle), explanation.compared[index].name, _TEXT, 210)
            _bar(draw, (left + 240, middle), (float(cosines[index]) - low) / (high - low), color, zero)
            draw_text(draw, (left + 440, middle), f"{cosines[index]:+.3f}", _SMALL, 80)
            _wanted_by(draw, explanation, index, (left + 510, middle))
        if len(indices) > _MAX_NAMES:
            text = f"and {len(indices) - _MAX_NAMES} more that fit less well"
            draw_text(draw, (left + 24, 82 + _MAX_NAMES * _LINE), text, _SMALL, half, _SOFT)
    return part


def _shortlist_title(explanation: Explanation, kept: int, total: int) -> str:
    if explanation.protocol.decoding != "groupvit":
        return f"No shortlist: this protocol lets all {total} names compete"
    if kept == total:
        return f"The shortlist has room for {explanation.protocol.shortlist} names and removed none"
    return f"The shortlist: the {kept} of {total} names that fit the window as a whole best"


def _wanted_by(draw: ImageDraw.ImageDraw, explanation: Explanation, index: int, at: tuple[int, int]) -> None:
    """Name the groups that would have preferred a removed name."""
    letters = [group.letter for group in explanation.groups if group.removed == index]
    if letters:
        draw_text(draw, at, f"best fit of {', '.join(letters)}", _SMALL, _WIDTH // 2 - 510 - _MARGIN, _SOFT)


def _draw_window(explanation: Explanation, side: int) -> Image.Image:
    """The whole photo; where only a window of it is explained, framed, with the rest dimmed."""
    window = explanation.window
    photo = _fit(window.photo, side)
    if window.number is None:
        return photo
    scale = photo.width / window.photo.width, photo.height / window.photo.height
    left, right = (round(edge * scale[0]) for edge in (window.box.left, window.box.right))
    top, bottom = (round(edge * scale[1]) for edge in (window.box.top, window.box.bottom))
    drawn = Image.blend(photo, Image.new("RGB", photo.size, PAPER), 0.65)
    drawn.paste(photo.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=_FRAME, width=3)
    return drawn


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """Enlarge by a whole factor, so that pixels stay square, or reduce, to at most ``side``."""
    longest = max(picture.size)
    if longest <= side:
        factor = side // longest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    scale = side / longest
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _resize(labels: npt.NDArray[np.integer], photo: Image.Image) -> npt.NDArray[np.integer]:
    rows = np.arange(photo.height) * labels.shape[0] // photo.height
    columns = np.arange(photo.width) * labels.shape[1] // photo.width
    resized: npt.NDArray[np.integer] = labels[rows[:, None], columns]
    return resized


def _tag(picture: Image.Image, mask: npt.NDArray[np.bool_], text: str) -> None:
    """Write a text on the thickest part of a region that is large enough for one."""
    if mask.mean() < _MIN_TAGGED:
        return
    x, y = _thickest(mask)
    width = min(text_width(text, _SMALL), picture.width - 8)
    left = min(max(x - width // 2, 4), picture.width - width - 4)
    middle = min(max(y, 12), picture.height - 12)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 4, middle - 11, left + width + 3, middle + 10), fill=PAPER)
    draw_text(draw, (left, middle), text, _SMALL, width)


def _thickest(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Pixel (x, y) of a mask that has most of the mask around it."""
    radius = max(2, round(float(mask.sum()) ** 0.5 / 3))
    padded = Image.fromarray(np.pad(mask, radius).astype(np.uint8) * 255)
    around = np.asarray(padded.filter(ImageFilter.BoxBlur(radius)))[radius:-radius, radius:-radius]
    best = np.argwhere((around == around[mask].max()) & mask)
    # Where many are equal, the one in their middle.
    y, x = best[((best - best.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return x, y


def _swatch(draw: ImageDraw.ImageDraw, left: int, middle: int, color: Color, side: int) -> None:
    draw.rectangle((left, middle - side // 2, left + side - 1, middle + side // 2 - 1), fill=color, outline=INK)


def _bar(draw: ImageDraw.ImageDraw, at: tuple[int, int], share: float, color: Color, zero: float = 0.0) -> None:
    """A bar from ``zero`` to ``share`` of a track's length, both 0 to 1; never too short to be seen."""
    left, middle = at
    ends = sorted((round(zero * _BAR), round(share * _BAR)))
    draw.rectangle((left, middle - 7, left + _BAR, middle + 7), fill=_FAINT)
    draw.rectangle((left + ends[0], middle - 7, left + max(ends[1], ends[0] + 1), middle + 7), fill=color)
    if zero > 0:
        draw.line((left + round(zero * _BAR), middle - 9, left + round(zero * _BAR), middle + 9), fill=INK)

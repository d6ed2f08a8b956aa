"""Pictures for people: overlays with a legend, segment maps and contact sheets."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mixreorg.palette import Color, class_colors

INK: Color = (32, 32, 32)
"""Of text on paper."""
PAPER: Color = (255, 255, 255)
"""Ground of every picture."""
_MAX_LEGEND_ENTRIES = 40
_MAX_ABSENT_NAMES = 3
_MAX_TEXT = 36
# Pillow's built-in font covers Latin scripts. These are asked for by name, where a system has them, for the
# others.
_WIDER_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "msyh.ttc", "seguisym.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend."""

    name: str
    color: Color
    area_share: float
    """Share of the photo, 0 to 1."""


def draw_overlay(
    photo: Image.Image,
    label_map: npt.NDArray[np.integer],
    colors: Sequence[Color],
    *,
    clear_index: int | None = None,
    opacity: float = 0.6,
    min_side: int = 256,
    max_side: int = 2048,
) -> Image.Image:
    """Tint a photo by class, with light lines where classes meet.

    Args:
        photo: RGB, of the label map's size.
        label_map: ``[H, W]`` indices into ``colors``.
        colors: one per index.
        clear_index: the index left untinted (the background), if any.
        opacity: of the tint, 0 to 1.
        min_side: a photo whose long side is at most half of this is enlarged by a whole factor up to it, so
            that the lines do not cover it.
        max_side: a photo with a longer side is reduced to it: the picture is for looking at.

    Returns:
        An RGB picture of the photo's size within these limits.
    """
    photo, labels = _fit(photo.convert("RGB"), label_map, min_side, max_side)
    tint = Image.fromarray(np.asarray(colors, dtype=np.uint8)[labels])
    drawn = Image.blend(photo, tint, opacity)
    if clear_index is not None:
        drawn.paste(photo, mask=Image.fromarray(labels == clear_index))
    drawn.paste(PAPER, mask=Image.fromarray(_borders(labels)))
    return drawn


def draw_segments(photo: Image.Image, segment_map: npt.NDArray[np.integer], opacity: float = 0.75) -> Image.Image:
    """Tint a photo by segment index ``[h, w]``; the map is resized to the photo where their sizes differ."""
    if segment_map.shape != (photo.height, photo.width):
        small = Image.fromarray(segment_map.astype(np.int32))
        segment_map = np.asarray(small.resize(photo.size, Image.Resampling.NEAREST))
    colors = class_colors(int(segment_map.max()) + 1, has_background=False)
    return draw_overlay(photo, segment_map, colors, opacity=opacity)


def add_legend(picture: Image.Image, entries: Sequence[LegendEntry], absent: Sequence[str] = ()) -> Image.Image:
    """Put a legend below a picture: swatch, name and area share of each entry, largest area first.

    Text is sized for the picture, never below 13 px; a picture narrower than its legend is centred above it.
    After 40 entries the rest are counted in one line. Absent classes follow by name, or only their number where there
    are more than three.
    """
    font_size = max(13, round(max(picture.size) / 48))
    ordered = sorted(entries, key=lambda entry: -entry.area_share)
    lines = [(entry.color, f"{_shorten(entry.name)}  {percent(entry.area_share)}") for entry in ordered]
    shown: list[tuple[Color | None, str]] = [*lines[:_MAX_LEGEND_ENTRIES]]
    if len(lines) > len(shown):
        shown.append((None, f"… and {len(lines) - len(shown)} more"))
    if len(absent) <= _MAX_ABSENT_NAMES:
        shown += [(None, f"{_shorten(name)}  not in the picture") for name in absent]
    else:
        shown.append((None, f"{len(absent)} names are not in the picture"))
    if not shown:
        return picture.copy()
    legend = _draw_lines(shown, font_size, picture.width)
    canvas = Image.new("RGB", (max(picture.width, legend.width), picture.height + legend.height), PAPER)
    canvas.paste(picture, ((canvas.width - picture.width) // 2, 0))
    canvas.paste(legend, (0, picture.height))
    return canvas


def draw_legend(entries: Sequence[tuple[str, Color]], width: int, font_size: int) -> Image.Image:
    """A legend of names and colours in the order given, in as many columns as ``width`` pixels hold, at least one.

    After 40 entries the rest are counted in one line.
    """
    lines: list[tuple[Color | None, str]] = [(color, _shorten(name)) for name, color in entries[:_MAX_LEGEND_ENTRIES]]
    if len(entries) > len(lines):
        lines.append((None, f"… and {len(entries) - len(lines)} more"))
    return _draw_lines(lines, font_size, width)


def contact_sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]], cell_size: int = 192) -> Image.Image:
    """Lay titled pictures out in a grid.

    Args:
        rows: per row, ``(title, picture)`` pairs; rows may differ in length, titles may be empty.
        cell_size: side in pixels of the square each picture is fitted into; small pictures are enlarged
            without smoothing, so that their pixels stay visible.
    """
    gap, font_size = 6, max(12, cell_size // 14)
    text_height = font_size * 3 // 2 if any(title for row in rows for title, _ in row) else 0
    columns = max((len(row) for row in rows), default=0)
    step = cell_size + gap, cell_size + text_height + gap
    sheet = Image.new("RGB", (columns * step[0] + gap, len(rows) * step[1] + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            left, top = gap + x * step[0], gap + y * step[1]
            draw_text(draw, (left, top + text_height // 2), title, font_size, cell_size)
            fitted = _fit_cell(picture, cell_size)
            sheet.paste(fitted, (left + (cell_size - fitted.width) // 2, top + text_height))
    return sheet


def _fit(
    photo: Image.Image, label_map: npt.NDArray[np.integer], min_side: int, max_side: int
) -> tuple[Image.Image, npt.NDArray[np.integer]]:
    longest = max(photo.size)
    scale = max_side / longest if longest > max_side else max(1, min_side // longest)
    if scale == 1:
        return photo, label_map
    width, height = (max(1, round(side * scale)) for side in photo.size)
    rows = np.arange(height) * label_map.shape[0] // height
    columns = np.arange(width) * label_map.shape[1] // width
    # Averages when reducing; when enlarging by a whole factor it repeats pixels.
    return photo.resize((width, height), Image.Resampling.BOX), label_map[rows[:, None], columns]


def _borders(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another label."""
    borders = np.zeros(labels.shape, dtype=np.bool_)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


def _fit_cell(picture: Image.Image, cell_size: int) -> Image.Image:
    scale = cell_size / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _draw_lines(lines: Sequence[tuple[Color | None, str]], font_size: int, width: int) -> Image.Image:
    """Draw legend lines in as many columns as ``width`` holds, row by row."""
    pad, swatch, step = font_size // 2, font_size, font_size * 3 // 2
    texts = [_printable(text, font_size) for _, text in lines]
    column = pad + swatch + pad + pad + max(round(font.getlength(text)) for text, font in texts)
    columns = min(len(lines), max(1, (width - pad) // column))
    num_rows = -(-len(lines) // columns)
    legend = Image.new("RGB", (columns * column + pad, num_rows * step + pad), PAPER)
    draw = ImageDraw.Draw(legend)
    for number, ((color, _), (text, font)) in enumerate(zip(lines, texts, strict=True)):
        left, top = pad + number % columns * column, pad // 2 + number // columns * step
        middle = top + step // 2
        if color is not None:
            corners = (left, middle - swatch // 2, left + swatch - 1, middle + swatch // 2)
            draw.rectangle(corners, fill=color, outline=INK)
        draw.text((left + swatch + pad, middle), text, fill=INK, font=font, anchor="lm")
    return legend


def text_width(text: str, font_size: int) -> int:
    """Pixels that :func:`draw_text` needs for a text."""
    text, font = _printable(text, font_size)
    return round(font.getlength(text))


def draw_text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, font_size: int, width: int, color: Color = INK
) -> None:
    """Write one line, vertically centred at ``at`` and cut to ``width`` pixels."""
    text, font = _printable(text, font_size)
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(at, text, fill=color, font=font, anchor="lm")


def _printable(text: str, font_size: int) -> tuple[str, Font]:
    """Choose a font that has every character, or spell out the characters that no font here has."""
    plain = "".join(character if character.isprintable() else _spell(character) for character in text)
    default = _load_font(None, font_size)
    for name in (None, *_WIDER_FONTS):
        font = _load_font(name, font_size)
        if font is not None and all(_has_glyph(name, font_size, character) for character in set(plain)):
            return plain, font
    assert default is not None  # Pillow brings it
    spelled = [c if _has_glyph(None, font_size, c) else _spell(c) for c in plain]
    return "".join(spelled), default


@functools.lru_cache(maxsize=64)
def _load_font(name: str | None, font_size: int) -> Font | None:
    """Load Pillow's built-in font (``None``) or a system font by name; None where the system lacks it."""
    if name is None:
        return ImageFont.load_default(font_size)
    try:
        return ImageFont.truetype(name, font_size)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _has_glyph(name: str | None, font_size: int, character: str) -> bool:
    """Tell a drawn character from the box that stands for a missing one: no font has a glyph for U+10FFFF."""
    font = _load_font(name, font_size)
    if font is None:
        return False
    if character.isascii():
        return True
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff"))


def _spell(character: str) -> str:
    return f"U+{ord(character):04X} "


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_TEXT else name[: _MAX_TEXT - 1] + "…"


def percent(share: float) -> str:
    """Write a share, 0 to 1, in percent."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %"

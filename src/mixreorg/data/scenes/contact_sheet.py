"""One picture that shows what a configuration of scenes looks like: images, label maps and captions."""

import textwrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mixreorg.data.scenes.compose import Scene, SceneComposer, Split
from mixreorg.data.scenes.writing import voc_colours

_SIDE = 176
_GAP = 10
_TEXT = 48
_TITLE = 44
_LINE = 22
_COLUMNS = 4
_INK = (28, 30, 36)
_PALE = (118, 122, 132)
_CAPTION_CHARACTERS = 54
_CREDIT_CHARACTERS = 110
_MISSING_CHARACTERS = 190


def draw_contact_sheet(composer: SceneComposer, with_training: bool = True) -> Image.Image:
    """Draw the first scenes of each split: image, coloured label map, legend and caption.

    Args:
        composer: draws the scenes.
        with_training: show training scenes; without, more test scenes.

    Returns:
        An RGB image about 1,500 pixels wide.
    """
    splits: list[tuple[Split, int]] = [("train", 8), ("test", 4)] if with_training else [("test", 12)]
    if composer.drawable_pairs:
        splits.append(("test_heldout", 4))
    cells = [(split, index) for split, count in splits for index in range(count)]
    cell_width, cell_height = 2 * _SIDE + 2, _SIDE + _TEXT
    missing = composer.picture_set.missing
    head = _TITLE + (_LINE if missing else 0)
    num_rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new(
        "RGB",
        (_COLUMNS * (cell_width + _GAP) + _GAP, head + num_rows * (cell_height + _GAP)),
        (255, 255, 255),
    )
    config = composer.config
    title = (
        f"{len(config.classes)} classes, {len(config.stuff)} textures"
        f"{' (labelled)' if config.label_stuff else ''}, {config.image_size} px, seed {config.seed}"
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), f"Scenes: {title}", _INK, ImageFont.load_default(18))
    credit = textwrap.shorten(f"Pictures: {composer.picture_set.credit}", _CREDIT_CHARACTERS)
    draw.text((sheet.width - _GAP, 16), credit, _PALE, ImageFont.load_default(13), anchor="ra")
    if missing:
        text = f"Without a picture, so never drawn ({len(missing)} of {len(config.classes)}): {', '.join(missing)}"
        shown = textwrap.shorten(text, _MISSING_CHARACTERS, placeholder=" ...")
        draw.text((_GAP, _TITLE - 4), shown, _INK, ImageFont.load_default(13))
    for number, (split, index) in enumerate(cells):
        row, column = divmod(number, _COLUMNS)
        corner = (_GAP + column * (cell_width + _GAP), head + row * (cell_height + _GAP))
        _draw_cell(sheet, corner, composer.compose(split, index), split, config.label_names)
    return sheet


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], scene: Scene, split: Split, label_names: tuple[str, ...]
) -> None:
    left, top = corner
    colours = _label_colours(scene)
    # Enlarged without smoothing: the pixels are what a model sees.
    sheet.paste(Image.fromarray(scene.image).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top))
    mask = Image.fromarray(_colour(scene, colours)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    sheet.paste(mask, (left + _SIDE + 2, top))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    x, y = left, top + _SIDE + 3
    for label, colour in colours.items():
        name = label_names[label]
        draw.rectangle((x, y + 2, x + 9, y + 11), fill=colour)
        draw.text((x + 13, y), name, _INK, font)
        x += 13 + int(draw.textlength(name, font)) + 8
    tag = draw.textbbox((left + 2 * _SIDE - 3, top + _SIDE - 2), split, font, anchor="rb")
    draw.rectangle((tag[0] - 4, tag[1] - 3, left + 2 * _SIDE + 1, top + _SIDE - 1), fill=(255, 255, 255))
    draw.text((left + 2 * _SIDE - 3, top + _SIDE - 2), split, _INK, font, anchor="rb")
    lines = textwrap.wrap(scene.caption, _CAPTION_CHARACTERS)[:2]
    draw.multiline_text((left, y + 14), "\n".join(lines), _INK, font, spacing=2)


def _label_colours(scene: Scene) -> dict[int, tuple[int, int, int]]:
    """VOC's colour of each label in the scene but the background."""
    palette = voc_colours()
    labels = [int(label) for label in np.unique(scene.label_map) if label]
    return {label: (int(r), int(g), int(b)) for label in labels for r, g, b in [palette[1 + (label - 1) % 254]]}


def _colour(scene: Scene, colours: dict[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """The image in pale grey, with the labels' colours laid over it."""
    grey = scene.image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    shown = 0.4 * grey + 153.0
    for label, colour in colours.items():
        mask = scene.label_map == label
        shown[mask] = 0.25 * grey[mask] + 0.75 * np.array(colour)
    coloured: NDArray[np.uint8] = shown.astype(np.uint8)
    return coloured

import numpy as np
import pytest
from PIL import Image

from mixreorg.segment.drawing import LegendEntry, add_legend, contact_sheet, draw_overlay, draw_segments

GREY = (100, 100, 100)


def _labels(width=40, height=20):
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[:, width // 2 :] = 1
    return labels


def test_overlay_tints_classes_and_leaves_the_background():
    photo = Image.new("RGB", (40, 20), GREY)
    drawn = draw_overlay(photo, _labels(), [(0, 0, 0), (200, 0, 0)], clear_index=0, opacity=0.5, min_side=1)
    assert drawn.getpixel((5, 5)) == GREY
    assert drawn.getpixel((35, 5)) == (150, 50, 50)
    assert drawn.getpixel((19, 5)) == (255, 255, 255)
    tinted = draw_overlay(photo, _labels(), [(0, 0, 0), (200, 0, 0)], opacity=0.5, min_side=1)
    assert tinted.getpixel((5, 5)) == (50, 50, 50)
    assert photo.getpixel((5, 5)) == GREY


def test_large_overlays_are_reduced_for_looking_at():
    drawn = draw_overlay(
        Image.new("RGB", (400, 200), GREY),
        _labels(400, 200),
        [(0, 0, 0), (200, 0, 0)],
        clear_index=0,
        max_side=100,
    )
    assert drawn.size == (100, 50)
    assert drawn.getpixel((48, 20)) == GREY
    assert drawn.getpixel((51, 20)) != GREY


def test_small_overlays_are_enlarged_by_a_whole_factor():
    photo = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3))
    drawn = draw_overlay(photo, _labels(), [(0, 0, 0), (200, 0, 0)], clear_index=0)
    assert drawn.size == (240, 120)
    assert np.array_equal(np.asarray(drawn)[::6, :119:6], np.asarray(photo)[:, :20])
    assert drawn.getpixel((119, 50)) == (255, 255, 255)


def test_segments_are_resized_to_the_photo_and_none_is_black():
    drawn = draw_segments(Image.new("RGB", (40, 20), "black"), np.array([[0, 1]]), opacity=1.0)
    assert drawn.size == (240, 120)
    assert drawn.getpixel((5, 5)) == (128, 0, 0)
    assert drawn.getpixel((235, 5)) == (0, 128, 0)


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (500, 375), (2048, 300), (40, 1500)])
def test_legend_keeps_the_picture_and_shows_every_swatch(size):
    colors = [(10 * index + 5, 0, 200) for index in range(12)]
    entries = [LegendEntry(f"class number {index}", color, 0.05) for index, color in enumerate(colors)]
    picture = Image.new("RGB", size, GREY)
    drawn = add_legend(picture, entries)
    left = (drawn.width - size[0]) // 2
    assert np.array_equal(np.asarray(drawn)[: size[1], left : left + size[0]], np.asarray(picture))
    legend = np.asarray(drawn)[size[1] :]
    for color in colors:
        assert (legend == color).all(-1).sum() > 50


def test_legend_orders_by_area_and_counts_what_it_leaves_out():
    entries = [LegendEntry("small", (1, 0, 0), 0.1), LegendEntry("large", (2, 0, 0), 0.9)]
    legend = np.asarray(add_legend(Image.new("RGB", (20, 1), "white"), entries))
    first_row = {color: np.nonzero((legend == (color, 0, 0)).all(-1))[0].min() for color in (1, 2)}
    assert first_row[2] < first_row[1]
    many = [LegendEntry(f"{index}", (index, 1, 1), 0.001) for index in range(100)]
    drawn = np.asarray(add_legend(Image.new("RGB", (300, 10), "white"), many))
    assert sum(((drawn == (index, 1, 1)).all(-1).sum() > 50) for index in range(100)) == 40
    assert add_legend(Image.new("RGB", (20, 10)), []).size == (20, 10)


@pytest.mark.parametrize("name", ["犬と猫", "قطة", "🐕‍🦺", "a\x00b\nc", "<b>&amp;</b>", "x" * 200, "\ud83d"])
def test_any_name_can_be_drawn(name):
    drawn = add_legend(Image.new("RGB", (50, 50)), [LegendEntry(name, (1, 2, 3), 0.00001)])
    assert drawn.width < 800
    assert (np.asarray(drawn)[50:].min(-1) < 128).sum() > 50


def test_names_that_no_font_has_stay_distinct():
    pictures = [add_legend(Image.new("RGB", (5, 5)), [LegendEntry(n, (1, 2, 3), 1.0)]) for n in "\ue000\ue001"]
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_contact_sheet_places_every_picture():
    red, blue = Image.new("RGB", (10, 10), (255, 0, 0)), Image.new("RGB", (400, 200), (0, 0, 255))
    sheet = np.asarray(
        contact_sheet([[("photo", red), ("a title that is much too long " * 3, blue)], [("", red)]], 100)
    )
    assert (sheet == (255, 0, 0)).all(-1).sum() == 2 * 100 * 100
    assert (sheet == (0, 0, 255)).all(-1).sum() == 100 * 50
    assert (sheet[:, -5:] == 255).all()
    assert contact_sheet([]).size == (6, 6)
    bare = contact_sheet([[("", red)]], 100)
    assert bare.size == (112, 112)

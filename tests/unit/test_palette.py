import itertools

import pytest

from mixreorg.palette import class_colors, distinct_colors, hex_color, voc_color


def test_first_colours_are_those_of_pascal_voc():
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert [voc_color(index) for index in range(7)] == expected
    assert voc_color(15) == (192, 128, 128)
    assert voc_color(255) == (224, 224, 192)


def test_all_colours_are_distinct():
    assert len({voc_color(index) for index in range(2000)}) == 2000


def test_black_is_kept_for_the_background():
    assert class_colors(2, has_background=True) == ((0, 0, 0), (128, 0, 0))
    assert class_colors(2, has_background=False) == ((128, 0, 0), (0, 128, 0))


def test_hex():
    assert hex_color((128, 0, 10)) == "#80000a"


def test_colours_stay_apart_and_away_from_grey():
    colors = distinct_colors(24)
    assert len(colors) == 24
    for first, second in itertools.combinations(colors, 2):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) >= 60
    assert all(max(color) - min(color) >= 60 for color in colors)
    assert all(0 <= channel <= 255 for color in colors for channel in color)


def test_longer_lists_begin_with_shorter_ones():
    assert distinct_colors(0) == ()
    assert distinct_colors(1) == ((30, 105, 210),)
    assert distinct_colors(9)[:4] == distinct_colors(4)
    assert len(set(distinct_colors(255))) == 255


def test_too_many_colours_are_refused():
    with pytest.raises(ValueError, match="1001 colours"):
        distinct_colors(1001)

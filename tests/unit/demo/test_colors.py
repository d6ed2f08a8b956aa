import itertools

import pytest

from mixreorg.demo.colors import distinct_colors


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

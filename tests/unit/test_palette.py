from mixreorg.palette import class_colors, hex_color, voc_color


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

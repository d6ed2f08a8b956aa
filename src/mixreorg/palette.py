"""The PASCAL VOC colour map: one distinct colour per class index, in every file we write."""

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


def voc_color(index: int) -> Color:
    """Colour of a label in the PASCAL VOC colour map; 0 is black, 1 to 255 are the well-known ones.

    The bits of the index are dealt to red, green and blue in turn, most significant colour bit first, so the
    map is a bijection of 24-bit numbers and every index has its own colour.
    """
    red = green = blue = 0
    for place in range(8):
        group = index >> (3 * place)
        red |= (group & 1) << (7 - place)
        green |= ((group >> 1) & 1) << (7 - place)
        blue |= ((group >> 2) & 1) << (7 - place)
    return red, green, blue


def class_colors(num_classes: int, *, has_background: bool) -> tuple[Color, ...]:
    """One colour per class index; black is the background's, so classes without background skip it."""
    first = 0 if has_background else 1
    return tuple(voc_color(index) for index in range(first, first + num_classes))


def hex_color(color: Color) -> str:
    """Write a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)

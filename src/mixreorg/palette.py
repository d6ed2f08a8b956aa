"""Colours: the PASCAL VOC map, one per class index in every file we write; lists that stay apart from each other."""

import numpy as np
import numpy.typing as npt

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Björn Ottosson's OKLab (2020), in which equal distances look equally different.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LIGHTNESS = (0.32, 0.86)
_MIN_CHROMA = 0.1


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


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Colours chosen one after the other, each as far from the earlier ones as possible; the first is blue.

    Unlike the colour map of VOC, none is grey, near black or near white, and the closest two of 24 are four times
    as far apart. A longer list begins with the shorter ones.

    Args:
        count: at most 1,000.

    Raises:
        ValueError: more colours than the candidates can give.
    """
    levels = np.arange(0, 256, 15)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(rgb)
    vivid = np.hypot(lab[:, 1], lab[:, 2]) > _MIN_CHROMA
    usable = vivid & (lab[:, 0] > _LIGHTNESS[0]) & (lab[:, 0] < _LIGHTNESS[1])
    rgb, lab = rgb[usable], lab[usable]
    if count > min(1000, len(rgb)):
        raise ValueError(f"{count} colours are more than can be told apart; 1,000 at most")
    chosen: list[Color] = []
    distance = -np.linalg.norm(lab - _oklab(np.array([30, 105, 210])), axis=1)
    for _ in range(count):
        index = int(distance.argmax())
        red, green, blue = rgb[index].tolist()
        to_chosen = np.linalg.norm(lab - lab[index], axis=1)
        distance = np.minimum(distance, to_chosen) if chosen else to_chosen
        chosen.append((red, green, blue))
    return tuple(chosen)


def _oklab(rgb: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Lightness and the two colour axes ``[..., 3]`` of sRGB values ``[..., 3]`` in 0..255."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab

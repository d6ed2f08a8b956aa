"""Colours that stay apart from each other and from grey, for pictures whose legend stands beside them."""

import numpy as np
import numpy.typing as npt

from mixreorg.palette import Color

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

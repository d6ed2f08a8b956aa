"""Boxes of random area and shape, for crops and for erased rectangles."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from mixreorg.data.decode import Box

_ATTEMPTS = 10
BOX_NUMBERS = 2 * _ATTEMPTS + 2
"""Uniform numbers that one box takes."""


@dataclass(frozen=True)
class RandomBox:
    """A box of random area and shape, drawn before the picture's size is known (Szegedy et al., 2015).

    The first shape that fits into the picture is taken; if none does, the largest central one of an allowed shape.
    """

    areas: npt.NDArray[np.float64]
    """``[attempts]`` shares of the picture's area."""
    ratios: npt.NDArray[np.float64]
    """``[attempts]`` width / height."""
    x: float
    """Place from the left, 0..1."""
    y: float
    """Place from the top, 0..1."""
    ratio_range: tuple[float, float]
    """Smallest and largest allowed width / height."""

    @classmethod
    def from_uniform(
        cls, uniform: npt.NDArray[np.float64], scale: tuple[float, float], ratio: tuple[float, float]
    ) -> Self:
        """Draw a box.

        Args:
            uniform: ``[BOX_NUMBERS]`` in 0..1.
            scale: smallest and largest share of the area.
            ratio: smallest and largest width / height; drawn on a logarithmic scale.
        """
        areas, logs = uniform[:_ATTEMPTS], uniform[_ATTEMPTS : 2 * _ATTEMPTS]
        low, high = math.log(ratio[0]), math.log(ratio[1])
        x, y = uniform[2 * _ATTEMPTS :].tolist()
        return cls(scale[0] + (scale[1] - scale[0]) * areas, np.exp(low + (high - low) * logs), x, y, ratio)

    def box(self, width: int, height: int) -> Box:
        """The box in a picture of this size."""
        areas = width * height * self.areas
        widths = np.rint(np.sqrt(areas * self.ratios)).astype(int)
        heights = np.rint(np.sqrt(areas / self.ratios)).astype(int)
        for box_width, box_height in zip(widths.tolist(), heights.tolist(), strict=True):
            if 0 < box_width <= width and 0 < box_height <= height:
                left = int(self.x * (width - box_width + 1))
                top = int(self.y * (height - box_height + 1))
                return left, top, left + box_width, top + box_height
        box_width = min(width, max(1, round(height * self.ratio_range[1])))
        box_height = min(height, max(1, round(width / self.ratio_range[0])))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height

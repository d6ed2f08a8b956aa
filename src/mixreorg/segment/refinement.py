"""Class scores fitted to the edges of the photo, one class at a time and without torch.

Segments have the resolution of patches; what lies in between is in the photo's colours. Both ways below are linear in
the scores and depend on nothing but the photo, so a class refined alone is the same as all classes refined together.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image

from mixreorg.segment.resize import FloatArray, resize_bilinear

MAX_PIXELS = 2**19
"""Larger photos are refined at this many pixels, so that memory does not grow with the photo."""
PAMR_DILATIONS = (1, 2, 4, 8, 12, 24)
"""Distances of the neighbours in pixels, as published."""
PAMR_STEPS = 10
"""How often scores move to the neighbours, as published."""
PAMR_SHARPNESS = 10.0
"""Factor on colour differences relative to their local standard deviation, as in the published code."""
GUIDED_RADIUS = 0.03
"""Half the side of the guided filter's windows, as a share of the photo's diagonal."""
GUIDED_EPSILON = 1e-4
"""Variance of colours (0 to 1) below which a window of the guided filter counts as flat."""

RefineMap = Callable[[FloatArray], FloatArray]
"""Scores ``[H, W]`` of one class to refined ones."""


def make_refiner(kind: Literal["none", "pamr", "guided"], photo: Image.Image) -> RefineMap | None:
    """Prepare the refinement of one photo's class scores.

    Args:
        kind: ``none``, ``pamr`` or ``guided``.
        photo: RGB, of the size of the scores.

    Returns:
        What refines the scores of one class; None for ``none``.
    """
    match kind:
        case "pamr":
            return PixelAdaptiveRefinement(photo)
        case "guided":
            return GuidedFilter(photo)
        case "none":
            return None


class PixelAdaptiveRefinement:
    """Pixel-adaptive mask refinement, PAMR (Araslanov and Roth, CVPR 2020, section 4.2).

    In every step a pixel takes the average of its 8 neighbours at each of several distances, weighted by a softmax of
    colour differences relative to their standard deviation there.
    """

    def __init__(
        self, photo: Image.Image, *, dilations: tuple[int, ...] = PAMR_DILATIONS, steps: int = PAMR_STEPS
    ) -> None:
        """Compute the weights of the neighbours.

        Args:
            photo: RGB.
            dilations: distances of the neighbours in pixels.
            steps: how often to average.
        """
        self.steps = steps
        self._reach = max(dilations)
        self._offsets = [
            (down * dilation, across * dilation)
            for dilation in dilations
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
            if down or across
        ]
        self._weights = self._neighbour_weights(_working_pixels(photo), len(dilations))

    def __call__(self, scores_HW: FloatArray) -> FloatArray:
        """Refine the scores ``[H, W]`` of one class."""
        size = self._weights[0].shape
        current = resize_bilinear(scores_HW, size)
        product = np.empty_like(current)
        for _ in range(self.steps):
            neighbours = self._neighbours(current)
            current = np.zeros_like(product)
            for weight, neighbour in zip(self._weights, neighbours, strict=True):
                current += np.multiply(weight, neighbour, out=product)
        return resize_bilinear(current, scores_HW.shape)

    def _neighbour_weights(self, colors: FloatArray, num_centres: int) -> list[FloatArray]:
        """``[h, w]`` weight of each neighbour; they sum to 1."""
        logits = [np.zeros(colors.shape[1:], dtype=np.float32) for _ in self._offsets]
        for channel in colors:
            differences = [neighbour - channel for neighbour in self._neighbours(channel)]
            # The standard deviation over the neighbours and, once per distance, the pixel itself, as published.
            count = len(differences) + num_centres
            mean = sum(differences) / np.float32(count)
            squares = sum(np.square(difference) for difference in differences)
            deviation = np.sqrt(np.maximum(squares - count * np.square(mean), 0) / (count - 1))
            sharpness = np.float32(PAMR_SHARPNESS / len(colors)) / (deviation + np.float32(1e-7))
            for logit, difference in zip(logits, differences, strict=True):
                logit -= np.multiply(np.abs(difference, out=difference), sharpness, out=difference)
        largest = np.maximum.reduce(logits)
        weights = [np.exp(np.subtract(logit, largest, out=logit), out=logit) for logit in logits]
        share = 1 / np.add.reduce(weights)
        return [np.multiply(weight, share, out=weight) for weight in weights]

    def _neighbours(self, values: FloatArray) -> list[FloatArray]:
        """Views ``[h, w]`` of the neighbours at every offset; the edge is repeated outside."""
        height, width = values.shape
        padded = np.pad(values, self._reach, mode="edge")
        tops = [(self._reach + down, self._reach + across) for down, across in self._offsets]
        return [padded[top : top + height, left : left + width] for top, left in tops]


class GuidedFilter:
    """Guided filter with a colour guide (He, Sun and Tang, PAMI 2013, equations 14 to 16).

    In every window the scores are a linear function of the colours. For large photos the functions are found on a
    reduced one and applied at full size (He and Sun, arXiv 1505.00996).
    """

    def __init__(self, photo: Image.Image, *, radius: float = GUIDED_RADIUS, epsilon: float = GUIDED_EPSILON) -> None:
        """Compute what depends on the photo alone.

        Args:
            photo: RGB.
            radius: half the side of the windows as a share of the photo's diagonal.
            epsilon: variance of colours below which a window is flat.
        """
        self._photo = np.asarray(photo)
        self._colors = _working_pixels(photo)
        height, width = self._colors.shape[1:]
        self._radius = max(1, round(radius * float(np.hypot(height, width))))
        self._mean = _box_mean(self._colors, self._radius)
        rows, columns = np.triu_indices(3)
        covariance = np.empty((3, 3, height, width), dtype=np.float32)
        covariance[rows, columns] = _box_mean(self._colors[rows] * self._colors[columns], self._radius)
        covariance[rows, columns] -= self._mean[rows] * self._mean[columns]
        covariance[columns, rows] = covariance[rows, columns]
        covariance[range(3), range(3)] += np.float32(epsilon)
        self._inverse = _inverse(covariance)

    def __call__(self, scores_HW: FloatArray) -> FloatArray:
        """Refine the scores ``[H, W]`` of one class."""
        scores = resize_bilinear(scores_HW, self._colors.shape[1:])
        mean = _box_mean(scores, self._radius)
        covariance = _box_mean(self._colors * scores, self._radius) - self._mean * mean
        slopes = (self._inverse * covariance).sum(axis=1)
        offset = mean - (slopes * self._mean).sum(axis=0)
        functions = _box_mean(np.concatenate([slopes, offset[None]]), self._radius)
        refined = resize_bilinear(functions[3], scores_HW.shape)
        for channel in range(3):
            levels = self._photo[..., channel] / np.float32(255)
            refined += np.multiply(levels, resize_bilinear(functions[channel], scores_HW.shape), out=levels)
        return refined


def _working_pixels(photo: Image.Image) -> FloatArray:
    """Colours ``[3, h, w]``, 0 to 1, of the photo at no more than :data:`MAX_PIXELS`."""
    scale = min(1.0, (MAX_PIXELS / (photo.width * photo.height)) ** 0.5)
    if scale < 1:
        size = max(1, int(photo.width * scale)), max(1, int(photo.height * scale))
        photo = photo.resize(size, Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(photo, dtype=np.float32).transpose(2, 0, 1)) / np.float32(255)


def _inverse(matrices: FloatArray) -> FloatArray:
    """Inverse of symmetric ``[3, 3, h, w]`` by cofactors, many times faster than ``numpy.linalg`` on small matrices."""
    # Twice the precision: the colours of a grey photo are one, and all but singular here.
    first, second, third = matrices.astype(np.float64)
    cofactors = np.stack(
        [np.cross(left, right, axis=0) for left, right in ((second, third), (third, first), (first, second))]
    )
    inverse: FloatArray = (cofactors / (first * cofactors[0]).sum(axis=0)).astype(np.float32)
    return inverse


def _box_mean(values: FloatArray, radius: int) -> FloatArray:
    """Mean over ``2 radius + 1`` squared windows of ``[..., h, w]``, of what lies inside the photo."""
    means = values.astype(np.float64)
    for axis in (-2, -1):
        side = values.shape[axis]
        sums = np.concatenate([np.zeros_like(means.take([0], axis)), means.cumsum(axis)], axis)
        last = np.minimum(np.arange(side) + radius + 1, side)
        first = np.maximum(np.arange(side) - radius, 0)
        counts = (last - first).reshape((-1, 1) if axis == -2 else (-1,))
        means = (sums.take(last, axis) - sums.take(first, axis)) / counts
    return means.astype(np.float32)

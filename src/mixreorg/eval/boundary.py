"""Boundary IoU: how well the borders fit (Cheng et al., CVPR 2021, arXiv 2103.16562)."""

import numpy as np
import numpy.typing as npt

from mixreorg.eval.confusion import IntArray, iou_of, mean_percent

DILATION_RATIO = 0.02
"""Width of the boundary region as a share of the photo's diagonal, as published."""


class BoundaryCounts:
    """Pixels within reach of the borders, by class; images add up."""

    def __init__(self, num_classes: int) -> None:
        self.pixels = np.zeros((3, num_classes), dtype=np.int64)
        """``[3, C]``: in both boundary regions, in the true one, in the predicted one."""

    def add(self, truth: IntArray, prediction: IntArray) -> None:
        """Count one image.

        The boundary region of a class is what of its mask lies within ``d`` pixels (chessboard distance) of
        another label or of the photo's edge, with d = 2 % of the diagonal and at least 1. Pixels without
        truth count in neither region, but their edge is a border of the truth: benchmarks mark borders by it.
        Where the prediction has no background to end at that edge, 100 is out of reach even with every pixel right.

        Args:
            truth: ``[H, W]`` class indices; everything outside ``0 .. C - 1`` is left out.
            prediction: ``[H, W]`` class indices in ``0 .. C - 1``.
        """
        num_classes = self.pixels.shape[1]
        reach = boundary_reach(*truth.shape)
        valid = (truth >= 0) & (truth < num_classes)
        true_region = near_border(truth, reach) & valid
        predicted_region = near_border(prediction, reach) & valid
        both = true_region & predicted_region & (truth == prediction)
        counted = (truth[both], truth[true_region], prediction[predicted_region])
        self.pixels += np.stack([np.bincount(labels, minlength=num_classes) for labels in counted])

    def iou(self) -> npt.NDArray[np.float64]:
        """``[C]`` boundary IoU, 0 to 1; NaN for a class absent from truth and prediction."""
        return iou_of(*self.pixels)

    def mean_iou(self) -> float:
        """Mean boundary IoU in percent over the classes that occur."""
        return mean_percent(self.iou())


def boundary_reach(height: int, width: int) -> int:
    """Width of the boundary region in pixels for a photo of this size."""
    return max(1, round(DILATION_RATIO * float(np.hypot(height, width))))


def near_border(labels: IntArray, reach: int) -> npt.NDArray[np.bool_]:
    """``[H, W]``: pixels whose square of ``2 reach + 1`` pixels holds another label or leaves the photo.

    A square is of one label exactly where no two neighbours in it differ. Summed-area tables count such
    neighbours in any square at once, so the time does not depend on ``reach``.
    """
    height, width = labels.shape
    side = 2 * reach + 1
    region = np.ones((height, width), dtype=np.bool_)
    if height < side or width < side:
        return region
    across = _square_sums(labels[:, 1:] != labels[:, :-1], side, side - 1)
    down = _square_sums(labels[1:] != labels[:-1], side - 1, side)
    region[reach : height - reach, reach : width - reach] = (across > 0) | (down > 0)
    return region


def _square_sums(marks: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.int32]:
    """Marks in every ``height`` x ``width`` window of ``[H, W]``: ``[H - height + 1, W - width + 1]``."""
    table = np.zeros((marks.shape[0] + 1, marks.shape[1] + 1), dtype=np.int32)
    np.cumsum(marks, axis=0, dtype=np.int32, out=table[1:, 1:])
    np.cumsum(table, axis=1, out=table)
    sums: npt.NDArray[np.int32] = table[height:, width:] - table[:-height, width:]
    sums -= table[height:, :-width]
    sums += table[:-height, :-width]
    return sums

"""One confusion matrix over a whole split, and the IoU of its classes."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


class Confusion:
    """Counts of (true class, predicted class) over pixels; ignored pixels are in no cell."""

    def __init__(self, num_classes: int) -> None:
        self.matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        """``[C, C]`` pixels; rows are the truth, columns the prediction."""

    def add(self, truth: IntArray, prediction: IntArray) -> None:
        """Count one image.

        Args:
            truth: ``[H, W]`` class indices; everything outside ``0 .. C - 1`` is left out.
            prediction: ``[H, W]`` class indices in ``0 .. C - 1``.
        """
        num_classes = len(self.matrix)
        valid = (truth >= 0) & (truth < num_classes)
        cells = truth[valid].astype(np.int64) * num_classes + prediction[valid]
        self.matrix += np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)

    def iou(self) -> npt.NDArray[np.float64]:
        """``[C]`` intersection over union, 0 to 1; NaN for a class absent from truth and prediction."""
        hit = np.diag(self.matrix).astype(np.float64)
        union = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - hit
        iou: npt.NDArray[np.float64] = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
        return iou

    def miou(self) -> float:
        """Mean IoU in percent over the classes that occur; NaN when none does."""
        iou = self.iou()
        return float(np.nanmean(iou) * 100) if np.isfinite(iou).any() else float("nan")

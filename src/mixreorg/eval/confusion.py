"""One confusion matrix over a whole split, and the measures that are made of it."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]


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
        self.matrix += count_pairs(truth, prediction, len(self.matrix))

    def iou(self) -> npt.NDArray[np.float64]:
        """``[C]`` intersection over union, 0 to 1; NaN for a class absent from truth and prediction."""
        hit = np.diag(self.matrix)
        return iou_of(hit, self.matrix.sum(axis=1), self.matrix.sum(axis=0))

    def miou(self) -> float:
        """Mean IoU in percent over the classes that occur; NaN when none does."""
        return mean_percent(self.iou())

    def pixel_accuracy(self) -> float:
        """Share of right pixels in percent; NaN where none is counted."""
        total = self.matrix.sum()
        return float(100 * np.diag(self.matrix).sum() / total) if total else float("nan")

    def zero_iou_share(self) -> float:
        """Share in percent of the true classes of which not one pixel is found; NaN where there is no truth."""
        true = self.matrix.sum(axis=1) > 0
        return mean_percent((np.diag(self.matrix)[true] == 0).astype(np.float64))


def count_pairs(truth: IntArray, prediction: IntArray, num_classes: int) -> Counts:
    """``[C, C]`` pixels by (true class, predicted class); truth outside ``0 .. C - 1`` is left out."""
    valid = (truth >= 0) & (truth < num_classes)
    cells = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    counts: Counts = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    return counts


def iou_of(
    hit: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]
) -> npt.NDArray[np.float64]:
    """Intersection over union from pixels hit, true and predicted, of any one shape; NaN where there are none."""
    numerator = hit.astype(np.float64)
    union = truth.astype(np.float64) + predicted.astype(np.float64) - numerator
    iou: npt.NDArray[np.float64] = np.divide(numerator, union, out=np.full(union.shape, np.nan), where=union > 0)
    return iou


def mean_percent(values: npt.NDArray[np.float64]) -> float:
    """Mean of what is not NaN, in percent; NaN where nothing is left."""
    known = values[np.isfinite(values)]
    return float(known.mean() * 100) if len(known) else float("nan")

"""How sure an mIoU is: resampling photos, alone or in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mixreorg.eval.confusion import iou_of
from mixreorg.eval.photo_counts import PhotoTotals

NUM_RESAMPLES = 1000
LEVEL = 0.95
"""Of intervals."""

_BLOCK = 100

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A bootstrap percentile interval, in percent or percentage points."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether a value lies inside."""
        return self.low <= value <= self.high


def resample_miou(totals: Sequence[PhotoTotals], *, resamples: int = NUM_RESAMPLES, seed: int = 0) -> FloatArray:
    """mIoU in percent of several results on the same resampled photos.

    Photos are drawn with replacement, the same ones for every result, and the counts of the drawn photos are
    summed before IoU and mean are taken: the mIoU of a split is no mean over photos. A class that no drawn photo has
    keeps its IoU of all photos: left out, the mean would be over other classes in every draw, mostly without the rare
    ones.

    Args:
        totals: per result, pixels by photo and class; all of the same photos in the same order.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        ``[len(totals), resamples]``; NaN where all photos together hold no class.

    Raises:
        ValueError: results of different numbers of photos.
    """
    num_photos = len(totals[0].hit)
    if any(len(item.hit) != num_photos for item in totals):
        raise ValueError("these results are of different numbers of photos")
    random = np.random.default_rng(seed)
    whole = [_weighted_iou(item, np.ones((1, num_photos))) for item in totals]
    values = np.empty((len(totals), resamples))
    for start in range(0, resamples, _BLOCK):
        stop = min(start + _BLOCK, resamples)
        # How often each photo is drawn, [block, n].
        weights = random.multinomial(num_photos, np.full(num_photos, 1 / num_photos), size=stop - start)
        for row, item in enumerate(totals):
            drawn = _weighted_iou(item, weights.astype(np.float64))
            values[row, start:stop] = _mean(np.where(np.isfinite(drawn), drawn, whole[row]))
    return values


def interval(values: FloatArray, level: float = LEVEL) -> Interval:
    """Percentile interval of resampled values; NaN where there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def miou_of(totals: PhotoTotals) -> float:
    """mIoU in percent of all photos."""
    return float(_mean(_weighted_iou(totals, np.ones((1, len(totals.hit)))))[0])


def _weighted_iou(totals: PhotoTotals, weights_RN: FloatArray) -> FloatArray:
    """IoU ``[R, C]`` of weighted photos; NaN where they have no pixel of a class."""
    hit, truth, predicted = (
        weights_RN @ counts.astype(np.float64) for counts in (totals.hit, totals.truth, totals.predicted)
    )
    return iou_of(hit, truth, predicted)


def _mean(iou_RC: FloatArray) -> FloatArray:
    """Mean ``[R]`` in percent over the classes that have an IoU."""
    known = np.isfinite(iou_RC)
    count_R = known.sum(axis=1)
    mean: FloatArray = np.divide(
        100 * np.where(known, iou_RC, 0).sum(axis=1), count_R, out=np.full(len(iou_RC), np.nan), where=count_R > 0
    )
    return mean

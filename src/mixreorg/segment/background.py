"""Which pixels show none of the wanted classes: the rule that decides, and its threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.text.class_list import ClassName

BackgroundRule = Literal["protocol", "given", "calibration", "otsu", "names"]
"""Where a background threshold comes from.

- ``protocol``: the protocol's own.
- ``given``: named by the user.
- ``calibration``: chosen on the split that the calibration was made on.
- ``otsu``: chosen on the photo itself, by Otsu's method.
- ``names``: no threshold; only negatives and absent classes make background.
"""


@dataclass(frozen=True)
class BackgroundChoice:
    """How background was decided in one photo."""

    rule: BackgroundRule
    threshold: float
    """A pixel whose best class scores below it is background; 0 for the rule ``names``."""
    reason: str
    """The same for people."""


def require_other_phrases(classes: Sequence[ClassName], background_phrases: Sequence[str]) -> None:
    """Refuse a class that is asked for by a phrase of the background: of equal scores the background's, first, wins.

    Args:
        classes: that are asked for.
        background_phrases: of the protocol.

    Raises:
        MixreorgError: a phrase of both, compared without case.
    """
    background = {phrase.casefold() for phrase in background_phrases}
    for item in classes:
        for phrase in item.phrases:
            if phrase.casefold() in background:
                raise MixreorgError(
                    f"{phrase!r} is a phrase of the class {item.name!r} and one of the protocol's background_phrases, "
                    "which would take every pixel of that phrase; leave it out of one of them"
                )


def otsu_threshold(scores: npt.NDArray[np.floating], weights: npt.NDArray[np.number]) -> float:
    """Threshold that parts scores into two groups of the largest variance between them (Otsu, 1979).

    It is exact: every midpoint between neighbouring values is tried, without a histogram.

    Args:
        scores: ``[n]``, the best class score of each segment.
        weights: ``[n]``, its pixels.

    Returns:
        The threshold; 0 where all scores are equal, so that nothing falls below it.
    """
    order = np.argsort(scores, kind="stable")
    values, counts = scores[order].astype(np.float64), weights[order].astype(np.float64)
    values, counts = values[counts > 0], counts[counts > 0]
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sums = np.cumsum(values * counts)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / (total - below)
    between = np.where(np.diff(values) > 0, below * (total - below) * difference**2, 0.0)
    if not between.any():
        return 0.0
    best = int(between.argmax())
    return float((values[best] + values[best + 1]) / 2)

"""Classes said to be in a photo, against those that are."""

from dataclasses import dataclass

import numpy as np

from mixreorg.eval.confusion import IntArray


@dataclass
class PresenceCounts:
    """Pairs of a photo and a class that was asked for."""

    num_absent: int = 0
    """Pairs where no pixel is of the class."""
    num_false: int = 0
    """Those of them where the model labels pixels with it."""
    num_present: int = 0
    """Pairs where a pixel is of the class."""
    num_missed: int = 0
    """Those of them where the model labels none with it."""

    def add(self, mask: IntArray, labels: IntArray, num_classes: int) -> None:
        """Count a photo.

        Args:
            mask: ``[H, W]`` true labels: 0 background, 1 .. C classes, negative void.
            labels: ``[H, W]`` predicted labels, likewise.
            num_classes: ``C``.
        """
        truth = np.bincount(mask[mask > 0], minlength=num_classes + 1)[1:] > 0
        # What lies on void pixels counts nowhere.
        shown = np.bincount(labels[mask >= 0], minlength=num_classes + 1)[1:] > 0
        self.num_absent += int((~truth).sum())
        self.num_false += int((shown & ~truth).sum())
        self.num_present += int(truth.sum())
        self.num_missed += int((truth & ~shown).sum())

    def rates(self) -> dict[str, float]:
        """Share in percent of absent classes that are shown, and of present ones that are not; NaN where none is."""
        false, missed = (
            100 * part / total if total else float("nan")
            for part, total in ((self.num_false, self.num_absent), (self.num_missed, self.num_present))
        )
        return {"false_presence": false, "missed_presence": missed}

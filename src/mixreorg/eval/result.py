"""Counts of an evaluation: what adds up over photos, parts and processes, and the scalars made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from mixreorg.eval.boundary import BoundaryCounts
from mixreorg.eval.confusion import Confusion, Counts, IntArray, count_pairs
from mixreorg.eval.photo_counts import PhotoCounts

BACKGROUND_THRESHOLDS = tuple(round(0.025 * step, 3) for step in range(1, 40))
"""Thresholds that a sweep tries: 0.025 to 0.975."""


@dataclass
class Details:
    """What explains one label map per photo: at one threshold, or without background."""

    num_labels: int
    has_background: bool
    """Whether label 0 is background."""
    threshold: float | None = None
    """Background threshold of the label maps; None for none, or for a model that decides by itself."""
    photos: PhotoCounts = field(init=False)
    boundary: BoundaryCounts = field(init=False)
    grouping: Confusion = field(init=False)
    """Truth against the grouping oracle's labels; empty for models without segments."""

    def __post_init__(self) -> None:
        """Start with no photos."""
        self.photos = PhotoCounts(self.num_labels)
        self.boundary = BoundaryCounts(self.num_labels)
        self.grouping = Confusion(self.num_labels)

    def add(self, stem: str, truth: IntArray, labels: IntArray) -> None:
        """Count a photo: ``[H, W]`` true and predicted labels."""
        self.photos.add(stem, count_pairs(truth, labels, self.num_labels))
        self.boundary.add(truth, labels)

    def metrics(self) -> dict[str, float]:
        """Scalars in percent."""
        confusion = self.photos.confusion()
        classes = range(int(self.has_background), self.num_labels)
        values = {
            "miou": confusion.miou(),
            "pixel_accuracy": confusion.pixel_accuracy(),
            "zero_iou_share": confusion.zero_iou_share(),
            "boundary_iou": self.boundary.mean_iou(),
            "naming_oracle_miou": self.photos.naming().miou(),
        }
        if self.grouping.matrix.any():
            values["grouping_oracle_miou"] = self.grouping.miou()
        buckets = self.photos.size_buckets(classes)
        return values | {f"{name}_region_iou": value for name, value in buckets.items()}


@dataclass
class SplitResult:
    """Counts over a split; results of disjoint parts of a split add up."""

    class_names: tuple[str, ...]
    foreground: Confusion
    """``C`` classes; pixels of true background are left out (the background-free protocol)."""
    present: Confusion
    """The same with only the photo's true classes to choose from: localisation without recognition."""
    background: dict[float, Confusion]
    """``1 + C`` classes by background threshold."""
    num_images: int = 0
    num_recognised: int = 0
    """Of each photo's n true classes, those among the n names that fit the image embedding best; summed."""
    num_true_classes: int = 0
    details: Details | None = None
    """Where asked for."""

    @classmethod
    def empty(
        cls, class_names: tuple[str, ...], thresholds: Sequence[float], details: Details | None = None
    ) -> "SplitResult":
        """A result of no photos yet."""
        count = len(class_names)
        return cls(
            class_names,
            Confusion(count),
            Confusion(count),
            {value: Confusion(count + 1) for value in thresholds},
            details=details,
        )

    def best_threshold(self) -> float:
        """Threshold of the highest mIoU with background. Choose it on a validation split only."""
        return max(self.background, key=lambda value: self.background[value].miou())

    def metrics(self) -> dict[str, float]:
        """Scalars for logs, in percent; with details, theirs as well."""
        values = {
            "foreground_miou": self.foreground.miou(),
            "present_miou": self.present.miou(),
            "recognition": 100 * self.num_recognised / self.num_true_classes if self.num_true_classes else float("nan"),
        }
        if self.background:
            threshold = self.best_threshold()
            values["background_miou"] = self.background[threshold].miou()
            values["background_threshold"] = threshold
        return values | (self.details.metrics() if self.details else {})

    def counts(self) -> Counts:
        """All counts of a fixed length as one vector, so that processes can sum them: all but those per photo."""
        scalars = np.array([self.num_images, self.num_recognised, self.num_true_classes], dtype=np.int64)
        return np.concatenate([scalars, *(table.ravel() for table in self._tables())])

    def set_counts(self, counts: Counts) -> None:
        """Replace all counts by those of a vector from :meth:`counts`."""
        self.num_images, self.num_recognised, self.num_true_classes = (int(value) for value in counts[:3])
        start = 3
        for table in self._tables():
            stop = start + table.size
            table[...] = counts[start:stop].reshape(table.shape)
            start = stop

    def add(self, other: Self) -> None:
        """Add the counts of another part of the split, those per photo included.

        Raises:
            ValueError: of other classes or thresholds, or only one has details.
        """
        same = (self.class_names, tuple(self.background)) == (other.class_names, tuple(other.background))
        if not same or (self.details is None) != (other.details is None):
            raise ValueError("these results are not parts of one evaluation")
        self.set_counts(self.counts() + other.counts())
        if self.details is not None and other.details is not None:
            self.details.photos.extend(other.details.photos)

    def _tables(self) -> list[Counts]:
        tables = [table.matrix for table in (self.foreground, self.present, *self.background.values())]
        if self.details is not None:
            tables += [self.details.boundary.pixels, self.details.grouping.matrix]
        return tables

"""Confusion per photo, kept sparsely: what intervals, size buckets and the naming oracle are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import Arrays
from mixreorg.eval.confusion import Confusion, Counts, iou_of, mean_percent

SIZE_BUCKETS = {"small": (0.0, 0.02), "medium": (0.02, 0.15), "large": (0.15, 1.01)}
"""Buckets of a true region by its share of the photo's counted pixels: from the first value up to the second."""


@dataclass(frozen=True)
class PhotoTotals:
    """Pixels per photo and class, each ``[n, C]`` int64."""

    hit: Counts
    truth: Counts
    predicted: Counts


@dataclass
class PhotoCounts:
    """A confusion matrix per photo. A photo has few of the C x C cells, so these are listed."""

    num_classes: int
    stems: list[str] = field(default_factory=list)
    """Photos in the order they were added."""
    cells: list[Counts] = field(default_factory=list)
    """Per photo, the cells that are not 0: ``true class * C + predicted class``, ascending."""
    pixels: list[Counts] = field(default_factory=list)
    """Per photo, the pixels in these cells."""

    def add(self, stem: str, pairs: Counts) -> None:
        """Add a photo by its ``[C, C]`` counts from :func:`~mixreorg.eval.confusion.count_pairs`."""
        flat = pairs.ravel()
        (cells,) = np.nonzero(flat)
        self.stems.append(stem)
        self.cells.append(cells.astype(np.int64, copy=False))
        self.pixels.append(flat[cells])

    def extend(self, other: Self) -> None:
        """Append the photos of another part."""
        self.stems += other.stems
        self.cells += other.cells
        self.pixels += other.pixels

    def confusion(self) -> Confusion:
        """All photos in one matrix."""
        confusion = Confusion(self.num_classes)
        flat = confusion.matrix.reshape(-1)
        for cells, pixels in zip(self.cells, self.pixels, strict=True):
            flat[cells] += pixels
        return confusion

    def naming(self) -> Confusion:
        """The naming oracle: true masks, predicted names.

        Every true region, the pixels of one class in one photo, takes as a whole the label that most of its
        pixels were given (of equals the first). What is lost to 100 is then the names' fault alone.
        """
        confusion = Confusion(self.num_classes)
        for cells, pixels in zip(self.cells, self.pixels, strict=True):
            rows = cells // self.num_classes
            for row in np.unique(rows):
                mine = rows == row
                best = cells[mine][np.argmax(pixels[mine])] % self.num_classes
                confusion.matrix[row, best] += pixels[mine].sum()
        return confusion

    def totals(self) -> PhotoTotals:
        """Pixels hit, true and predicted, per photo and class."""
        shape = (len(self.stems), self.num_classes)
        hit, truth, predicted = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        for index, (cells, pixels) in enumerate(zip(self.cells, self.pixels, strict=True)):
            rows, columns = np.divmod(cells, self.num_classes)
            np.add.at(truth[index], rows, pixels)
            np.add.at(predicted[index], columns, pixels)
            right = rows == columns
            hit[index, rows[right]] = pixels[right]
        return PhotoTotals(hit, truth, predicted)

    def size_buckets(self, labels: Sequence[int]) -> dict[str, float]:
        """Mean IoU in percent of true regions (one class in one photo) by size.

        Args:
            labels: classes that count; background is left out by not naming it.
        """
        totals = self.totals()
        shares = totals.truth / np.maximum(totals.truth.sum(axis=1, keepdims=True), 1)
        ious = iou_of(totals.hit, totals.truth, totals.predicted)
        ious, shares = ious[:, labels], shares[:, labels]
        return {
            name: mean_percent(ious[(shares > 0) & (shares >= low) & (shares < high)])
            for name, (low, high) in SIZE_BUCKETS.items()
        }

    def photo_miou(self) -> npt.NDArray[np.float64]:
        """``[n]`` mean IoU in percent of each photo alone, over the classes in its truth or prediction."""
        totals = self.totals()
        ious = iou_of(totals.hit, totals.truth, totals.predicted)
        return np.array([mean_percent(row) for row in ious])

    def to_arrays(self) -> Arrays:
        """Plain arrays for a file."""
        lengths = np.array([len(cells) for cells in self.cells], dtype=np.int64)
        empty = [np.zeros(0, dtype=np.int64)]
        return {
            "stems": np.array(self.stems, dtype=np.str_),
            "lengths": lengths,
            "cells": np.concatenate(self.cells or empty),
            "pixels": np.concatenate(self.pixels or empty),
        }

    @classmethod
    def from_arrays(cls, num_classes: int, arrays: Arrays) -> Self:
        """Counts from :meth:`to_arrays`.

        Raises:
            MixreorgError: arrays of other classes, or that do not belong together.
            KeyError: one that is missing.
        """
        stems, lengths, cells, pixels = (arrays[name] for name in ("stems", "lengths", "cells", "pixels"))
        numbers = (lengths, cells, pixels)
        fits = (
            stems.ndim == 1
            and all(item.ndim == 1 and np.issubdtype(item.dtype, np.integer) for item in numbers)
            and len(stems) == len(lengths)
            and int(lengths.sum()) == len(cells) == len(pixels)
            and bool((lengths >= 0).all() and (cells >= 0).all() and (cells < num_classes**2).all())
        )
        if not fits:
            raise MixreorgError(f"the counts per photo do not belong together, or are not of {num_classes} classes")
        stops = np.cumsum(lengths.astype(np.int64))[:-1]
        return cls(
            num_classes,
            [str(stem) for stem in stems],
            np.split(cells.astype(np.int64), stops) if len(stems) else [],
            np.split(pixels.astype(np.int64), stops) if len(stems) else [],
        )

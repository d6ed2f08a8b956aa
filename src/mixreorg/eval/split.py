"""What evaluation asks of a data set: photos, masks, and the classes that the masks are about."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mixreorg.segment.results import BACKGROUND
from mixreorg.text.class_list import ClassName

Mask = npt.NDArray[np.int32]

VOID = -1
"""Label of pixels that count nowhere, in masks as read; whatever value the files use."""


class EvalSplit(Protocol):
    """One split of a benchmark with its official masks.

    Labels in masks are dense. With background, 0 is background and ``i`` is ``classes[i - 1]``; without, ``i``
    is ``classes[i]``.
    """

    @property
    def name(self) -> str:
        """What reports call it, for example ``val`` or ``voc21/val``."""

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The ``C`` classes that photos are compared with, background never among them."""

    @property
    def has_background(self) -> bool:
        """Whether label 0 is background."""

    @property
    def stems(self) -> tuple[str, ...]:
        """One identifier per photo, in the official order."""

    def photo_path(self, stem: str) -> Path:
        """Path of a photo."""

    def read_mask(self, stem: str) -> Mask:
        """``[H, W]`` int32 labels of the photo's size, :data:`VOID` for pixels that count nowhere.

        Raises:
            MixreorgError: missing, unreadable, no index mask, or labels that the class list does not have; it
                names the file and the remedy.
        """


def label_names(split: EvalSplit) -> tuple[str, ...]:
    """Names by label: background first where the split has it."""
    names = tuple(item.name for item in split.classes)
    return (BACKGROUND, *names) if split.has_background else names


def class_labels(split: EvalSplit, mask: Mask) -> Mask:
    """The mask in indices of ``split.classes``; background and void are negative."""
    return mask - 1 if split.has_background else mask

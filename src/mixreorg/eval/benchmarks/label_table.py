"""From the values that masks store to dense labels, and the errors of masks that store something else."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.eval.index_masks import StoredMask
from mixreorg.eval.split import VOID, Mask

_UNKNOWN = -2
_STORED_VOID = 255


@dataclass(frozen=True)
class LabelTable:
    """Dense label of every value that a form of masks may store."""

    dense: Mapping[int, int]
    """Stored value to dense label; :data:`~mixreorg.eval.split.VOID` for values that count nowhere."""
    remedy: str = "take the masks of the official archive as they are"
    """What to do about other values; ends the error message."""
    void_is_largest: bool = False
    """The largest value of the file's type, 255 or 65535, is void as well: masks of own folders."""

    @cached_property
    def _lookup(self) -> npt.NDArray[np.int32]:
        lookup = np.full(max(max(self.dense), 255) + 1, _UNKNOWN, dtype=np.int32)
        lookup[list(self.dense)] = list(self.dense.values())
        return lookup

    def apply(self, stored: StoredMask, path: Path) -> Mask:
        """Translate a mask.

        Args:
            stored: ``[H, W]`` values as the file holds them.
            path: named by the error.

        Returns:
            ``[H, W]`` dense labels and void.

        Raises:
            MixreorgError: values that this form of masks does not have.
        """
        known = np.clip(stored, 0, len(self._lookup) - 1)
        labels: Mask = self._lookup[known]
        labels[known != stored] = _UNKNOWN
        if self.void_is_largest:
            labels[stored == np.iinfo(stored.dtype).max] = VOID
        if (labels == _UNKNOWN).any():
            values = np.unique(stored[labels == _UNKNOWN])
            shown = ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")
            plural = "s" if len(values) > 1 else ""
            raise MixreorgError(f"{path} holds the unknown label{plural} {shown}; {self.remedy}")
        return labels


def identity_table(num_labels: int, *, void: bool = True) -> LabelTable:
    """Masks that store dense labels already, and 255 for void."""
    dense = {label: label for label in range(num_labels)}
    if void:
        dense[_STORED_VOID] = VOID
    return LabelTable(dense)


def to_stored(labels: Mask) -> npt.NDArray[np.uint8]:
    """Dense labels below 255 as the bytes of a mask that :func:`identity_table` reads; void becomes 255."""
    stored: npt.NDArray[np.uint8] = np.where(labels == VOID, _STORED_VOID, labels).astype(np.uint8)
    return stored

"""PASCAL Context: from the official .mat label files of 459 classes to masks of 59 classes and background."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.class_table import class_table

NUM_LABELS = 459
"""Classes of the official label files; they count from 1."""

_VARIABLE = "LabelMap"
_HINT = "take the file of trainval.tar.gz"


def find_label_folder(folders: Iterable[Path]) -> Path | None:
    """The first folder named ``trainval`` with .mat files in one of these folders, or None."""
    for folder in folders:
        if next((folder / "trainval").glob("*.mat"), None) is not None:
            return folder / "trainval"
    return None


def check_label_list(folder: Path) -> None:
    """Compare a ``labels.txt`` beside the label files, where there is one, with the labels that are converted.

    Raises:
        MixreorgError: it gives one of the 59 classes another label.
    """
    for path in (folder / "labels.txt", folder.parent / "labels.txt"):
        if not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        listed = {name.strip(): label.strip() for label, _, name in (line.partition(":") for line in lines)}
        for row in class_table("context").classes:
            found = listed.get(row.name)
            if found != str(row.label):
                where = "does not name" if found is None else f"gives the label {found} to"
                raise MixreorgError(
                    f"{path} {where} {row.name!r}, which is label {row.label} in the official list of {NUM_LABELS}; "
                    "take labels.txt and trainval.tar.gz of the same official version"
                )


def convert_label_file(path: Path) -> npt.NDArray[np.uint8]:
    """Read one official label file.

    Args:
        path: MATLAB file with the ``[H, W]`` matrix ``LabelMap``; 1 .. 459, or 0 where nothing is labelled.

    Returns:
        ``[H, W]``: 1 .. 59 for the frequent classes in alphabetical order, 0 for everything else.

    Raises:
        MixreorgError: missing, not a MATLAB file, no label map in it, or labels out of range.
    """
    import scipy.io  # in the extra "benchmarks": only this data set has MATLAB files

    try:
        content = scipy.io.loadmat(path, variable_names=[_VARIABLE])
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}; {_HINT}") from error
    except Exception as error:  # damaged data raises whatever the reader happens to meet
        raise MixreorgError(f"{path} is not a readable MATLAB file ({error}); {_HINT}") from error
    labels = content.get(_VARIABLE)
    if labels is None or labels.ndim != 2 or labels.dtype.kind not in "uif":
        raise MixreorgError(f"{path} holds no matrix {_VARIABLE} of labels; {_HINT}")
    if labels.min() < 0 or labels.max() > NUM_LABELS or (labels != np.floor(labels)).any():
        raise MixreorgError(f"{path} holds labels outside 0 .. {NUM_LABELS}; {_HINT}")
    lookup = np.zeros(NUM_LABELS + 1, dtype=np.uint8)
    for place, label in enumerate(class_table("context").labels(), start=1):
        lookup[label] = place
    converted: npt.NDArray[np.uint8] = lookup[labels.astype(np.int64)]
    return converted

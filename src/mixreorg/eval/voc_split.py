"""A split of photos with masks in VOC layout and a ``classes.txt``: the scenes, VOC itself, or own data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixreorg.errors import MixreorgError
from mixreorg.eval.index_masks import read_stored_mask
from mixreorg.eval.split import VOID, Mask
from mixreorg.text.class_list import ClassName


@dataclass(frozen=True)
class VocSplit:
    """Photos and masks of one split.

    Layout::

        ROOT/classes.txt                              one name per line; the first is "background" (index 0)
        ROOT/ImageSets/Segmentation/SPLIT.txt         one stem per line
        ROOT/JPEGImages/STEM.jpg
        ROOT/SegmentationClass/STEM.png               class indices, 8 or 16 bits; the largest value is void
    """

    root: Path
    name: str
    class_names: tuple[str, ...]
    """``C`` foreground names; index i in a mask is ``class_names[i - 1]``, 0 is background."""
    stems: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The foreground classes, each with its name as its one phrase."""
        return tuple(ClassName(name) for name in self.class_names)

    @property
    def has_background(self) -> bool:
        """True: index 0 is background."""
        return True

    def photo_path(self, stem: str) -> Path:
        """Path of a photo."""
        return self.root / "JPEGImages" / f"{stem}.jpg"

    def read_mask(self, stem: str) -> Mask:
        """``[H, W]`` int32 mask: 0 background, 1 .. C classes, -1 void (255, or 65535 in a 16-bit mask).

        Raises:
            MixreorgError: missing, an RGB picture, or labels that the class list does not have.
        """
        path = self.root / "SegmentationClass" / f"{stem}.png"
        mask = read_index_png(path)
        largest = int(mask.max())
        if largest > len(self.class_names):
            raise MixreorgError(
                f"{path} holds the label {largest}, but classes.txt has {len(self.class_names)} classes "
                "after background; use the class list that the masks were made with"
            )
        return mask


def read_index_png(path: Path) -> Mask:
    """Values of a PNG that holds one index per pixel: palette, 8 or 16 bits of grey.

    Returns:
        ``[H, W]`` int32; the largest value that the file can hold, void, becomes -1.

    Raises:
        MixreorgError: missing, damaged, or an RGB picture.
    """
    stored = read_stored_mask(path)
    mask = stored.astype(np.int32)
    mask[stored == np.iinfo(stored.dtype).max] = VOID
    return mask


def open_voc_split(root: Path, name: str, max_images: int | None = None) -> VocSplit:
    """Open a split and check that its files are there.

    Args:
        root: folder in VOC layout.
        name: split, for example ``val``.
        max_images: only the first so many.

    Raises:
        MixreorgError: missing folder, list, photo or mask, or an empty split.
    """
    classes_path, list_path = root / "classes.txt", root / "ImageSets" / "Segmentation" / f"{name}.txt"
    names = [line.strip() for line in _read_lines(classes_path) if line.strip()]
    if len(names) < 2 or names[0] != "background":
        raise MixreorgError(f"{classes_path} must name 'background' first and then at least one class")
    stems = tuple(line.strip() for line in _read_lines(list_path) if line.strip())[:max_images]
    if not stems:
        raise MixreorgError(f"{list_path} lists no photos")
    split = VocSplit(root, name, tuple(names[1:]), stems)
    for stem in stems:
        for path in (split.photo_path(stem), root / "SegmentationClass" / f"{stem}.png"):
            if not path.is_file():
                raise MixreorgError(f"{list_path} lists {stem!r}, but {path} is missing")
    return split


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MixreorgError(
            f"cannot read {path}: {error.strerror or error}; expected a folder in VOC layout"
        ) from error
    except UnicodeDecodeError as error:
        raise MixreorgError(f"{path} is not UTF-8 text; save it as UTF-8") from error

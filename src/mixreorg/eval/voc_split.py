"""A split of photos with masks in VOC layout whose class list begins with background: the scenes, VOC, or own data."""

from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.benchmarks.own_folder import open_own_folder


def open_voc_split(root: Path, name: str, max_images: int | None = None) -> BenchmarkSplit:
    """Open a split and check that its files are there.

    Layout::

        ROOT/classes.txt                              one class per line; the first is "background" (index 0)
        ROOT/ImageSets/Segmentation/SPLIT.txt         one stem per line
        ROOT/JPEGImages/STEM.jpg
        ROOT/SegmentationClass/STEM.png               class indices, 8 or 16 bits; the largest value is void

    Args:
        root: folder in VOC layout.
        name: split, for example ``val``.
        max_images: only the first so many.

    Raises:
        MixreorgError: missing folder, list, photo or mask, an empty split, or a class list without background.
    """
    split = open_own_folder("voc_folder", root, name, max_images=max_images)
    if not split.has_background:
        raise MixreorgError(f"{root / 'classes.txt'} must name 'background' first and then at least one class")
    return split

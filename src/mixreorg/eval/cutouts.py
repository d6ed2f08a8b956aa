"""Objects cut out of photos with instance masks, as a folder of pictures that scenes can be drawn with."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from mixreorg.data.progress import progress_bars
from mixreorg.data.scenes.classes import class_names
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.index_masks import read_stored_mask
from mixreorg.eval.split import VOID
from mixreorg.files import write_atomically
from mixreorg.segment.photos import read_photo

# Names of PASCAL VOC, COCO and ADE20K for what the scenes call otherwise.
_SCENE_NAMES = {
    "aeroplane": "airplane",
    "couch": "sofa",
    "handbag": "bag",
    "hot dog": "hotdog",
    "motorbike": "motorcycle",
    "potted plant": "houseplant",
    "pottedplant": "houseplant",
    "sports ball": "ball",
    "tie": "necktie",
    "tv": "television",
    "tvmonitor": "television",
}


@dataclass(frozen=True)
class CutoutCounts:
    """What was cut out."""

    pictures: dict[str, int]
    """Number of pictures by scene class, in the order of the split's classes."""
    other_classes: tuple[str, ...]
    """Classes of the split that the scenes do not have."""


def write_cutouts(split: BenchmarkSplit, out: Path, min_side: int = 64, console: Console | None = None) -> CutoutCounts:
    """Write each object of a split as ``OUT/CLASS/STEM_NUMBER.png``, transparent where the photo shows anything else.

    Left out are objects that touch the edge of the photo, for they are mostly cut off by it, small ones, and those of
    classes that the scenes do not have. Running it again writes the same files.

    Args:
        split: photos and class masks; ``SegmentationObject/STEM.png`` beside them numbers the objects from 1
            (0 is background, 255 void), as in PASCAL VOC.
        out: folder to fill.
        min_side: smallest longer side of an object in pixels.
        console: shows the progress; none is shown without it.

    Raises:
        MixreorgError: a file is missing or cannot be read or written, masks of different sizes, or nothing was cut out.
    """
    known = set(class_names())
    scene_names = [_SCENE_NAMES.get(name, name) for name in split.class_names]
    counts: Counter[str] = Counter()
    with progress_bars(console) as progress:
        bar = progress.add_task("photos", total=len(split.stems))
        for stem in split.stems:
            photo = np.asarray(read_photo(split.photo_path(stem)))
            for number, label, mask in _objects(split, stem, photo.shape[:2]):
                name = scene_names[label - 1]
                if name in known and _is_whole(mask) and max(_box(mask)[2:]) >= min_side:
                    _write(_cut(photo, mask), out / name / f"{stem}_{number}.png")
                    counts[name] += 1
            progress.advance(bar)
    if not counts:
        raise MixreorgError(
            f"{split.name} has no object of a scene class that lies within its photo and is {min_side} "
            "pixels long; lower --min-side or name another split"
        )
    return CutoutCounts(
        {name: counts[name] for name in scene_names if counts[name]},
        tuple(name for name, scene_name in zip(split.class_names, scene_names, strict=True) if scene_name not in known),
    )


def _objects(
    split: BenchmarkSplit, stem: str, photo_size: tuple[int, ...]
) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
    """Number, label and mask of each object of a photo."""
    path = split.place.folder / "SegmentationObject" / f"{stem}.png"
    if not path.is_file():
        raise MixreorgError(f"{path} is missing: cutting out objects needs masks that tell them apart")
    classes, numbers = split.read_mask(stem), read_stored_mask(path)
    if not classes.shape == numbers.shape == photo_size:
        raise MixreorgError(f"photo, class mask and object mask of {stem!r} in {split.place.folder} differ in size")
    # The largest value that the file can hold is void.
    is_object = (numbers > 0) & (numbers != np.iinfo(numbers.dtype).max)
    for number in np.unique(numbers[is_object]):
        mask = numbers == number
        labels, sizes = np.unique(classes[mask], return_counts=True)
        label = int(labels[sizes.argmax()])
        if label not in (0, VOID):
            yield int(number), label, mask


def _is_whole(mask: npt.NDArray[np.bool_]) -> bool:
    return not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, width and height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1


def _cut(photo: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Image.Image:
    left, top, width, height = _box(mask)
    window = (slice(top, top + height), slice(left, left + width))
    alpha = (255 * mask[window]).astype(np.uint8)
    return Image.fromarray(np.dstack([photo[window], alpha]))


def _write(picture: Image.Image, path: Path) -> None:
    write_atomically(path, lambda temporary: picture.save(temporary, "PNG"))

"""One split of a benchmark or of an own folder: photos, masks in dense labels, classes with their prompts."""

from dataclasses import dataclass
from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.layout import MaskForm, Place
from mixreorg.eval.index_masks import read_stored_mask
from mixreorg.eval.split import Mask
from mixreorg.segment.protocol import hash_values
from mixreorg.text.class_list import ClassName

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of photos."""


@dataclass(frozen=True)
class BenchmarkSplit:
    """Photos and masks of one split; an :class:`~mixreorg.eval.split.EvalSplit`."""

    name: str
    """Benchmark and split, for example ``voc21/val``."""
    classes: tuple[ClassName, ...]
    """The ``C`` classes with their prompt phrases, background never among them."""
    has_background: bool
    """Whether label 0 is background."""
    stems: tuple[str, ...]
    """One per photo, in the official order; Cityscapes' hold the city, ``frankfurt/frankfurt_000000_000294``."""
    place: Place
    """Where the files are."""
    form: MaskForm
    """Which masks are read."""
    pattern: str
    """The masks' files."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(item.name for item in self.classes)

    def photo_path(self, stem: str) -> Path:
        """Path of a photo."""
        return self.place.photo(stem)

    def mask_path(self, stem: str) -> Path:
        """Path of a mask."""
        return self.place.mask(self.pattern, stem)

    def read_mask(self, stem: str) -> Mask:
        """``[H, W]`` int32 dense labels, void where the benchmark does not evaluate.

        Raises:
            MixreorgError: missing, unreadable, a picture of colours, or labels that the benchmark does not have.
        """
        path = self.mask_path(stem)
        return self.form.labels.apply(read_stored_mask(path), path)

    def files_digest(self) -> str:
        """Digest of sizes and times of all files: other data of the same name, or a mended mask, has another."""
        status = [path(stem).stat() for stem in self.stems for path in (self.photo_path, self.mask_path)]
        return hash_values({"files": [(item.st_size, item.st_mtime_ns) for item in status]})


def check_files_exist(split: BenchmarkSplit, where: Path) -> None:
    """Check that photo and mask of every stem are there.

    Raises:
        MixreorgError: the first that is missing, and how many are.
    """
    paths = [path for stem in split.stems for path in (split.photo_path(stem), split.mask_path(stem))]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        remedy = "unpack the archives again, or list only the photos that are there"
        others = [path for path in map(missing[0].with_suffix, PHOTO_SUFFIXES) if path.is_file()]
        if others and missing[0] in map(split.photo_path, split.stems):
            remedy = f"{others[0].name} is there: give all photos one ending"
        raise MixreorgError(
            f"{where} names {len(split.stems):,} photos, but {missing[0]} is missing"
            + (f" and {len(missing) - 1:,} more files are" if len(missing) > 1 else "")
            + f"; {remedy}"
        )

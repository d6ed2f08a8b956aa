"""Where the photos, masks and lists of a benchmark lie under the folder that the user names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.label_table import LabelTable


@dataclass(frozen=True)
class MaskForm:
    """One of the forms in which masks of a benchmark exist: the official one, or one that tools convert to."""

    name: str
    """What reports call it."""
    patterns: tuple[str, ...]
    """Files relative to the benchmark's folder, with ``{split}`` and ``{stem}``; the first that exists is taken."""
    labels: LabelTable
    """Meaning of the stored values."""


@dataclass(frozen=True)
class Layout:
    """Folders of a data set as its archives unpack. All paths are relative and in POSIX form."""

    folders: tuple[str, ...]
    """Where the data set may lie under the user's folder; ``.`` is that folder itself."""
    photos: tuple[str, ...]
    """Patterns of photos, with ``{split}`` and ``{stem}``."""
    tree: str
    """The folder in words, for messages."""
    source: str
    """Where the archives come from."""
    lists: tuple[str, ...] = ()
    """Files that list the stems of a split, in order of preference; without any, all photos count."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Folder names of splits that differ from the split's name."""
    traps: tuple[tuple[str, str], ...] = ()
    """Glob patterns of what people unpack instead, and what to tell them."""

    def folder_of(self, split: str) -> str:
        """Folder name of a split."""
        return self.splits.get(split, split)


@dataclass(frozen=True)
class Place:
    """A data set that was found."""

    folder: Path
    """Folder that all patterns are relative to."""
    photos: str
    """Pattern of its photos."""
    split: str
    """Folder name of the split."""

    def photo(self, stem: str) -> Path:
        """Path of a photo."""
        return self.folder / self.photos.format(split=self.split, stem=stem)

    def mask(self, pattern: str, stem: str) -> Path:
        """Path of a mask by the pattern of its form."""
        return self.folder / pattern.format(split=self.split, stem=stem)


def find_place(layout: Layout, root: Path, split: str, title: str) -> Place:
    """Find a data set under the user's folder.

    Args:
        layout: what to look for.
        root: the folder of this data set, or one that holds it among others.
        split: name of the split.
        title: name of the data set, for the message.

    Raises:
        MixreorgError: no such folder, or nothing in it that looks like the data set.
    """
    if not root.is_dir():
        raise MixreorgError(f"{root} is not a folder; name the folder of {title}: {layout.tree}")
    for name in layout.folders:
        for pattern in layout.photos:
            place = Place(root / name, pattern, layout.folder_of(split))
            if _fixed_part(place.folder, pattern, place.split).is_dir():
                return place
    trap = spot_trap(layout, root)
    reason = trap or f"expected {layout.tree}; get it from {layout.source}"
    raise MixreorgError(f"no {title} with a split {split!r} under {root}: {reason}")


def spot_trap(layout: Layout, root: Path) -> str | None:
    """What to tell people who have something else that looks alike, or None."""
    folders = [root, *(root / name for name in layout.folders)]
    for pattern, message in layout.traps:
        if any(next(folder.glob(pattern), None) is not None for folder in folders if folder.is_dir()):
            return message
    return None


def list_stems(layout: Layout, place: Place, split: str) -> tuple[tuple[str, ...], Path]:
    """Stems of a split in the official order, and the file or folder that names them.

    Raises:
        MixreorgError: no list, an unreadable or empty one, or no photos.
    """
    for name in layout.lists:
        path = place.folder / name.format(split=split)
        if path.is_file():
            return _read_list(path), path
    if layout.lists:
        names = " or ".join(name.format(split=split) for name in layout.lists)
        raise MixreorgError(f"{place.folder} has no list of the split {split!r}: {names} is missing; {layout.tree}")
    return _list_photos(place), _fixed_part(place.folder, place.photos, place.split)


def _read_list(path: Path) -> tuple[str, ...]:
    """Stems in a list, one per line.

    Raises:
        MixreorgError: unreadable, empty, or a stem twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MixreorgError(f"{path} is not UTF-8 text; take the official file") from error
    stems = tuple(line.strip() for line in lines if line.strip())
    if not stems:
        raise MixreorgError(f"{path} lists no photos; take the official file")
    if len(set(stems)) < len(stems):
        repeated = next(stem for index, stem in enumerate(stems) if stem in stems[:index])
        raise MixreorgError(f"{path} lists {repeated!r} twice; take the official file")
    return stems


def _list_photos(place: Place) -> tuple[str, ...]:
    before, after = place.photos.format(split=place.split, stem="\0").split("\0")
    folder = place.folder / before
    # Cityscapes has one folder per city, so its stems hold a slash.
    found = [path.relative_to(folder).as_posix() for path in folder.rglob(f"*{after}")]
    stems = tuple(sorted(name.removesuffix(after) for name in found if not Path(name).name.startswith(".")))
    if not stems:
        raise MixreorgError(f"{folder} holds no photos named *{after}; unpack the archive of the photos again")
    return stems


def _fixed_part(folder: Path, pattern: str, split: str) -> Path:
    return folder / pattern.format(split=split, stem="\0").split("\0")[0]

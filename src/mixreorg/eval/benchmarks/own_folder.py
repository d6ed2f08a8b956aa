"""Any folder in the layout of VOC or ADE20K, with a class list."""

from dataclasses import replace
from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import PHOTO_SUFFIXES, BenchmarkSplit, check_files_exist
from mixreorg.eval.benchmarks.label_table import LabelTable
from mixreorg.eval.benchmarks.layout import Layout, MaskForm, find_place, list_stems
from mixreorg.eval.split import VOID
from mixreorg.text.class_list import ClassName, parse_class_list

_FORM = "class indices"

OWN_LAYOUTS = {
    "voc_folder": Layout(
        folders=(".",),
        photos=tuple(f"JPEGImages/{{stem}}{suffix}" for suffix in PHOTO_SUFFIXES),
        lists=("ImageSets/Segmentation/{split}.txt",),
        tree="a folder with JPEGImages, SegmentationClass and ImageSets/Segmentation/SPLIT.txt",
        source="your own data",
    ),
    "ade_folder": Layout(
        folders=(".",),
        photos=tuple(f"images/{{split}}/{{stem}}{suffix}" for suffix in PHOTO_SUFFIXES),
        tree="a folder with images/SPLIT and annotations/SPLIT",
        source="your own data",
    ),
}
"""Layouts of own data by the name that commands take."""

_MASKS = {"voc_folder": "SegmentationClass/{stem}.png", "ade_folder": "annotations/{split}/{stem}.png"}


def open_own_folder(
    kind: str, root: Path, split: str, *, classes: Path | None = None, max_images: int | None = None
) -> BenchmarkSplit:
    """Open own data.

    Label 0 of the masks is background where the class list begins with "background", and is not evaluated
    otherwise; i is the i-th class after it. The largest value of the masks' type, 255 or 65535, is void.

    Args:
        kind: ``voc_folder`` or ``ade_folder``.
        root: the folder.
        split: name of the split.
        classes: one class per line in the syntax of class lists; ``classes.txt`` in the folder by default.
        max_images: only the first so many photos.

    Raises:
        MixreorgError: missing folder, list, photo or mask, an empty split, an unusable class list.
    """
    layout = OWN_LAYOUTS[kind]
    path = classes or root / "classes.txt"
    names, has_background = read_own_classes(path)
    place = find_place(_with_suffix(layout, root, split), root, split, f"data in the layout of {kind}")
    stems, where = list_stems(layout, place, split)
    shift = 0 if has_background else 1
    dense = {0: 0 if has_background else VOID} | {label: label - shift for label in range(1, len(names) + 1)}
    remedy = f"{path} has {len(names)} classes: use the class list that the masks were made with"
    form = MaskForm(_FORM, (_MASKS[kind],), LabelTable(dense, remedy, void_is_largest=True))
    name = f"{root.resolve().name}/{split}"
    opened = BenchmarkSplit(name, names, has_background, stems[:max_images], place, form, _MASKS[kind])
    check_files_exist(opened, where)
    return opened


def read_own_classes(path: Path) -> tuple[tuple[ClassName, ...], bool]:
    """The classes of a list without background, and whether it begins with background.

    Raises:
        MixreorgError: missing, unreadable, no class besides background, or phrases for it.
    """
    listed = parse_class_list(path)
    has_background = listed[0].name.casefold() == "background"
    if has_background and listed[0].phrases != (listed[0].name,):
        raise MixreorgError(
            f"{path} gives the background phrases of its own; write the name alone, and put the phrases into a "
            "protocol's segmentation.background_phrases"
        )
    names = listed[1:] if has_background else listed
    if not names:
        raise MixreorgError(f"{path} names no class besides background; write one per line")
    return names, has_background


def _with_suffix(layout: Layout, root: Path, split: str) -> Layout:
    """The layout with the pattern of the photos that are there: patterns differ in the file's suffix alone.

    Raises:
        MixreorgError: a suffix in capitals; or several where no list says which photos are meant.
    """
    folder = root / Path(layout.photos[0].format(split=split, stem="*")).parent
    suffixes = {path.suffix for path in folder.glob("*") if not path.name.startswith(".")}
    photos = sorted(suffix for suffix in suffixes if suffix.lower() in PHOTO_SUFFIXES)
    if (len(photos) > 1 and not layout.lists) or not {*photos} <= {*PHOTO_SUFFIXES}:
        raise MixreorgError(
            f"the photos in {folder} end in {', '.join(photos)}; give all of them one ending: "
            f"{', '.join(PHOTO_SUFFIXES[:-1])} or {PHOTO_SUFFIXES[-1]}"
        )
    patterns = tuple(pattern for pattern in layout.photos if Path(pattern).suffix in photos)
    return replace(layout, photos=patterns or layout.photos)

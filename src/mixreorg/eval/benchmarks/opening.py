"""Opening a benchmark by its name."""

from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit, check_files_exist
from mixreorg.eval.benchmarks.class_table import Naming
from mixreorg.eval.benchmarks.layout import MaskForm, Place, find_place, list_stems, spot_trap
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS, open_own_folder
from mixreorg.eval.benchmarks.registry import Benchmark, benchmark

DEFAULT_NAMING: Naming = "groupvit"
"""Names of the benchmarks' default protocol."""


def open_benchmark(
    name: str,
    root: Path,
    split: str = "val",
    *,
    naming: Naming = DEFAULT_NAMING,
    classes: Path | None = None,
    max_images: int | None = None,
) -> BenchmarkSplit:
    """Open a benchmark and check that the files of every photo are there.

    Args:
        name: name or alias, for example ``voc21``; ``voc_folder`` or ``ade_folder`` for own data.
        root: the data set's folder, or one that holds it among others; own data: its folder.
        split: name of the split, ``val`` for all published results.
        naming: whose names the classes are prompted with; own data has its own.
        classes: class list of own data.
        max_images: only the first so many photos.

    Raises:
        MixreorgError: unknown benchmark or naming, nothing found, no masks that can be read as they are, an empty
            split, a missing photo or mask, a class list for a benchmark that has its own.
    """
    if name in OWN_LAYOUTS:
        return open_own_folder(name, root, split, classes=classes, max_images=max_images)
    item = benchmark(name)
    if classes is not None:
        raise MixreorgError(f"{item.title} has its own classes; a class list is for {' and '.join(OWN_LAYOUTS)}")
    names = item.table.class_names(naming)
    place = find_place(item.layout, root, split, item.title)
    listed, where = list_stems(item.layout, place, split)
    stems = listed[:max_images]
    form, pattern = require_form(item, place, stems[0])
    opened = BenchmarkSplit(f"{item.name}/{split}", names, item.has_background, stems, place, form, pattern)
    check_files_exist(opened, where)
    return opened


def find_form(item: Benchmark, place: Place, stem: str) -> tuple[MaskForm, str] | None:
    """The preferred form of masks that is there for a photo with the pattern of its files, or None."""
    for form in item.forms:
        for pattern in form.patterns:
            if place.mask(pattern, stem).is_file():
                return form, pattern
    return None


def require_form(item: Benchmark, place: Place, stem: str) -> tuple[MaskForm, str]:
    """As :func:`find_form`.

    Raises:
        MixreorgError: there is none; it says what is expected and, where that helps, how to make it.
    """
    found = find_form(item, place, stem)
    if found is not None:
        return found
    trap = spot_trap(item.layout, place.folder)
    expected = " or ".join(form.patterns[0].format(split=place.split, stem=stem) for form in item.forms)
    made = any(conversion.kind != "relabel" for conversion in item.conversions)
    prepare = f"; 'mixreorg data prepare {item.name} ROOT' makes masks from official label files" if made else ""
    reason = f"expected {expected}; the data set is {item.layout.tree}{prepare}"
    if trap is not None:
        reason += f". Found instead: {trap}"
    raise MixreorgError(f"{place.folder} has no mask of {stem!r}: {reason}")

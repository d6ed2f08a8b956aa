"""``mixreorg data prepare``: convert what a benchmark needs, then check what is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from mixreorg.data.progress import progress_bars
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.check import CheckReport, check_split
from mixreorg.eval.benchmarks.coco_instances import InstancesFile
from mixreorg.eval.benchmarks.context_labels import check_label_list, convert_label_file, find_label_folder
from mixreorg.eval.benchmarks.conversion import Converted, Task, convert_all
from mixreorg.eval.benchmarks.label_table import to_stored
from mixreorg.eval.benchmarks.layout import Place, find_place, list_stems
from mixreorg.eval.benchmarks.opening import find_form, open_benchmark
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS
from mixreorg.eval.benchmarks.registry import Benchmark, Conversion, benchmark
from mixreorg.eval.index_masks import read_stored_mask
from mixreorg.files import write_text


@dataclass(frozen=True)
class PrepareOptions:
    """What ``prepare`` does and how."""

    split: str = "val"
    """Name of the split."""
    check_only: bool = False
    """Write nothing."""
    sample: int | None = 200
    """Masks whose labels are read in the check; None for all."""
    labels: Path | None = None
    """PASCAL Context: folder of the official .mat files, where it is not found by itself."""
    classes: Path | None = None
    """Class list of own data."""
    workers: int | None = None
    """Threads of a conversion; one per core by default."""
    overwrite: bool = False
    """Write masks again that are there."""


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` did and found."""

    report: CheckReport
    """The check."""
    target: str | None
    """Form of masks that the conversion writes; None where nothing is to be converted."""
    converted: Converted
    """Numbers of the conversion."""


def prepare(name: str, root: Path, options: PrepareOptions, console: Console | None = None) -> Prepared:
    """Convert the masks of a benchmark where that is needed or published tools expect it, and check the split.

    Args:
        name: benchmark or alias, or ``voc_folder`` or ``ade_folder`` for own data.
        root: the data set's folder, or one that holds it among others.
        options: what to do.
        console: shows the progress; none is shown without it.

    Raises:
        MixreorgError: unknown benchmark, nothing found, files missing, or label files that cannot be converted.
    """
    item = None if name in OWN_LAYOUTS else benchmark(name)
    if options.labels is not None and (item is None or not item.name.startswith("context")):
        raise MixreorgError(f"{name} has no label files to convert; .mat files belong to PASCAL Context")
    if item is None or options.check_only:
        target, converted = None, Converted(0, 0)
    else:
        target, converted = _convert(item, root, options, console)
    split = open_benchmark(name, root, options.split, classes=options.classes)
    official = item.counts.get(options.split, ()) if item else ()
    voc_palette = item is not None and item.voc_palette
    with progress_bars(console) as progress:
        bar = progress.add_task(f"check {split.name}", total=len(split.stems))
        report = check_split(
            split, official, sample=options.sample, voc_palette=voc_palette, advance=lambda: progress.advance(bar)
        )
    return Prepared(report, target, converted)


def _convert(
    item: Benchmark, root: Path, options: PrepareOptions, console: Console | None
) -> tuple[str | None, Converted]:
    """Run the first conversion that has something to convert; returns the form it writes and numbers."""
    place = find_place(item.layout, root, options.split, item.title)
    for conversion in item.conversions:
        work = _Work(item, conversion, place, root, options, console)
        if conversion.kind == "relabel":
            converted = work.relabel()
        elif conversion.kind == "context_mat":
            converted = work.context()
        else:
            converted = work.instances()
        if converted is not None:
            return conversion.target, converted
    return None, Converted(0, 0)


@dataclass(frozen=True)
class _Work:
    """One conversion of one split; each method returns None where its source is not there."""

    item: Benchmark
    conversion: Conversion
    place: Place
    root: Path
    options: PrepareOptions
    console: Console | None

    def relabel(self) -> Converted | None:
        """Masks of another form to the published one, beside them."""
        stems, _ = list_stems(self.item.layout, self.place, self.options.split)
        found = find_form(self.item, self.place, stems[0])
        if found is None or found[0].name != self.conversion.source:
            return None
        source, pattern = found
        # Patterns of the two forms come in pairs: the same folders in the same order.
        target = self.item.form(self.conversion.target).patterns[source.patterns.index(pattern)]
        tasks = [Task(self.place.mask(pattern, stem), self.place.mask(target, stem), stem) for stem in stems]

        def convert(task: Task) -> npt.NDArray[np.uint8]:
            return to_stored(source.labels.apply(read_stored_mask(task.source), task.source))

        return self._run(tasks, convert)

    def context(self) -> Converted | None:
        """Official label files of PASCAL Context to masks and the list of their stems."""
        near = (self.place.folder, self.root, self.place.folder.parent, self.place.folder.parent.parent)
        folder = self.options.labels or find_label_folder((*near, self.root / "pascal_context"))
        if folder is None:
            return None
        check_label_list(folder)
        stems, listed = list_stems(self.item.layout, self.place, self.options.split)
        missing = [stem for stem in stems if not (folder / f"{stem}.mat").is_file()]
        if missing:
            raise MixreorgError(
                f"{listed} names {len(stems):,} photos, but {folder / missing[0]}.mat is missing and "
                f"{len(missing) - 1:,} more are; unpack trainval.tar.gz again"
            )
        target = self.item.form(self.conversion.target).patterns[0]
        tasks = [Task(folder / f"{stem}.mat", self.place.mask(target, stem), stem) for stem in stems]
        converted = self._run(tasks, lambda task: convert_label_file(task.source))
        # Other tools look for the stems here.
        published = self.place.folder / self.item.layout.lists[0].format(split=self.options.split)
        if listed != published:
            write_text(published, "".join(f"{stem}\n" for stem in stems))
        return converted

    def instances(self) -> Converted | None:
        """Instances of COCO to masks of COCO-Object."""
        stems, _ = list_stems(self.item.layout, self.place, self.options.split)
        found = find_form(self.item, self.place, stems[0])
        path = self.place.folder / "annotations" / f"instances_{self.place.split}.json"
        if not path.is_file() or (found is not None and found[0].name in self.conversion.only_without):
            return None
        target = self.item.form(self.conversion.target).patterns[0]
        tasks = [Task(path, self.place.mask(target, stem), stem) for stem in stems]
        file = InstancesFile(path)
        missing = [stem for stem in stems if stem not in file]
        if missing:
            raise MixreorgError(
                f"{path} lacks the photo {missing[0]} and {len(missing) - 1:,} others of {self.place.split}; take "
                "photos and annotations of one split"
            )
        return self._run(tasks, lambda task: file.draw(task.key))

    def _run(self, tasks: Sequence[Task], convert: Callable[[Task], npt.NDArray[np.uint8]]) -> Converted:
        return convert_all(
            tasks,
            convert,
            f"write {self.conversion.target}",
            workers=self.options.workers,
            overwrite=self.options.overwrite,
            console=self.console,
        )

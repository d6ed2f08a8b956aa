"""The benchmarks by name: what each one is, where its files lie and what its masks mean."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks import layouts
from mixreorg.eval.benchmarks.class_table import ClassTable, class_table
from mixreorg.eval.benchmarks.label_table import LabelTable, identity_table
from mixreorg.eval.benchmarks.layout import Layout, MaskForm
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS
from mixreorg.eval.split import VOID

ConversionKind = Literal["relabel", "context_mat", "coco_instances"]


@dataclass(frozen=True)
class Conversion:
    """How ``mixreorg data prepare`` makes masks of one form."""

    kind: ConversionKind
    """``relabel``: from the masks of another form; else from label files of another kind."""
    source: str
    """Form of masks, or kind of files, that are converted."""
    target: str
    """Form of masks that is written."""
    only_without: tuple[str, ...] = ()
    """Forms that make this conversion needless where they are there."""


@dataclass(frozen=True)
class Benchmark:
    """A data set as evaluations use it."""

    name: str
    """Name in commands and reports."""
    title: str
    """Name for people."""
    table: ClassTable
    """Its classes."""
    has_background: bool
    """Whether label 0 is background and counts as a class."""
    layout: Layout
    """Its files."""
    forms: tuple[MaskForm, ...]
    """Forms of masks that are read, in order of preference."""
    counts: Mapping[str, tuple[int, ...]]
    """Official numbers of photos by split; several where published lists differ."""
    conversions: tuple[Conversion, ...] = ()
    """What can be converted; the first for which there is something to convert is used."""
    voc_palette: bool = False
    """Palette masks carry VOC's colours, so that a re-ordered palette shows."""
    aliases: tuple[str, ...] = ()
    """Other names in commands."""

    @property
    def num_labels(self) -> int:
        """Number of dense labels: the classes, and background where it counts."""
        return len(self.table.classes) + self.has_background

    def form(self, name: str) -> MaskForm:
        """One of the forms of masks by name."""
        return next(form for form in self.forms if form.name == name)


def benchmark(name: str) -> Benchmark:
    """A benchmark by its name or one of its aliases.

    Raises:
        MixreorgError: unknown; the message holds the nearest name and all of them.
    """
    known = _by_name()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    known_names = f"{', '.join(benchmark_names())}; for own data {' and '.join(OWN_LAYOUTS)}"
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise MixreorgError(f"{name!r} is not a benchmark; {hint}Known: {known_names}")


def benchmark_names() -> tuple[str, ...]:
    """Names of all benchmarks, without aliases."""
    return tuple(item.name for item in _benchmarks())


@cache
def _by_name() -> Mapping[str, Benchmark]:
    known = {alias: item for item in _benchmarks() for alias in (item.name, *item.aliases)}
    return MappingProxyType(known)


@cache
def _benchmarks() -> tuple[Benchmark, ...]:
    return (*_voc(), *_context(), _coco_object(), _coco_stuff(), _ade(), _cityscapes())


def _voc() -> tuple[Benchmark, Benchmark]:
    table, remedy = class_table("voc"), "masks of VOC 2012 hold 0 to 20, and 255 for void"
    counts = {"train": (1464,), "val": (1449,), "trainval": (2913,)}
    patterns = ("SegmentationClass/{stem}.png",)

    def make(name: str, has_background: bool, aliases: tuple[str, ...] = ()) -> Benchmark:
        labels = _with_zero(len(table.classes), has_background, remedy)
        title = f"PASCAL VOC 2012 ({len(table.classes) + has_background} classes)"
        forms = (MaskForm("SegmentationClass", patterns, labels),)
        return Benchmark(
            name, title, table, has_background, layouts.VOC, forms, counts, voc_palette=True, aliases=aliases
        )

    return make("voc21", True, ("voc12", "voc2012", "voc")), make("voc20", False)


def _context() -> tuple[Benchmark, Benchmark]:
    table, remedy = class_table("context"), "converted masks of PASCAL Context hold 0 to 59; prepare them again"
    # VOC 2010 lists 5,105; the lists that come with the Detail API, which most papers used, lack 2 and 1 of them.
    counts = {"train": (4998, 4996), "val": (5105, 5104)}
    conversion = Conversion("context_mat", ".mat", "SegmentationClassContext")

    def make(name: str, has_background: bool, aliases: tuple[str, ...] = ()) -> Benchmark:
        labels = _with_zero(len(table.classes), has_background, remedy)
        title = f"PASCAL Context ({len(table.classes) + has_background} classes)"
        forms = (MaskForm("SegmentationClassContext", ("SegmentationClassContext/{stem}.png",), labels),)
        return Benchmark(
            name, title, table, has_background, layouts.CONTEXT, forms, counts, (conversion,), aliases=aliases
        )

    return make("context60", True, ("context", "pascal_context")), make("context59", False)


_COCO_COUNTS = {"train": (118287,), "val": (5000,)}
_COCO_FOLDERS = ("annotations/{split}", "stuffthingmaps/{split}", "stuffthingmaps_trainval2017/{split}")
_UNLABELLED = 255


def _stuff_maps(dense: Mapping[int, int]) -> MaskForm:
    """The maps of COCO-Stuff with the dense labels of one benchmark."""
    remedy = (
        "stuffthingmaps hold 0 to 181, and 255 for unlabelled; 182 and 183 belong to the pixel maps of the stuff "
        "task, which lack the things: take stuffthingmaps_trainval2017.zip"
    )
    patterns = tuple(f"{folder}/{{stem}}.png" for folder in _COCO_FOLDERS)
    return MaskForm("stuffthingmaps", patterns, LabelTable(dense, remedy))


def _converted_maps(suffix: str, num_labels: int, *, void: bool) -> MaskForm:
    """What tools write beside the maps of COCO-Stuff."""
    patterns = tuple(f"{folder}/{{stem}}{suffix}.png" for folder in _COCO_FOLDERS)
    return MaskForm(suffix, patterns, identity_table(num_labels, void=void))


def _coco_object() -> Benchmark:
    table = class_table("coco_object")
    # Everything that is no thing is background, unlabelled pixels too, as in GroupViT's conversion.
    rest = {*class_table("coco_stuff").labels(), _UNLABELLED} - set(table.labels())
    dense = dict.fromkeys(rest, 0) | {label: place for place, label in enumerate(table.labels(), start=1)}
    forms = (
        _stuff_maps(dense),
        _converted_maps("_instanceTrainIds", 81, void=False),
        MaskForm("instances", ("annotations/instances_{split}/{stem}.png",), identity_table(81, void=False)),
    )
    conversions = (
        Conversion("relabel", "stuffthingmaps", "_instanceTrainIds"),
        Conversion("coco_instances", "instances JSON", "instances", only_without=("_instanceTrainIds",)),
    )
    title = "COCO-Object (81 classes)"
    return Benchmark(
        "coco_object", title, table, True, layouts.COCO, forms, _COCO_COUNTS, conversions, aliases=("coco",)
    )


def _coco_stuff() -> Benchmark:
    table = class_table("coco_stuff")
    dense = {label: place for place, label in enumerate(table.labels())} | {_UNLABELLED: VOID}
    forms = (_stuff_maps(dense), _converted_maps("_labelTrainIds", 171, void=True))
    conversions = (Conversion("relabel", "stuffthingmaps", "_labelTrainIds"),)
    title = "COCO-Stuff 164k (171 classes)"
    return Benchmark(
        "coco_stuff", title, table, False, layouts.COCO, forms, _COCO_COUNTS, conversions, aliases=("coco_stuff164k",)
    )


def _ade() -> Benchmark:
    table = class_table("ade150")
    remedy = (
        "masks of SceneParse150 hold 0 to 150; 255 means that a tool has shifted them already: take the annotations "
        "of ADEChallengeData2016.zip"
    )
    forms = (MaskForm("annotations", ("annotations/{split}/{stem}.png",), _with_zero(150, False, remedy, void=False)),)
    counts = {"train": (20210,), "val": (2000,)}
    title = "ADE20K SceneParse150 (150 classes)"
    return Benchmark("ade150", title, table, False, layouts.ADE, forms, counts, aliases=("ade", "ade20k"))


def _cityscapes() -> Benchmark:
    table = class_table("cityscapes")
    folder, last_label = "gtFine/{split}", 33
    dense = dict.fromkeys((*range(last_label + 1), 255), VOID)
    dense |= {label: place for place, label in enumerate(table.labels())}
    remedy = f"labelIds of Cityscapes hold 0 to {last_label}; take gtFine_trainvaltest.zip"
    forms = (
        MaskForm("labelIds", (f"{folder}/{{stem}}_gtFine_labelIds.png",), LabelTable(dense, remedy)),
        MaskForm("labelTrainIds", (f"{folder}/{{stem}}_gtFine_labelTrainIds.png",), identity_table(19)),
    )
    conversions = (Conversion("relabel", "labelIds", "labelTrainIds"),)
    counts = {"train": (2975,), "val": (500,)}
    title = "Cityscapes (19 classes)"
    return Benchmark("cityscapes", title, table, False, layouts.CITYSCAPES, forms, counts, conversions)


def _with_zero(num_classes: int, has_background: bool, remedy: str, *, void: bool = True) -> LabelTable:
    """Masks with classes from 1 on, where 0 is background or is not evaluated."""
    shift = 0 if has_background else 1
    dense = {0: 0 if has_background else VOID} | {label: label - shift for label in range(1, num_classes + 1)}
    return LabelTable(dense | {255: VOID} if void else dense, remedy)

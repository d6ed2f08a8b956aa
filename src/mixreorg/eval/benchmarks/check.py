"""What is wrong with a split before a long run starts: numbers, sizes, labels, palettes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.split import VOID, Mask, label_names
from mixreorg.models.rgb import orientation_of
from mixreorg.palette import voc_color

MAX_EXAMPLES = 5
"""Examples that a finding keeps."""

_NUM_COLORS = 256


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a split."""

    kind: str
    """Short name of the kind."""
    severity: Literal["error", "warning"]
    """``error``: results would be wrong or the run would stop; ``warning``: look before you publish."""
    count: int
    """How often it was met."""
    examples: tuple[str, ...]
    """Messages that name file and remedy."""


@dataclass(frozen=True)
class LabelShare:
    """How much of the sampled masks one label covers."""

    name: str
    """Name of the class, or background."""
    num_masks: int
    """Sampled masks that hold it."""
    share: float
    """Its part of the pixels that count, 0 to 1."""


@dataclass(frozen=True)
class CheckReport:
    """What a check found in one split."""

    name: str
    """Benchmark and split."""
    folder: str
    """Where it lies."""
    masks: str
    """Form of the masks that were read."""
    num_photos: int
    """Photos of the split."""
    num_sampled: int
    """Masks that were read for labels."""
    void_share: float
    """Part of the sampled pixels that does not count, 0 to 1."""
    labels: tuple[LabelShare, ...]
    """One per label."""
    findings: tuple[Finding, ...]
    """Errors first."""

    @property
    def exit_code(self) -> int:
        """0 nothing worth naming, 1 warnings, 2 errors."""
        severities = {finding.severity for finding in self.findings}
        return 2 if "error" in severities else 1 if severities else 0

    def require_usable(self) -> None:
        """Refuse a split with errors, for callers that would go on to a long run.

        Raises:
            MixreorgError: there are errors; it names the first and how many more there are.
        """
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            more = sum(finding.count for finding in errors) - 1
            raise MixreorgError(errors[0].examples[0] + (f" ({more:,} more errors in {self.name})" if more else ""))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "exit_code": self.exit_code}


class _Findings:
    """Findings by kind, with a few examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Literal["error", "warning"], str]] = Counter()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, severity: Literal["error", "warning"], kind: str, message: str) -> None:
        self._counts[severity, kind] += 1
        examples = self._examples.setdefault((severity, kind), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(message)

    def all(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(kind, severity, count, tuple(self._examples[severity, kind]))
            for (severity, kind), count in sorted(self._counts.items())
        )


def check_split(
    split: BenchmarkSplit,
    official: tuple[int, ...] = (),
    *,
    sample: int | None = 200,
    voc_palette: bool = False,
    advance: Callable[[], None] | None = None,
) -> CheckReport:
    """Check a split: sizes of all photos and masks, labels of a sample.

    Args:
        split: what to check; its files exist.
        official: official numbers of photos, several where published lists differ.
        sample: read the labels of so many masks, evenly spread; None for all.
        voc_palette: palette masks carry VOC's colours.
        advance: called after each photo.
    """
    findings = _Findings()
    if official and len(split.stems) not in official:
        numbers = " or ".join(f"{number:,}" for number in official)
        text = f"{split.name}: {len(split.stems):,} photos instead of {numbers}; results are not comparable"
        findings.add("warning", "number of photos", text)
    chosen = _sample(len(split.stems), sample)
    pixels: Counter[int] = Counter()
    masks: Counter[int] = Counter()
    for index, stem in enumerate(split.stems):
        problem = _compare_sizes(split.photo_path(stem), split.mask_path(stem))
        if problem is not None:
            findings.add("error", *problem)
        if index in chosen and problem is None:
            mask = _read(split, stem, findings)
            if mask is not None:
                counted = _count(mask)
                pixels.update(counted)
                masks.update(counted.keys())
            if voc_palette and (message := reordered_palette(split.mask_path(stem))):
                findings.add("error", "re-ordered palette", message)
        if advance is not None:
            advance()
    void = pixels.pop(VOID, 0)
    return CheckReport(
        name=split.name,
        folder=str(split.place.folder),
        masks=split.form.name,
        num_photos=len(split.stems),
        num_sampled=len(chosen),
        void_share=void / max(void + pixels.total(), 1),
        labels=tuple(
            LabelShare(name, masks[label], pixels[label] / max(pixels.total(), 1))
            for label, name in enumerate(label_names(split))
        ),
        findings=findings.all(),
    )


def reordered_palette(path: Path) -> str | None:
    """What to say of a palette mask whose indices a tool has permuted, or None.

    VOC's colours at other indices than VOC's mean that the file was saved again and its indices are no longer
    classes. Palettes of other colours say nothing.
    """
    try:
        with Image.open(path) as image:
            if image.mode != "P":
                return None
            used = np.unique(np.array(image)).tolist()
            palette = image.getpalette() or []
    except (OSError, UnidentifiedImageError):
        return None
    index_of = {voc_color(index): index for index in range(_NUM_COLORS)}
    for index in used:
        color = tuple(palette[3 * index : 3 * index + 3])
        meant = index_of.get((color[0], color[1], color[2])) if len(color) == 3 else None
        if meant is None:
            return None
        if meant != index:
            return (
                f"{path} stores index {index} with VOC's colour of class {meant}: it was saved again with a sorted "
                "palette; take the file of the official archive"
            )
    return None


def _sample(total: int, sample: int | None) -> frozenset[int]:
    number = total if sample is None else min(sample, total)
    return frozenset(place * total // number for place in range(number))


def _read(split: BenchmarkSplit, stem: str, findings: _Findings) -> Mask | None:
    try:
        mask = split.read_mask(stem)
    except MixreorgError as error:
        findings.add("error", "unusable mask", str(error))
        return None
    if (mask == VOID).all():
        findings.add("warning", "empty mask", f"{split.mask_path(stem)} has no pixel that counts")
    return mask


def _count(mask: Mask) -> dict[int, int]:
    labels, counts = np.unique(mask, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def _compare_sizes(photo: Path, mask: Path) -> tuple[str, str] | None:
    """Compare the sizes in the headers; returns kind and message of what is wrong."""
    try:
        width, height = upright_size(photo)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return "unusable photo", f"cannot read {photo} ({error}); restore the file"
    try:
        with Image.open(mask) as image:
            size = image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return "unusable mask", f"cannot read the mask {mask} ({error}); restore the file"
    if size == (width, height):
        return None
    text = f"{mask} is {size[0]} x {size[1]} pixels, its photo {photo} {width} x {height}"
    return "mask of another size", f"{text}; take both from the official archives"


def upright_size(photo: Path) -> tuple[int, int]:
    """Width and height of a photo the right way up, from its header alone."""
    with Image.open(photo) as image:
        width, height = image.size
        return (height, width) if orientation_of(image) >= 5 else (width, height)

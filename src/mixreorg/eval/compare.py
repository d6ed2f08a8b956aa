"""Comparing evaluations: paired on the same photos, over seeds, and only where the protocol is the same."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import read_arrays
from mixreorg.eval.bootstrap import NUM_RESAMPLES, FloatArray, Interval, interval, miou_of, resample_miou
from mixreorg.eval.photo_counts import PhotoCounts, PhotoTotals
from mixreorg.eval.report.facts import FORMAT
from mixreorg.files import read_json

_NEEDED = {"benchmark": str, "split": str, "protocol": dict, "protocol_hash": str, "label_names": list}
"""What a comparison takes from a report, and its type."""


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation, as it lies in its folder."""

    folder: Path
    facts: dict[str, Any]
    stems: tuple[str, ...]
    totals: PhotoTotals

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.facts["benchmark"])


@dataclass(frozen=True)
class Contender:
    """What is compared: one model, or several that differ in their seed alone."""

    label: str
    folders: tuple[Path, ...]
    """One per seed; each a folder of one evaluation, or of one per benchmark."""


@dataclass(frozen=True)
class ContenderResult:
    """One contender on one benchmark."""

    label: str
    num_seeds: int
    miou: float
    """In percent; mean over seeds."""
    deviation: float | None
    """Standard deviation over seeds (n - 1); None for one."""
    sampled: Interval
    """Over photos and seeds."""
    difference: float | None
    """To the first contender in percentage points; None for the first itself."""
    difference_sampled: Interval | None
    """Of the difference, paired by photo."""

    @property
    def within_noise(self) -> bool:
        """Whether the interval of the difference holds 0."""
        return self.difference_sampled is None or 0.0 in self.difference_sampled

    def verdict(self, baseline: str) -> str:
        """The difference in plain words."""
        if self.difference is None or self.difference_sampled is None:
            return "the baseline"
        if self.within_noise:
            return f"within noise of {baseline}: these photos and seeds do not tell them apart"
        return f"{'better' if self.difference > 0 else 'worse'} than {baseline} by {abs(self.difference):.1f} points"


@dataclass(frozen=True)
class Column:
    """One benchmark under one protocol."""

    benchmark: str
    split: str
    protocol: str
    protocol_hash: str
    num_photos: int
    results: tuple[ContenderResult, ...]


def parse_contender(text: str) -> Contender:
    """Read ``FOLDER``, ``FOLDER,FOLDER`` (seeds) or ``LABEL=FOLDER,FOLDER``.

    Raises:
        MixreorgError: no folder, or one that does not exist.
    """
    # The name of a folder may itself hold an equals sign (lr=0.1), and so may a label.
    ends = [match.start() for match in re.finditer("=", text)]
    readings = [("", _folders(text)), *((text[:end], _folders(text[end + 1 :])) for end in ends)]
    whole = [reading for reading in readings if reading[1] and all(folder.is_dir() for folder in reading[1])]
    label, folders = whole[0] if whole else readings[min(1, len(ends))]
    if not folders:
        raise MixreorgError(f"{text!r} names no folder; write FOLDER, or LABEL=FOLDER,FOLDER for several seeds")
    for folder in folders:
        if not folder.is_dir():
            raise MixreorgError(f"the folder {folder} does not exist; it should hold the results of mixreorg eval")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise MixreorgError(f"{text!r} names a folder twice; a seed counts once")
    return Contender(label.strip() or folders[0].name, folders)


def _folders(listed: str) -> tuple[Path, ...]:
    return tuple(Path(part.strip()) for part in listed.split(",") if part.strip())


def compare(contenders: Sequence[Contender], *, resamples: int = NUM_RESAMPLES, seed: int = 0) -> list[Column]:
    """Compare contenders on every benchmark that all of them have; the first is the baseline.

    Photos are drawn with replacement, the same ones for all, and so are the seeds of each contender. An interval
    thus says how a difference varies with photos and with training. A handful of seeds shows less than there is.

    Args:
        contenders: at least two.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        MixreorgError: fewer than two, equal labels, nothing in common, unreadable results, or results on one
            benchmark of different protocols, photos or classes.
    """
    if len(contenders) < 2:
        raise MixreorgError("there is nothing to compare; name two folders or more")
    labels = [item.label for item in contenders]
    if len(set(labels)) < len(labels):
        raise MixreorgError(f"two contenders are called the same ({', '.join(labels)}); write LABEL=FOLDER")
    found = [[_read_folder(folder) for folder in item.folders] for item in contenders]
    common = [name for name in found[0][0] if all(name in run for runs in found for run in runs)]
    if not common:
        raise MixreorgError("these folders have no benchmark in common; evaluate all models on the same one")
    return [
        _column(labels, [[run[name] for run in runs] for runs in found], resamples=resamples, seed=seed)
        for name in common
    ]


def read_evaluation(folder: Path) -> Evaluation:
    """Read the results of one benchmark.

    Raises:
        MixreorgError: missing, damaged or of another version.
    """
    facts = read_json(folder / "report.json")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise MixreorgError(f"{folder / 'report.json'} is not a report of mixreorg eval ({FORMAT})")
    if missing := [name for name in _NEEDED if name not in facts]:
        raise MixreorgError(f"{folder / 'report.json'} lacks {', '.join(missing)}; evaluate again")
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(facts[name], kind)]
    if wrong or not {"name", "background"} <= facts["protocol"].keys():
        named = ", ".join(wrong or ["protocol"])
        raise MixreorgError(f"{folder / 'report.json'} has another form of {named} than mixreorg eval; evaluate again")
    try:
        arrays = read_arrays(folder / "photos.npz")
    except MixreorgError as error:
        raise MixreorgError(f"{error}; evaluate again") from error
    try:
        counts = PhotoCounts.from_arrays(len(facts["label_names"]), arrays)
    except MixreorgError as error:
        raise MixreorgError(f"{folder}: {error}; evaluate again") from error
    except KeyError as error:
        raise MixreorgError(f"{folder / 'photos.npz'} lacks {error}; evaluate again") from error
    return Evaluation(folder, facts, tuple(counts.stems), counts.totals())


def _read_folder(folder: Path) -> dict[str, Evaluation]:
    """The evaluations in a folder by benchmark."""
    if (folder / "report.json").is_file():
        single = read_evaluation(folder)
        return {single.benchmark: single}
    inner = [read_evaluation(path.parent) for path in sorted(folder.glob("*/report.json"))]
    if not inner:
        raise MixreorgError(f"{folder} holds no report.json; it should hold the results of mixreorg eval")
    found: dict[str, Evaluation] = {}
    for item in inner:
        first = found.setdefault(item.benchmark, item)
        if first is not item:
            raise MixreorgError(
                f"{folder} holds two results on {item.benchmark}, {first.folder.name} and {item.folder.name}; write "
                f"LABEL={first.folder},{item.folder} where they are two seeds, and else name one of them"
            )
    return found


def _column(labels: Sequence[str], groups: list[list[Evaluation]], *, resamples: int, seed: int) -> Column:
    runs = [run for group in groups for run in group]
    _require_same(runs)
    sampled = resample_miou([run.totals for run in runs], resamples=resamples, seed=seed)
    random = np.random.default_rng([seed, 1])
    means: list[FloatArray] = []
    start = 0
    for group in groups:
        drawn = random.integers(len(group), size=(len(group), resamples))
        means.append(np.take_along_axis(sampled[start : start + len(group)], drawn, axis=0).mean(axis=0))
        start += len(group)
    values = [[miou_of(run.totals) for run in group] for group in groups]
    results = tuple(
        ContenderResult(
            label=label,
            num_seeds=len(group),
            miou=float(np.mean(group)),
            deviation=float(np.std(group, ddof=1)) if len(group) > 1 else None,
            sampled=interval(mean),
            difference=float(np.mean(group) - np.mean(values[0])) if index else None,
            difference_sampled=interval(mean - means[0]) if index else None,
        )
        for index, (label, group, mean) in enumerate(zip(labels, values, means, strict=True))
    )
    facts = runs[0].facts
    return Column(
        runs[0].benchmark,
        facts["split"],
        facts["protocol"]["name"],
        facts["protocol_hash"],
        len(runs[0].stems),
        results,
    )


def _require_same(runs: Sequence[Evaluation]) -> None:
    """Results in one column are of one protocol and the same photos."""
    first = runs[0]
    if not first.totals.truth.any():
        raise MixreorgError(f"no pixel of {first.benchmark} in {first.folder} has a class; there is nothing to compare")
    for run in runs[1:]:
        if run.facts["protocol_hash"] != first.facts["protocol_hash"]:
            raise MixreorgError(
                f"{first.folder} and {run.folder} evaluate {first.benchmark} by different protocols "
                f"({_protocol(first)} and {_protocol(run)}), so their numbers do not belong in one column; evaluate "
                "both by the same"
            )
        if run.stems != first.stems:
            raise MixreorgError(
                f"{first.folder} and {run.folder} evaluate {first.benchmark} on different photos "
                f"({len(first.stems):,} and {len(run.stems):,}); evaluate both on the whole split"
            )
        if (run.totals.truth != first.totals.truth).any():
            raise MixreorgError(
                f"the masks of {first.benchmark} that {first.folder} and {run.folder} were evaluated with differ; "
                "evaluate both on the same folder of masks"
            )


def _protocol(run: Evaluation) -> str:
    protocol = run.facts["protocol"]
    return f"{protocol['name']} {run.facts['protocol_hash']}, {run.facts['split']}, {protocol['background']}"

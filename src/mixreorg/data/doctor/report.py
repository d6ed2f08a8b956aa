"""The result of a check, and its machine-readable form."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field

from mixreorg.config import StrictConfig
from mixreorg.data.doctor.captions import printable
from mixreorg.data.doctor.examine import Suspect
from mixreorg.data.doctor.histograms import Histogram
from mixreorg.data.doctor.inventory import display_name
from mixreorg.data.doctor.kinds import Kind, Severity, exit_code

FORMAT = "mixreorg-data-check-1"


class CheckConfig(StrictConfig):
    """What is looked at, and what counts as a suspect."""

    expect: int | None = Field(None, gt=0)
    """Number of usable pairs that there should be; None to compare with statistics files alone."""
    tolerance: float = Field(0.01, ge=0, lt=1)
    """Share of ``expect`` that may be missing before that is serious."""
    min_side: int = Field(32, ge=1)
    """Images with a shorter side, in pixels, are tiny."""
    max_aspect: float = Field(5.0, ge=1)
    """Images with a larger ratio of the long to the short side are extreme."""
    sample: int | None = Field(None, gt=0)
    """Look into so many pairs only, spread evenly; None for all. Indexes and shards are checked in any case."""
    tokenizer: str = "clip"
    """``clip``, or a tokenizer file; captions are measured in its tokens."""
    allow: tuple[str, ...] = ()
    """Kinds of findings that are expected and do not count towards the exit code."""
    index: bool = True
    """Write the index of each shard that has none."""
    index_dir: str | None = None
    """Folder of the indexes where the shards' own cannot be written; None for beside the shards."""
    cache_dir: str | None = None
    """Folder for copies of remote shards; None for the user's cache folder."""
    cache_gb: float = Field(50.0, gt=0, allow_inf_nan=False)
    """Size of that folder in GB."""
    workers: int | None = Field(None, gt=0)
    """Processes; None for one per core."""


@dataclass(frozen=True)
class PartFacts:
    """One shard or captions file."""

    name: str
    """Path or URL, as it is opened."""
    num_bytes: int
    num_samples: int
    """Samples of which at least an image or a caption is there."""
    num_pairs: int
    """Pairs in the index: image and caption are there, but may turn out damaged."""
    index: str
    """``written``, ``fresh`` (it was there), ``cached`` (of a remote shard), or ``none``."""
    asked: int | None
    """Pairs that img2dataset was asked for, by its statistics file."""
    stored: int | None
    """Pairs that it wrote."""


class Effort(NamedTuple):
    """What was looked into, and what it took."""

    num_examined: int
    """Pairs."""
    seconds: float
    """Without indexing."""
    num_processes: int


@dataclass(frozen=True)
class Finding:
    """All findings of one kind."""

    kind: Kind
    severity: Severity
    count: int
    examples: tuple[Suspect, ...]


@dataclass(frozen=True)
class FrequentValue:
    """An image or caption that occurs more than once."""

    suspect: Suspect
    """Its first occurrence."""
    count: int


@dataclass(frozen=True)
class Report:
    """What a check found."""

    specs: tuple[str, ...]
    config: CheckConfig
    effort: Effort
    parts: tuple[PartFacts, ...]
    part_counts: dict[str, Counter[str]]
    """Findings by part and kind."""
    findings: tuple[Finding, ...]
    """The most serious first."""
    num_usable: int
    """Of the pairs examined."""
    num_distinct_images: int
    num_distinct_captions: int
    frequent_captions: tuple[FrequentValue, ...]
    frequent_images: tuple[FrequentValue, ...]
    frequent_words: tuple[dict[str, Any], ...]
    statistics: dict[str, dict[str, Any]]
    """Mean, quantiles and extremes of words, tokens, short sides, aspect ratios and kilobytes."""
    histograms: dict[str, Histogram]
    """By the same names."""
    formats: dict[str, int]
    context_length: int
    num_cut: int
    """Captions with more tokens than the context length."""
    healthy: tuple[Suspect, ...]
    """A few pairs without any finding of their own, their kind empty."""

    @property
    def num_examined(self) -> int:
        """Pairs looked into."""
        return self.effort.num_examined

    @property
    def pairs_per_second(self) -> float:
        """Pairs looked into per second by all processes."""
        return self.num_examined / max(self.effort.seconds, 1e-9)

    @property
    def num_indexed(self) -> int:
        """Pairs in all indexes."""
        return sum(part.num_pairs for part in self.parts)

    @property
    def exit_code(self) -> int:
        """0: nothing worth naming, 1: warnings, 2: serious."""
        return exit_code(finding.severity for finding in self.findings)

    @property
    def asked(self) -> int | None:
        """Pairs that img2dataset was asked for in shards with statistics; None without any."""
        known = [part.asked for part in self.parts if part.asked is not None]
        return sum(known) if known else None

    @property
    def stored(self) -> int | None:
        """Pairs that img2dataset wrote to shards with statistics; None without any."""
        known = [part.stored for part in self.parts if part.stored is not None]
        return sum(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; names of fields are stable within one ``format``."""
        return {
            "format": FORMAT,
            "specs": [printable(display_name(spec)) for spec in self.specs],
            "settings": self.config.to_dict(),
            "exit_code": self.exit_code,
            "run": {
                "seconds": round(self.effort.seconds, 3),
                "processes": self.effort.num_processes,
                "pairs_per_second": round(self.pairs_per_second, 1),
            },
            "pairs": {
                "expected": self.config.expect,
                "asked": self.asked,
                "stored": self.stored,
                "indexed": self.num_indexed,
                "examined": self.num_examined,
                "usable": self.num_usable,
                "distinct_images": self.num_distinct_images,
                "distinct_captions": self.num_distinct_captions,
            },
            "findings": [_finding_values(finding) for finding in self.findings],
            "captions": {
                "context_length": self.context_length,
                "cut": self.num_cut,
                "words": self._numbers("num_words"),
                "tokens": self._numbers("num_tokens"),
                "most_frequent": [_frequent_values(value) for value in self.frequent_captions],
                "frequent_words": [{**word, "word": printable(word["word"])} for word in self.frequent_words],
            },
            "images": {
                "formats": self.formats,
                "short_side": self._numbers("short_side"),
                "aspect_ratio": self._numbers("aspect"),
                "kilobytes": self._numbers("kilobytes"),
                "most_repeated": [_frequent_values(value) for value in self.frequent_images],
            },
            "shards": [self._part_values(part) for part in self.parts],
        }

    def _numbers(self, name: str) -> dict[str, Any]:
        bins = [list(item) for item in zip(*self.histograms[name], strict=True)]
        rounded = {key: round(value, 4) for key, value in self.statistics[name].items()}
        return {**rounded, "histogram": bins}

    def _part_values(self, part: PartFacts) -> dict[str, Any]:
        return {
            "path": printable(display_name(part.name)),
            "bytes": part.num_bytes,
            "samples": part.num_samples,
            "pairs": part.num_pairs,
            "index": part.index,
            "asked": part.asked,
            "stored": part.stored,
            "findings": dict(self.part_counts.get(part.name, {})),
        }


def _finding_values(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.name,
        "severity": finding.severity,
        "count": finding.count,
        "counts": finding.kind.subject,
        "meaning": finding.kind.meaning,
        "remedy": finding.kind.remedy,
        "examples": [_suspect_values(suspect) for suspect in finding.examples],
    }


def _suspect_values(suspect: Suspect) -> dict[str, str]:
    values = {"shard": display_name(suspect.shard), "key": suspect.key, "detail": suspect.detail}
    return {name: printable(text) for name, text in {**values, "caption": suspect.caption}.items()}


def _frequent_values(value: FrequentValue) -> dict[str, Any]:
    return {"count": value.count, **_suspect_values(value.suspect)}

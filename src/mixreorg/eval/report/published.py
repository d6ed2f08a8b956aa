"""Published numbers to hold ours against."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class PublishedNumber:
    """One number of a paper or a repository."""

    system: str
    training: str
    """Data it was trained on."""
    benchmark: str
    miou: float
    """In percent."""
    protocol: str
    """The nearest protocol of this package, or ``own``."""
    source: str


def published_numbers(benchmark: str) -> tuple[PublishedNumber, ...]:
    """All that is known for a benchmark, lowest first; none for own data."""
    return tuple(sorted((item for item in _all() if item.benchmark == benchmark), key=lambda item: item.miou))


@cache
def _all() -> tuple[PublishedNumber, ...]:
    text = resources.files("mixreorg.eval.report").joinpath("published.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        PublishedNumber(
            row["system"], row["training"], row["benchmark"], float(row["miou"]), row["protocol"], row["source"]
        )
        for row in rows
    )

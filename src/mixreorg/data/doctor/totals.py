"""Findings of all parts together, in memory that hardly grows with their number."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mixreorg.data.doctor.examine import SUSPECTS_KEPT, Findings, Measures, Suspect
from mixreorg.data.doctor.statistics import Distribution, FrequentWords, Repeat, Repeats

_COLUMN = {name: place for place, name in enumerate(Measures._fields)}
# What is above a limit is counted as the limit: only quantiles up there lose their exact value.
_LIMITS = {"num_words": 1_000, "num_tokens": 1_000, "short_side": 10_000, "aspect": 5_000, "kilobytes": 20_000}

_Digests = npt.NDArray[np.uint64]


class Place(NamedTuple):
    """Where a pair is: the number of its part, and its place in that part's index."""

    part: int
    sample: int


class RepeatedPair(NamedTuple):
    """An image, a caption or both that occur more than once."""

    first: Place
    second: Place
    times: int


class RepeatCount(NamedTuple):
    """How much a set of pairs repeats itself."""

    surplus: int
    """Pairs that repeat an earlier one."""
    distinct: int
    """Different values."""
    most_frequent: list[RepeatedPair]


class Totals:
    """Everything counted so far. Takes 20 bytes per usable pair, and twice as much while repeats are looked for."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.counts: Counter[str] = Counter()
        """Findings by kind."""
        self.part_counts: dict[str, Counter[str]] = {}
        """Findings by kind for each part that has any."""
        self.suspects: dict[str, list[Suspect]] = {}
        """The first few findings of each kind."""
        self.distributions = {name: Distribution(limit) for name, limit in _LIMITS.items()}
        self.formats: Counter[str] = Counter()
        self.words = FrequentWords()
        self.num_usable = 0
        self._runs: list[tuple[int, npt.NDArray[np.int32]]] = []
        self._digests: list[_Digests] = []

    def add(self, suspects: Iterable[Suspect], counts: Counter[str], part_name: str) -> None:
        """Count findings of one part; ``suspects`` are examples of them."""
        self.counts.update(counts)
        if counts:
            self.part_counts.setdefault(part_name, Counter()).update(counts)
        for suspect in suspects:
            examples = self.suspects.setdefault(suspect.kind, [])
            if len(examples) < SUSPECTS_KEPT:
                examples.append(suspect)

    def add_findings(self, part: int, part_name: str, findings: Findings) -> None:
        """Count what :func:`~mixreorg.data.doctor.examine.examine` found in some pairs of a part."""
        self.add(findings.suspects, findings.counts, part_name)
        self.words.add(findings.words)
        self.formats.update(findings.formats)
        for name, distribution in self.distributions.items():
            distribution.add(findings.measures[:, _COLUMN[name]].astype(np.int64))
        self.num_usable += len(findings.indices)
        self._runs.append((part, findings.indices))
        # A copy: a view would keep all columns in memory.
        self._digests.append(findings.measures[:, :2].copy())

    def repeats(self, number: int) -> dict[str, RepeatCount]:
        """Count ``duplicate image``, ``duplicate caption`` and ``duplicate pair``, naming the most frequent ones."""
        ends = np.cumsum([len(indices) for _, indices in self._runs])
        odd = np.uint64(0x9E3779B97F4A7C15)
        columns: dict[str, Callable[[_Digests], _Digests]] = {
            "duplicate image": lambda digests: digests[:, 0],
            "duplicate caption": lambda digests: digests[:, 1],
            # Multiplied, so that two pairs with each other's digests differ; the product wraps around.
            "duplicate pair": lambda digests: digests[:, 0] * odd ^ digests[:, 1],
        }
        found = {}
        for kind, column in columns.items():
            # One column at a time: together they would take as much memory again as all digests.
            repeats = Repeats(np.concatenate([np.zeros(0, np.uint64), *map(column, self._digests)]))
            pairs = [self._locate(repeat, ends) for repeat in repeats.most_frequent(number)]
            found[kind] = RepeatCount(repeats.surplus, repeats.distinct, pairs)
        return found

    def _locate(self, repeat: Repeat, ends: npt.NDArray[np.int64]) -> RepeatedPair:
        return RepeatedPair(self._place(repeat.first, ends), self._place(repeat.second, ends), repeat.times)

    def _place(self, position: int, ends: npt.NDArray[np.int64]) -> Place:
        run = int(np.searchsorted(ends, position, side="right"))
        part, indices = self._runs[run]
        return Place(part, int(indices[position - (ends[run - 1] if run else 0)]))

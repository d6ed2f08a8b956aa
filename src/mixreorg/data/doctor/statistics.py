"""Statistics of any number of pairs in little memory: exact distributions, repeats by hash, frequent words."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_WORDS_KEPT = 50_000


class Distribution:
    """How often each whole number from 0 to a limit occurs; what is above the limit counts as the limit."""

    def __init__(self, limit: int) -> None:
        """Start empty, with room for ``limit + 1`` counts."""
        self._counts = np.zeros(limit + 1, dtype=np.int64)
        self._sum = 0
        self._largest = 0

    def add(self, values: npt.NDArray[np.int64]) -> None:
        """Count values of at least 0."""
        if len(values):
            limit = len(self._counts) - 1
            self._counts += np.bincount(np.minimum(values, limit), minlength=limit + 1)
            self._sum += int(values.sum())
            self._largest = max(self._largest, int(values.max()))

    def __len__(self) -> int:
        """Number of values."""
        return int(self._counts.sum())

    def at_least(self, value: int) -> int:
        """How many values reach ``value``, which must not be above the limit."""
        return int(self._counts[value:].sum())

    def quantile(self, share: float) -> int:
        """The smallest value that ``share`` of all values do not exceed."""
        reached = np.searchsorted(self._counts.cumsum(), max(1, int(np.ceil(share * len(self)))))
        # The limit stands for everything above it: only its largest is known.
        return self._largest if reached == len(self._counts) - 1 else int(reached)

    def summary(self, scale: float = 1) -> dict[str, float]:
        """Mean, minimum, quantiles and maximum, each times ``scale``; empty without values."""
        if not len(self):
            return {}
        shares = {"min": 0.0, "p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}
        values = {name: self.quantile(share) * scale for name, share in shares.items()}
        return {"mean": self._sum * scale / len(self), **values, "max": self._largest * scale}

    def bins(self, edges: list[int]) -> list[int]:
        """How many values lie in ``[edges[i], edges[i + 1])``; the last bin has no upper end."""
        below = np.concatenate([[0], self._counts.cumsum()])
        starts = below[np.minimum(edges, len(self._counts))]
        return [int(count) for count in np.diff([*starts, below[-1]])]


def digest(data: bytes) -> int:
    """64 bits of a hash: among ten million different values, two alike are a matter of one in 300,000."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Repeat(NamedTuple):
    """A value that occurs more than once."""

    first: int
    """Place of its first occurrence."""
    second: int
    """Place of the next one."""
    times: int
    """Number of occurrences."""


class Repeats:
    """Which of many digests occur more than once."""

    def __init__(self, digests: npt.NDArray[np.uint64]) -> None:
        """Count digests, ``[pairs]`` in the order of the pairs."""
        self._digests = digests
        ordered = np.sort(digests)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        self.distinct = len(digests) - len(repeated)
        """Number of different digests."""
        self._values, surplus = np.unique(repeated, return_counts=True)
        self._counts = surplus + 1

    @property
    def surplus(self) -> int:
        """Number of digests beyond the first of each value."""
        return len(self._digests) - self.distinct

    def most_frequent(self, number: int) -> list[Repeat]:
        """Up to ``number`` repeated values, most frequent first and equals in the order of their places."""
        found = []
        for chosen in np.argsort(-self._counts, kind="stable")[:number]:
            places = np.flatnonzero(self._digests == self._values[chosen])
            found.append(Repeat(int(places[0]), int(places[1]), int(self._counts[chosen])))
        return sorted(found, key=lambda repeat: (-repeat.times, repeat.first))


class FrequentWords:
    """The most frequent words of a text without end, in the memory of its first few thousand words.

    When too many different words are held, the rare half is forgotten: counts of the frequent ones are exact as
    long as they never were among the rare.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Count words."""
        self._counts.update(counts)
        if len(self._counts) > 2 * _WORDS_KEPT:
            self._counts = Counter(dict(self._counts.most_common(_WORDS_KEPT)))

    def most_frequent(self, number: int) -> list[dict[str, Any]]:
        """Words and counts, most frequent first, equals in the order of the alphabet."""
        found = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]
        return [{"word": word, "count": count} for word, count in found]

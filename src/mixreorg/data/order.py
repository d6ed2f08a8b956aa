"""The order of training: an endless stream of visits whose every position is a pure function of (seed, position)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mixreorg.randomness import numpy_generator

Visit = tuple[int, int]
"""Epoch, and index of a pair in its source."""

LONGEST_PERIOD = 10_000
"""Weights are kept exactly over at most so many positions; finer ones are rounded to them."""


def epoch_order(seed: int, epoch: int, length: int, *name: int) -> npt.NDArray[np.int64]:
    """The order of one epoch: a permutation of ``range(length)`` fixed by seed, epoch and name."""
    return numpy_generator(seed, "order", epoch, *name).permutation(length)


def windowed_order(seed: int, epoch: int, lengths: Sequence[int], window: int, *name: int) -> npt.NDArray[np.int64]:
    """The order of one epoch that stays within a few shards at a time.

    The shards are shuffled, then the pairs of each ``window`` consecutive shards of that order.

    Args:
        seed: of the run.
        epoch: number of the epoch.
        lengths: pairs of each shard.
        window: shards that are shuffled together.
        name: tells apart orders of several sources.
    """
    begins = np.cumsum([0, *lengths])
    shards = numpy_generator(seed, "shards", epoch, *name).permutation(len(lengths)).tolist()
    windows = []
    for start in range(0, len(shards), window):
        indices = np.concatenate([np.arange(begins[n], begins[n + 1]) for n in shards[start : start + window]])
        windows.append(numpy_generator(seed, "window", epoch, start // window, *name).permutation(indices))
    return np.concatenate(windows)


def period_places(weights: Sequence[float]) -> list[int]:
    """How many places each source has in a period of the stream.

    The period is the shortest in which the weights come out exactly. When that is longer than
    :data:`LONGEST_PERIOD`, it has that length and the shares are rounded, with one place at least for every source.

    Args:
        weights: positive, in any unit.
    """
    # From the decimal digits: 0.1 is meant as a tenth, which no binary fraction is.
    parts = [Fraction(repr(float(weight))) for weight in weights]
    scale = math.lcm(*(part.denominator for part in parts))
    places = [int(part * scale) for part in parts]
    divisor = math.gcd(*places)
    places = [count // divisor for count in places]
    if sum(places) <= LONGEST_PERIOD:
        return places
    exact = [Fraction(count, sum(places)) * LONGEST_PERIOD for count in places]
    rounded = [max(1, int(share)) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: rounded[n] - exact[n])
    for n in by_remainder[: max(0, LONGEST_PERIOD - sum(rounded))]:
        rounded[n] += 1
    return rounded


@dataclass
class _Stream:
    """Epochs of consecutive pairs, one after the other."""

    seed: int
    first: int
    """Index of its first pair."""
    lengths: list[int]
    """Pairs of each of its shards."""
    window: int
    name: tuple[int, ...]
    _epoch: int = -1
    _order: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def visits(self, position: int, count: int) -> list[Visit]:
        length = sum(self.lengths)
        visits: list[Visit] = []
        while len(visits) < count:
            epoch, place = divmod(position + len(visits), length)
            if epoch != self._epoch:
                self._order, self._epoch = self._shuffle(epoch, length), epoch
            indices = self._order[place : place + count - len(visits)] + self.first
            visits.extend((epoch, index) for index in indices.tolist())
        return visits

    def _shuffle(self, epoch: int, length: int) -> npt.NDArray[np.int64]:
        if 0 < self.window < len(self.lengths):
            return windowed_order(self.seed, epoch, self.lengths, self.window, *self.name)
        return epoch_order(self.seed, epoch, length, *self.name)


class VisitOrder:
    """Which pair is visited at each position of an endless stream.

    Without weights, position ``p`` visits pair ``order[p % length]`` in epoch ``p // length``, ``order`` being
    :func:`epoch_order` or :func:`windowed_order`. With weights, each period of positions gives every source its
    number of :func:`period_places`, permuted by (seed, period); what a source is asked for in turn are its own
    epochs, in an order of its own. A visit is then (epoch of its source, index among all pairs), which no other
    visit repeats.
    """

    def __init__(
        self, seed: int, sources: Sequence[Sequence[int]], weights: Sequence[float] = (), shuffle_shards: int = 0
    ) -> None:
        """Describe an order; :meth:`~mixreorg.data.pairs.PairSource.order` makes these.

        Args:
            seed: of the run.
            sources: for each source the number of pairs of its shards.
            weights: one per source, each of which then has pairs; empty to join the sources.
            shuffle_shards: shards that are shuffled together; 0 for all.
        """
        self.seed = seed
        joined = [length for lengths in sources for length in lengths]
        begins = np.cumsum([0, *(sum(lengths) for lengths in sources)]).tolist()
        self._streams = (
            [_Stream(seed, begins[n], list(lengths), shuffle_shards, (n,)) for n, lengths in enumerate(sources)]
            if weights
            else [_Stream(seed, 0, joined, shuffle_shards, ())]
        )
        self._places = period_places(weights) if weights else [1]
        self._labels = np.repeat(np.arange(len(self._places)), self._places)
        self._length = sum(joined)

    def __len__(self) -> int:
        """Number of pairs of all sources."""
        return self._length

    def visits(self, first: int, count: int) -> list[Visit]:
        """The visits at positions ``first`` up to ``first + count``."""
        if len(self._streams) == 1:
            return self._streams[0].visits(first, count)
        period, skipped = divmod(first, len(self._labels))
        num_periods = (skipped + count) // len(self._labels) + 1
        labels = np.concatenate([self._period(number) for number in range(period, period + num_periods)])
        wanted = labels[skipped : skipped + count]
        streams = []
        for number, stream in enumerate(self._streams):
            done = period * self._places[number] + int(np.count_nonzero(labels[:skipped] == number))
            streams.append(iter(stream.visits(done, int(np.count_nonzero(wanted == number)))))
        return [next(streams[label]) for label in wanted.tolist()]

    def _period(self, number: int) -> npt.NDArray[np.int64]:
        """Which source each position of a period belongs to."""
        return numpy_generator(self.seed, "interleave", number).permutation(self._labels)

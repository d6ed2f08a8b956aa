"""Samples that cannot be used: counted by kind and named by shard and key."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

EXAMPLES_KEPT = 5


class Problem(NamedTuple):
    """Why one sample, member or shard cannot be used. A plain tuple, so that it travels between processes."""

    kind: str
    """For example ``no caption``, ``damaged image`` or ``truncated shard``."""
    shard: str
    """Path of the shard or captions file, as it was opened."""
    key: str
    """Key of the sample in the shard, or the place in the file."""


class UnusableSampleError(Exception):
    """Raised inside this package where one sample cannot be read; never reaches the user.

    Its text is the kind of the problem.
    """


class Problems:
    """Distinct problems met so far. The same problem met again, in another epoch or process, counts once."""

    def __init__(self) -> None:
        """Start with none."""
        self.counts: Counter[str] = Counter()
        """Number of distinct problems by kind."""
        self.examples: dict[str, list[Problem]] = {}
        """The first few problems of each kind."""
        self._seen: set[int] = set()

    def __len__(self) -> int:
        """Number of distinct problems."""
        return len(self._seen)

    def add(self, problem: Problem) -> None:
        """Count a problem unless it was counted before."""
        problem = Problem(*problem)
        # Hashes take a fraction of the memory of the texts: large sets miss images by the million.
        fingerprint = hash(problem)
        if fingerprint in self._seen:
            return
        self._seen.add(fingerprint)
        self.counts[problem.kind] += 1
        examples = self.examples.setdefault(problem.kind, [])
        if len(examples) < EXAMPLES_KEPT:
            examples.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Count several problems, for example those that a batch brings from a worker process."""
        for problem in problems:
            self.add(problem)

    def summary(self) -> str:
        """One line per kind, most frequent first, with the first examples; empty when there are none."""
        lines = []
        for kind, count in self.counts.most_common():
            examples = [f"{problem.shard} {problem.key}".rstrip() for problem in self.examples[kind]]
            more = ", ..." if count > len(examples) else ""
            lines.append(f"{kind}: {count:,} ({', '.join(examples)}{more})")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the hashes, which hold in one process only."""
        return {"counts": self.counts, "examples": self.examples}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore counts and examples; what was met before may be counted again."""
        self.__dict__.update(state, _seen=set())

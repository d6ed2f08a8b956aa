"""Spread over seeds, and differences between rows that were trained with the same seeds."""

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mixreorg.errors import MixreorgError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation of the sample (n - 1); None for one seed."""
    count: int


@dataclass(frozen=True)
class Difference:
    """Mean difference to the baseline over the seeds that both rows have."""

    mean: float
    low: float | None
    """Lower end of the 95 % interval of Student's t of n - 1 degrees of freedom; None for one seed."""
    high: float | None
    count: int


def spread(values: Collection[float]) -> Spread | None:
    """Mean and standard deviation; None for no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def paired_difference(row: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Compare two rows seed by seed: the same seed draws the same order of pairs, so most of its luck cancels.

    Args:
        row: values by seed.
        baseline: values by seed.

    Returns:
        None where they share no seed.
    """
    differences = [row[seed] - baseline[seed] for seed in sorted(row.keys() & baseline.keys())]
    if not differences:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count == 1:
        return Difference(mean, None, None, 1)
    half = _t_quantile(count - 1) * statistics.stdev(differences) / count**0.5
    return Difference(mean, mean - half, mean + half, count)


def _t_quantile(degrees: int) -> float:
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise MixreorgError("intervals need the training extra: pip install 'mixreorg[train]'") from error
    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))

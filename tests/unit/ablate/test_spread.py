"""Statistics against values computed by hand and by scipy."""

import math

import pytest

from mixreorg.ablate.statistics import Difference, Spread, paired_difference, spread


def test_spread():
    assert spread([]) is None
    assert spread([3.0]) == Spread(3.0, None, 1)
    found = spread([2.0, 4.0, 9.0])
    assert (found.mean, found.count) == (5.0, 3)
    assert found.deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))


def test_a_difference_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t of 2 degrees of freedom 4.30265.
    found = paired_difference({0: 2.0, 1: 4.0, 2: 6.0, 9: 50.0}, {0: 1.0, 1: 2.0, 2: 3.0, 7: -50.0})
    assert (found.mean, found.count) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)


def test_a_difference_by_scipy():
    stats = pytest.importorskip("scipy.stats")
    row, baseline = [31.2, 30.1, 33.9, 32.0, 29.7], [28.0, 30.5, 30.2, 31.1, 28.8]
    expected = stats.ttest_rel(row, baseline).confidence_interval(0.95)
    found = paired_difference(dict(enumerate(row)), dict(enumerate(baseline)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_too_few_seeds():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 3.0, 1: 9.0}, {0: 1.0}) == Difference(2.0, None, None, 1)

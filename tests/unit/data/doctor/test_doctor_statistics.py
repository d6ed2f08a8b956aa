"""Distributions, repeats and words against plain counting."""

from collections import Counter

import numpy as np

from mixreorg.data.doctor.histograms import SCALES, Histogram, draw, histogram
from mixreorg.data.doctor.statistics import Distribution, FrequentWords, Repeat, Repeats, digest


def test_a_distribution_agrees_with_its_values() -> None:
    values = np.random.default_rng(0).integers(0, 300, 1001)
    distribution = Distribution(400)
    for part in np.array_split(values, 7):
        distribution.add(part)
    ordered = np.sort(values)
    summary = distribution.summary()
    assert len(distribution) == 1001
    assert summary["mean"] == values.mean()
    assert (summary["min"], summary["median"], summary["max"]) == (ordered[0], ordered[500], ordered[-1])
    assert summary["p5"] == ordered[50]
    assert summary["p99"] == ordered[990]
    assert distribution.at_least(250) == (values >= 250).sum()
    expected = [((values >= low) & (values < high)).sum() for low, high in ((0, 10), (10, 200), (200, 10**9))]
    assert distribution.bins([0, 10, 200]) == expected


def test_values_above_the_limit_are_kept_in_count_mean_and_maximum() -> None:
    distribution = Distribution(10)
    distribution.add(np.array([1, 5, 5000]))
    distribution.add(np.array([], dtype=np.int64))
    assert distribution.summary(0.5) == {
        "mean": 5006 * 0.5 / 3,
        "min": 0.5,
        "p1": 0.5,
        "p5": 0.5,
        "median": 2.5,
        "p95": 2500,
        "p99": 2500,
        "max": 2500,
    }
    assert distribution.bins([0, 6]) == [2, 1]
    assert Distribution(10).summary() == {}


def test_repeats_agree_with_a_counter() -> None:
    values = np.random.default_rng(1).integers(0, 400, 1000).astype(np.uint64)
    repeats = Repeats(values)
    counter = Counter(values.tolist())
    assert repeats.distinct == len(counter)
    assert repeats.surplus == 1000 - len(counter)
    for first, second, times in repeats.most_frequent(20):
        value = values[first]
        assert np.flatnonzero(values == value)[:2].tolist() == [first, second]
        assert counter[int(value)] == times
    most = sorted(counter.values(), reverse=True)[:20]
    assert [repeat.times for repeat in repeats.most_frequent(20)] == most
    assert Repeats(np.array([7, 8, 7, 9, 7], dtype=np.uint64)).most_frequent(5) == [Repeat(0, 2, 3)]
    assert Repeats(np.zeros(0, np.uint64)).surplus == 0


def test_digests_differ_and_use_64_bits() -> None:
    digests = {digest(str(number).encode()) for number in range(1000)}
    assert len(digests) == 1000
    assert max(digests) > 2**63


def test_frequent_words_survive_a_flood_of_rare_ones() -> None:
    words = FrequentWords()
    expected = Counter({"dog": 0, "cat": 0})
    for batch in range(30):
        common = {"dog": 50, "cat": 40}
        expected.update(common)
        words.add({**common, **{f"rare-{batch}-{number}": 1 for number in range(5000)}})
    assert words.most_frequent(2) == [{"word": "dog", "count": 1500}, {"word": "cat", "count": 1200}]
    assert len(words.most_frequent(10**9)) <= 100_000


def test_histograms_leave_out_empty_ends_and_lose_nothing() -> None:
    for name, scale in SCALES.items():
        distribution = Distribution(5000)
        distribution.add(np.array([scale.edges[2], scale.edges[4], scale.edges[4] + 1]))
        bins = histogram(name, distribution)
        assert sum(bins.counts) == 3
        assert bins.counts[0]
        assert bins.counts[-1]
        assert bins.starts[0] == scale.edges[2] * scale.unit


def test_bars_are_as_high_as_their_counts() -> None:
    svg = draw(Histogram((1, 2, 3), (50, 100, 0)), "<b>")
    heights = [float(part.split('"')[0]) for part in svg.split('" height="')[1:]]
    assert heights[0] * 2 == heights[1]
    assert heights[2] == 0
    assert "2 to below 3: 100 (66.7%)" in svg
    assert "3 and more: 0" in svg
    assert "<b>" not in svg

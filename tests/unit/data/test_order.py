"""The stream of visits: permutations, windows of shards, exact weights, any position without replay."""

from collections import Counter

import numpy as np
import pytest

from mixreorg.data.order import LONGEST_PERIOD, VisitOrder, epoch_order, period_places, windowed_order

SHARDS = [5, 3, 0, 7, 4, 6]


def test_epoch_order_is_a_permutation_fixed_by_seed_and_epoch() -> None:
    order = epoch_order(1, 0, 100)
    assert sorted(order.tolist()) == list(range(100))
    assert np.array_equal(order, epoch_order(1, 0, 100))
    assert not np.array_equal(order, epoch_order(1, 1, 100))
    assert not np.array_equal(order, epoch_order(2, 0, 100))


def test_the_order_of_a_run_never_changes() -> None:
    """A run that was started by an earlier version must go on with the same samples."""
    assert epoch_order(0, 0, 10).tolist() == [9, 1, 2, 7, 6, 4, 3, 8, 5, 0]


def test_without_options_the_stream_is_one_shuffled_epoch_after_the_other() -> None:
    order = VisitOrder(7, [[4, 2], [5]])
    stream = [(epoch, index) for epoch in range(3) for index in epoch_order(7, epoch, 11).tolist()]
    assert len(order) == 11
    assert order.visits(0, 33) == stream
    assert order.visits(9, 5) == stream[9:14]


def test_windows_hold_whole_shards_in_a_shuffled_order() -> None:
    ends = np.cumsum(SHARDS)
    seen = set()
    for epoch in range(4):
        order = windowed_order(3, epoch, SHARDS, 2)
        assert sorted(order.tolist()) == list(range(25))
        shards = np.searchsorted(ends, order, side="right")
        changes = [shard for place, shard in enumerate(shards) if shard not in shards[:place]]
        seen.add(tuple(changes))
        # The first two shards with pairs are used up before the last two begin.
        assert max(np.flatnonzero(np.isin(shards, changes[:1]))) < min(np.flatnonzero(np.isin(shards, changes[-2:])))
        for place, shard in enumerate(shards):
            open_shards = {other for other in shards[: place + 1] if other in shards[place:]}
            assert shard in open_shards
            assert len(open_shards) <= 2
    assert len(seen) > 1
    assert not np.array_equal(windowed_order(3, 0, SHARDS, 2), windowed_order(4, 0, SHARDS, 2))


def test_shards_come_in_another_order_in_every_epoch() -> None:
    orders = [windowed_order(3, epoch, [10] * 8, 1) // 10 for epoch in range(4)]
    assert len({tuple(dict.fromkeys(order.tolist())) for order in orders}) == 4


def test_every_window_has_an_order_of_its_own() -> None:
    windows = (windowed_order(3, 0, [50] * 4, 1) % 50).reshape(4, 50)
    assert len(set(map(tuple, windows.tolist()))) == 4


def test_pairs_of_a_window_are_mixed() -> None:
    shards = windowed_order(0, 0, [100, 100], 2) // 100
    assert 20 < np.count_nonzero(np.diff(shards)) < 180


def test_a_window_of_all_shards_is_the_plain_order() -> None:
    assert VisitOrder(1, [SHARDS], shuffle_shards=6).visits(0, 25) == VisitOrder(1, [SHARDS]).visits(0, 25)
    assert VisitOrder(1, [SHARDS], shuffle_shards=2).visits(0, 25) != VisitOrder(1, [SHARDS]).visits(0, 25)


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        ((1.0, 1.0), [1, 1]),
        ((0.1, 0.2, 0.7), [1, 2, 7]),
        ((3.0, 1.5), [2, 1]),
        ((12423374.0, 3318333.0), [7892, 2108]),
        ((1e6, 1e-6), [9999, 1]),
        ((5.0,), [1]),
    ],
)
def test_periods_keep_the_weights_exactly(weights: tuple[float, ...], places: list[int]) -> None:
    assert period_places(weights) == places
    assert sum(places) <= LONGEST_PERIOD


@pytest.mark.parametrize("shuffle_shards", [0, 1])
def test_weighted_sources_are_interleaved_in_exact_shares(shuffle_shards: int) -> None:
    order = VisitOrder(5, [[6, 4], [7], [3, 3, 5]], (0.5, 0.2, 0.3), shuffle_shards)
    visits = order.visits(0, 400)
    for period in range(40):
        sources = Counter(int(np.searchsorted([10, 17], index, "right")) for _, index in visits[period * 10 :][:10])
        assert sources == {0: 5, 1: 2, 2: 3}
    assert len(set(visits)) == 400
    for first, last in [(0, 10), (10, 17), (17, 28)]:
        own = [visit for visit in visits if first <= visit[1] < last]
        length = last - first
        for epoch in range(len(own) // length):
            part = own[epoch * length :][:length]
            assert {number for number, _ in part} == {epoch}
            assert sorted(index for _, index in part) == list(range(first, last))
    patterns = {tuple(index < 10 for _, index in visits[period * 10 :][:10]) for period in range(40)}
    assert len(patterns) > 10


def test_every_position_of_a_weighted_stream_is_found_without_replay() -> None:
    stream = VisitOrder(5, [[6, 4], [7], [3, 3, 5]], (0.5, 0.2, 0.3), 1).visits(0, 300)
    for first, count in [(0, 1), (3, 9), (10, 10), (57, 31), (299, 1), (120, 0)]:
        again = VisitOrder(5, [[6, 4], [7], [3, 3, 5]], (0.5, 0.2, 0.3), 1)
        assert again.visits(first, count) == stream[first : first + count]


def test_equal_sources_have_orders_of_their_own() -> None:
    visits = VisitOrder(5, [[50], [50]], (1.0, 1.0)).visits(0, 100)
    first = [index for _, index in visits if index < 50]
    second = [index - 50 for _, index in visits if index >= 50]
    assert first != second
    assert sorted(first) == sorted(second)

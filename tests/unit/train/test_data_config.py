"""Checks of where caption pairs come from."""

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.train.config import DataConfig


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weights for 2 entries of train"),
        ([1.0, 0.0], "weights must be positive numbers"),
        ([1.0, float("inf")], "weights must be positive numbers"),
    ],
)
def test_weights_that_say_nothing_are_an_error(weights: list[float], message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        DataConfig(train=("a.tar", "b.tar")).updated(weights=tuple(weights))


def test_weights_may_come_before_the_data() -> None:
    assert DataConfig(weights=(3.0, 1.0)).updated(train=("a.tar", "b.tar")).weights == (3.0, 1.0)

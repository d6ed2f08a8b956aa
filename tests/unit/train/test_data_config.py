"""Checks of where caption pairs come from, and of numbers that nothing could be done with."""

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.train.config import DataConfig, TrainConfig


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


@pytest.mark.parametrize("setting", ["optim.betas=[2, 0.9]", "optim.betas=[0.9, 1.0]", "data.cache_gb=Infinity"])
def test_numbers_out_of_bounds_are_an_error(setting: str) -> None:
    with pytest.raises(MixreorgError, match=setting.partition("=")[0]):
        TrainConfig().with_overrides([setting])

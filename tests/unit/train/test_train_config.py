"""What a whole run's configuration refuses."""

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.train.config import TrainConfig


def test_a_mixing_unit_as_large_as_the_image_leaves_nothing_to_mix() -> None:
    for block in (14, 1000):
        with pytest.raises(MixreorgError, match=f"objective.block {block} leaves nothing to mix: the 14 x 14 patches"):
            TrainConfig().with_overrides([f"objective.block={block}"])
    assert TrainConfig().with_overrides(["objective.block=13"])

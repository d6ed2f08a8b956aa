"""RandAugment and colour jitter as drawn: which operations, how often, how strong."""

import collections

import pytest
import torch

from mixreorg.data import pixel_ops
from mixreorg.data.rand_augment import (
    RandAugmentConfig,
    Stage,
    apply_stages,
    jitter_stages,
    rand_augment_stages,
)
from mixreorg.errors import MixreorgError
from mixreorg.randomness import sample_keys

KEYS = sample_keys(0, torch.arange(6000))


def arguments(stages: list[Stage]) -> dict[object, torch.Tensor]:
    """Arguments that each operation met."""
    found = collections.defaultdict(list)
    for stage in stages:
        for operation, argument in zip(stage.operations, stage.arguments.tolist(), strict=True):
            found[operation].append(argument)
    return {operation: torch.tensor(values) for operation, values in found.items()}


def test_every_operation_is_drawn_equally_often_half_of_the_time() -> None:
    stages = rand_augment_stages(KEYS, RandAugmentConfig())
    assert len(stages) == 2
    counts = {operation: len(values) for operation, values in arguments(stages).items()}
    assert 5800 < counts.pop(None) < 6200
    assert len(counts) == 15
    assert min(counts.values()) > 330
    assert max(counts.values()) < 470
    both = sum(None not in pair for pair in zip(*(stage.operations for stage in stages), strict=True))
    assert 1400 < both < 1600


def test_arguments_are_those_of_magnitude_nine() -> None:
    found = arguments(rand_augment_stages(KEYS, RandAugmentConfig()))
    for operation, largest in [
        (pixel_ops.rotate, 30),
        (pixel_ops.shear_x, 0.3),
        (pixel_ops.shear_y, 0.3),
        (pixel_ops.translate_x, 0.45),
        (pixel_ops.translate_y, 0.45),
    ]:
        strength = found[operation].abs() / largest
        assert abs(strength.mean() - 0.9) < 0.01
        assert abs(strength.std() - 0.05) < 0.01
        assert strength.max() <= 1.0001
        assert 0.4 < (found[operation] > 0).float().mean() < 0.6
    for operation in (pixel_ops.colour, pixel_ops.contrast, pixel_ops.brightness, pixel_ops.sharpness):
        strength = (found[operation] - 1).abs()
        assert abs(strength.mean() - 0.81) < 0.01
        assert 0.4 < (found[operation] > 1).float().mean() < 0.6
    assert set(found[pixel_ops.posterise].tolist()) == {1.0}
    assert 0 <= found[pixel_ops.solarise].min() < found[pixel_ops.solarise].max() < 80
    assert abs(found[pixel_ops.solarise].mean() - 26) < 3
    assert abs(found[pixel_ops.solarise_add].mean() - 98.5) < 1.5


def test_severity_grows_with_the_magnitude() -> None:
    mild, severe = (
        arguments(rand_augment_stages(KEYS, RandAugmentConfig(magnitude=level, magnitude_std=0.0)))
        for level in (1.0, 10.0)
    )
    assert set(mild[pixel_ops.posterise].tolist()) == {4.0}
    assert set(severe[pixel_ops.posterise].tolist()) == {1.0}
    assert set(mild[pixel_ops.solarise].tolist()) == {231.0}
    assert set(severe[pixel_ops.solarise].tolist()) == {0.0}
    assert set(severe[pixel_ops.solarise_add].tolist()) == {110.0}
    assert severe[pixel_ops.rotate].abs().max() == 30
    assert mild[pixel_ops.rotate].abs().max() == 3
    assert severe[pixel_ops.colour].min() == pytest.approx(0.1)


def test_number_and_probability_of_operations() -> None:
    (stage,) = rand_augment_stages(KEYS[:50], RandAugmentConfig(num_ops=1, probability=1.0))
    assert None not in stage.operations
    none = rand_augment_stages(KEYS[:50], RandAugmentConfig(num_ops=3, probability=0.0))
    assert [set(stage.operations) for stage in none] == [{None}] * 3


def test_draws_depend_on_the_key_alone() -> None:
    for draw in (lambda keys: rand_augment_stages(keys, RandAugmentConfig()), lambda keys: jitter_stages(keys, 0.4)):
        for whole, part in zip(draw(KEYS), draw(KEYS[70:90]), strict=True):
            assert list(whole.operations[70:90]) == list(part.operations)
            assert torch.equal(whole.arguments[70:90], part.arguments)


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_jitter_changes_all_three_in_any_order_within_its_strength(strength: float, low: float, high: float) -> None:
    stages = jitter_stages(KEYS, strength)
    orders = collections.Counter(zip(*(stage.operations for stage in stages), strict=True))
    assert len(orders) == 6
    assert all(len(set(order)) == 3 for order in orders)
    assert min(orders.values()) > 850
    for values in arguments(stages).values():
        assert len(values) == len(KEYS)
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02


def test_the_factors_of_a_picture_are_independent() -> None:
    factors = torch.stack([stage.arguments for stage in jitter_stages(KEYS, 0.4)])
    assert (torch.corrcoef(factors) - torch.eye(3)).abs().max() < 0.05


def test_pictures_that_share_an_operation_go_through_it_together() -> None:
    calls = []

    def halve(pixels: torch.Tensor, argument: torch.Tensor) -> torch.Tensor:
        calls.append(argument.tolist())
        return pixels / argument.view(-1, 1, 1, 1)

    pixels = torch.ones(4, 3, 2, 2)
    stage = Stage([halve, None, halve, halve], torch.tensor([2.0, 9.0, 4.0, 8.0]))
    assert apply_stages(pixels, [stage, stage[:4]])[:, 0, 0, 0].tolist() == [0.25, 1, 1 / 16, 1 / 64]
    assert calls == [[2.0, 4.0, 8.0]] * 2


@pytest.mark.parametrize(
    "values", [{"magnitude": 11.0}, {"num_ops": 0}, {"probability": 1.5}, {"magnitude_std": -0.1}, {"magnitud": 9.0}]
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(MixreorgError, match=next(iter(values))):
        RandAugmentConfig.from_dict(values)

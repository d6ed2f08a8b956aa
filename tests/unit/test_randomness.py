import numpy as np
import torch

from mixreorg.models.grouping import gumbel_noise
from mixreorg.randomness import keyed_uniform, make_key, name_key, numpy_generator, sample_keys


def test_keys_depend_on_every_part_and_on_their_order() -> None:
    keys = {make_key(1, 2), make_key(2, 1), make_key(1, 2, 0), make_key("a", 1), make_key("b", 1), make_key(-1)}
    assert len(keys) == 6
    assert all(0 <= key < 2**63 for key in keys)
    assert make_key(0, "order") == make_key(0, "order")


def test_numpy_generator_is_fixed_by_its_key() -> None:
    assert np.array_equal(numpy_generator(3, "x").random(5), numpy_generator(3, "x").random(5))
    assert not np.array_equal(numpy_generator(3, "x").random(5), numpy_generator(3, "y").random(5))


def test_uniform_numbers_are_uniform_and_independent() -> None:
    keys = sample_keys(0, torch.arange(200))
    values = keyed_uniform(keys, "noise", (50, 40))
    assert values.min() > 0
    assert values.max() < 1
    expected = values.numel() / 20
    chi_square = (torch.histc(values, bins=20, min=0, max=1) - expected).square().sum() / expected
    assert chi_square < 43.8  # 19 degrees of freedom: once in a thousand seeds
    correlation = torch.corrcoef(values.flatten(1))
    assert (correlation - torch.eye(200)).abs().max() < 0.12
    assert torch.corrcoef(values.flatten(1).T[:100])[0, 1:].abs().max() < 0.35


def test_streams_do_not_depend_on_the_batch_around_them() -> None:
    keys = torch.tensor([5, 6, 7])
    together = keyed_uniform(keys, "a", (4,))
    assert torch.equal(together[1:2], keyed_uniform(keys[1:2], "a", (4,)))
    assert not torch.equal(together, keyed_uniform(keys, "b", (4,)))


def test_sample_keys_depend_on_the_seed() -> None:
    ids = torch.arange(1000)
    first, second = sample_keys(0, ids), sample_keys(1, ids)
    assert len(first.unique()) == 1000
    assert not (first == second).any()


def test_a_name_may_be_given_as_its_key() -> None:
    keys = torch.arange(5)
    assert torch.equal(keyed_uniform(keys, name_key("drop_path.3"), (4,)), keyed_uniform(keys, "drop_path.3", (4,)))


def test_no_number_is_rounded_up_to_one() -> None:
    # The eleventh number of this key has all 24 bits set.
    uniform = keyed_uniform(torch.tensor([449578]), "gumbel", (16,))
    assert uniform[0, 10] == 1 - 2.0**-24
    assert gumbel_noise(torch.tensor([449578]), "gumbel", (16,)).isfinite().all()

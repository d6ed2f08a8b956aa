import pytest
import torch

from mixreorg.objectives.source_index import draw_source_index, group_candidates

KEYS = torch.arange(100, 112)


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (1, 9)])
def test_restoring_a_mix_gives_back_every_bit(group_size: int, block: int, grid: tuple[int, int]) -> None:
    source = draw_source_index(KEYS, grid, group_size, block)
    patches = torch.randn(len(KEYS), grid[0] * grid[1], 3)
    assert torch.equal(source.restore(source.mix(patches)), patches)
    assert torch.equal(source.mix(source.restore(patches)), patches)


@pytest.mark.parametrize("batch", [8, 10, 9, 3])
def test_every_patch_stays_in_its_group_and_is_used_once(batch: int) -> None:
    source = draw_source_index(KEYS[:batch], (5, 3), 4, 1)
    group = torch.arange(batch) // 4
    assert torch.equal(group[source.source], group[:, None].expand(-1, 15))
    for position in range(15):
        assert source.source[:, position].sort().values.tolist() == list(range(batch))


def test_mixed_patches_come_from_their_source() -> None:
    source = draw_source_index(KEYS, (4, 4), 4, 2)
    owner = torch.arange(len(KEYS)).float()[:, None, None].expand(-1, 16, 1)
    assert torch.equal(source.mix(owner)[..., 0].long(), source.source)
    candidates = group_candidates(len(KEYS), 4, KEYS.device)
    assert torch.equal(candidates.gather(1, source.group_targets), source.source)


def test_a_unit_of_mixing_is_not_torn_apart() -> None:
    source = draw_source_index(KEYS, (5, 6), 4, 2).source.view(-1, 5, 6)
    for row in (0, 2):
        for column in (0, 2, 4):
            unit = source[:, row : row + 2, column : column + 2].flatten(1)
            assert unit.eq(unit[:, :1]).all()
    assert not source[:, 0, 0].eq(source[:, 0, 2]).all()


def test_the_draw_is_random_and_a_function_of_the_keys() -> None:
    first = draw_source_index(KEYS, (4, 4), 4, 1)
    assert torch.equal(first.source, draw_source_index(KEYS, (4, 4), 4, 1).source)
    assert not torch.equal(first.source, draw_source_index(KEYS + 1, (4, 4), 4, 1).source)
    # A group depends on its own samples alone: the second group is the same in a batch of its own.
    alone = draw_source_index(KEYS[4:8], (4, 4), 4, 1)
    assert torch.equal(first.source[4:8] - 4, alone.source)


def test_all_permutations_are_about_equally_likely() -> None:
    source = draw_source_index(torch.arange(3 * 400), (10, 10), 3, 1).source.view(400, 3, 100)
    own = source % 3
    code = (own[:, 0] * 9 + own[:, 1] * 3 + own[:, 2]).flatten()
    counts = torch.bincount(code)[torch.bincount(code) > 0]
    assert len(counts) == 6
    assert counts.min() > 0.9 * code.numel() / 6


def test_gradients_take_the_way_back() -> None:
    source = draw_source_index(KEYS, (4, 4), 4, 1)
    patches = torch.randn(len(KEYS), 16, 2, requires_grad=True)
    weights = torch.randn(len(KEYS), 16, 2)
    (source.mix(patches) * weights).sum().backward()
    assert torch.equal(patches.grad, source.restore(weights))

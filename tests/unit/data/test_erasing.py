"""Erasing: one rectangle of unit noise in the share of pictures asked for, keyed."""

import torch

from mixreorg.data.erasing import draw_erasures, erase
from mixreorg.randomness import sample_keys

KEYS = sample_keys(0, torch.arange(600))


def test_one_rectangle_in_the_share_of_pictures_asked_for() -> None:
    pixels = torch.full((600, 3, 32, 32), 9.0)
    erase(pixels, draw_erasures(KEYS, 0.25, 32, 32))
    changed = (pixels != 9).any(1)
    assert torch.equal(changed, (pixels != 9).all(1))
    areas = []
    for mask in changed[changed.flatten(1).any(1)]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        assert mask.sum() == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        areas.append(mask.sum().item() / 1024)
    assert 115 < len(areas) < 185
    assert 0.01 < min(areas) < 0.03
    assert 0.3 < max(areas) < 0.36


def test_the_noise_is_normal_and_differs_between_channels_and_pictures() -> None:
    erasures = draw_erasures(KEYS, 1.0, 32, 32)
    pixels = torch.full((600, 3, 32, 32), 9.0)
    erase(pixels, erasures)
    noise = pixels[pixels != 9]
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert 3.3 < noise.abs().max() < 6
    left, top, _, _ = erasures[0].box
    assert pixels[0, :, top, left].unique().numel() == 3
    assert len({erasure.place for erasure in erasures}) > 590


def test_an_erasure_depends_on_its_key_alone() -> None:
    erasures = draw_erasures(KEYS, 0.5, 20, 30)
    assert draw_erasures(KEYS[100:110], 0.5, 20, 30) == erasures[100:110]
    whole, part = torch.zeros(600, 3, 30, 20), torch.zeros(10, 3, 30, 20)
    erase(whole, erasures)
    erase(part, erasures[100:110])
    assert torch.equal(whole[100:110], part)
    assert not part.equal(torch.zeros_like(part))


def test_nothing_is_erased_at_probability_zero() -> None:
    assert draw_erasures(KEYS, 0.0, 32, 32) == [None] * 600

"""Random erasing (Zhong et al., 2017): a rectangle of Gaussian noise in some pictures of a batch."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixreorg.data.decode import Box
from mixreorg.data.random_box import BOX_NUMBERS, RandomBox
from mixreorg.randomness import keyed_uniform

_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)
_FIELD_PICTURES = 3


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is erased from a picture."""

    box: Box
    place: float
    """Where in the field of noise the rectangle's noise begins, 0..1."""


def draw_erasures(keys: Tensor, probability: float, width: int, height: int) -> list[Erasure | None]:
    """Draw the rectangles of a batch.

    Args:
        keys: ``[B]`` int64 on the CPU, one per picture.
        probability: share of pictures that have a rectangle; the others get None.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
    """
    uniform = keyed_uniform(keys, "erase", (2 + BOX_NUMBERS,)).double().numpy()
    return [
        Erasure(RandomBox.from_uniform(row[2:], _AREA, _RATIO).box(width, height), float(row[1]))
        if row[0] < probability
        else None
        for row in uniform
    ]


def erase(pixels: Tensor, erasures: Sequence[Erasure | None]) -> None:
    """Fill rectangles with noise of mean 0 and standard deviation 1, in place.

    Every rectangle reads its noise from a place of its own in one long field of it: to draw it afresh would take
    longer than everything else that happens to a picture.

    Args:
        pixels: ``[B, 3, H, W]`` float32, normalised.
        erasures: as :func:`draw_erasures` draws them.
    """
    for picture, erasure in zip(pixels, erasures, strict=True):
        if erasure is not None:
            left, top, right, bottom = erasure.box
            shape = (3, bottom - top, right - left)
            field = _noise_field(_FIELD_PICTURES * picture.numel(), pixels.device)
            count = 3 * shape[1] * shape[2]
            start = int(erasure.place * (len(field) - count))
            picture[:, top:bottom, left:right] = field[start : start + count].view(shape)


@functools.lru_cache(maxsize=4)
def _noise_field(length: int, device: torch.device) -> Tensor:
    """``[length]`` numbers of a normal distribution, the same on every device."""
    uniform = keyed_uniform(torch.zeros(1, dtype=torch.int64), "erase.noise", (length,))[0]
    field: Tensor = torch.special.ndtri(uniform.double())
    return field.float().to(device)

"""Which operations RandAugment and colour jitter do to which picture, and how strongly; keyed, drawn on the CPU."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.data import pixel_ops
from mixreorg.randomness import keyed_uniform

_MAX_MAGNITUDE = 10.0

Operation = Callable[[Tensor, Tensor], Tensor]
"""``[B, 3, H, W]`` pixels and ``[B]`` arguments to new pixels."""


class RandAugmentConfig(StrictConfig):
    """RandAugment (Cubuk et al., 2020) with varying strength. The defaults are the published recipe.

    Recipes name it ``rand-m9-mstd0.5-inc1``: the last part says that every operation grows more severe with the
    magnitude. Unlike there, posterising leaves at least one bit.
    """

    num_ops: int = Field(2, ge=1)
    """Operations drawn per picture, with replacement."""
    magnitude: float = Field(9.0, ge=0, le=_MAX_MAGNITUDE)
    """Mean strength, 0 to 10."""
    magnitude_std: float = Field(0.5, ge=0)
    """Standard deviation of the strength; what falls outside of 0 to 10 is cut to it."""
    probability: float = Field(0.5, ge=0, le=1)
    """Chance that a drawn operation takes place."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What happens to each picture of a batch at one point of its augmentation."""

    operations: Sequence[Operation | None]
    """``B``; None for nothing."""
    arguments: Tensor
    """``[B]`` float32."""

    def __getitem__(self, part: slice) -> "Stage":
        """The stage of consecutive pictures."""
        return Stage(self.operations[part], self.arguments[part])

    def to(self, device: torch.device) -> "Stage":
        """The stage with its arguments on a device."""
        return Stage(self.operations, self.arguments.to(device, non_blocking=True))


def rand_augment_stages(keys: Tensor, config: RandAugmentConfig) -> list[Stage]:
    """Draw RandAugment for a batch.

    Args:
        keys: ``[B]`` int64 on the CPU, one key per picture.
        config: how many operations and how strong.

    Returns:
        ``num_ops`` stages of ``B``.
    """
    uniform = keyed_uniform(keys, "rand_augment", (config.num_ops, 4)).double()
    spread = config.magnitude_std * torch.special.ndtri(uniform[..., 0])
    levels = (config.magnitude + spread).clamp(0, _MAX_MAGNITUDE) / _MAX_MAGNITUDE
    choices = (uniform[..., 1] * len(_RAND_AUGMENT)).long().tolist()
    return [
        _stage(
            [
                (_RAND_AUGMENT[choice[number]], level[number], 1 if sign < 0.5 else -1)
                if chance < config.probability
                else None
                for choice, level, (_, _, sign, chance) in zip(
                    choices, levels.tolist(), uniform[:, number].tolist(), strict=True
                )
            ]
        )
        for number in range(config.num_ops)
    ]


def jitter_stages(keys: Tensor, strength: float) -> list[Stage]:
    """Draw brightness, contrast and saturation changes in random order: three stages of ``B``.

    Args:
        keys: as for :func:`rand_augment_stages`.
        strength: each factor is uniform in ``1 - strength`` (at least 0) .. ``1 + strength``.
    """
    uniform = keyed_uniform(keys, "colour_jitter", (2, len(_JITTER)))
    low = max(0.0, 1 - strength)
    factors = low + (1 + strength - low) * uniform[:, 0]
    orders = uniform[:, 1].argsort(dim=1, stable=True)
    return [
        Stage([_JITTER[index] for index in orders[:, place].tolist()], factors[:, place])
        for place in range(len(_JITTER))
    ]


def apply_stages(pixels: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Put a batch through its stages; pictures that share an operation go through it together.

    Args:
        pixels: ``[B, 3, H, W]`` float32 in 0..255; overwritten.
        stages: of ``B`` each, on the same device.

    Returns:
        ``[B, 3, H, W]``, which may be ``pixels`` itself.
    """
    for stage in stages:
        groups: dict[Operation, list[int]] = {}
        for index, operation in enumerate(stage.operations):
            if operation is not None:
                groups.setdefault(operation, []).append(index)
        for operation, indices in groups.items():
            if len(indices) == len(pixels):
                pixels = operation(pixels, stage.arguments)
            else:
                place = torch.tensor(indices, device=pixels.device)
                changed = operation(pixels.index_select(0, place), stage.arguments.index_select(0, place))
                pixels.index_copy_(0, place, changed)
    return pixels


_Strength = Callable[[float, int], float]
"""From a level in 0..1 and a sign to an operation's argument."""


def _blend(level: float, sign: int) -> float:
    return 1 + sign * 0.9 * level


def _signed(largest: float) -> _Strength:
    return lambda level, sign: sign * largest * level


def _unused(level: float, sign: int) -> float:
    return 0.0


def _without_argument(operation: Callable[[Tensor], Tensor]) -> Operation:
    @functools.wraps(operation)
    def ignoring(pixels: Tensor, _: Tensor) -> Tensor:
        return operation(pixels)

    return ignoring


_JITTER: tuple[Operation, ...] = (pixel_ops.brightness, pixel_ops.contrast, pixel_ops.colour)
_RAND_AUGMENT: tuple[tuple[Operation, _Strength], ...] = (
    (_without_argument(pixel_ops.auto_contrast), _unused),
    (_without_argument(pixel_ops.equalise), _unused),
    (_without_argument(pixel_ops.invert), _unused),
    (pixel_ops.rotate, _signed(30)),
    (pixel_ops.posterise, lambda level, _: max(1, 4 - int(4 * level))),
    (pixel_ops.solarise, lambda level, _: 256 - int(256 * level)),
    (pixel_ops.solarise_add, lambda level, _: int(110 * level)),
    (pixel_ops.colour, _blend),
    (pixel_ops.contrast, _blend),
    (pixel_ops.brightness, _blend),
    (pixel_ops.sharpness, _blend),
    (pixel_ops.shear_x, _signed(0.3)),
    (pixel_ops.shear_y, _signed(0.3)),
    (pixel_ops.translate_x, _signed(0.45)),
    (pixel_ops.translate_y, _signed(0.45)),
)


def _stage(drawn: Sequence[tuple[tuple[Operation, _Strength], float, int] | None]) -> Stage:
    operations: list[Operation | None] = []
    arguments: list[float] = []
    for item in drawn:
        if item is None:
            operations.append(None)
            arguments.append(0.0)
        else:
            (operation, strength), level, sign = item
            operations.append(operation)
            arguments.append(strength(level, sign))
    return Stage(operations, torch.tensor(arguments))

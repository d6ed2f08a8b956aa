"""Windows over a resized photo; needs no torch."""

from dataclasses import dataclass
from typing import NamedTuple

from mixreorg.segment.protocol import Protocol


class Box(NamedTuple):
    """A window in pixels of the resized photo; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class WindowPlan:
    """Size of the resized photo in pixels and the windows to encode, all of one size, covering it."""

    height: int
    width: int
    boxes: tuple[Box, ...]


def resized_size(width: int, height: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Width and height with the short side at ``short_side``, or less where the long side would pass its
    limit.

    Both are rounded to the nearest pixel, as the published evaluation does, and are at least 1.
    """
    scale = min(short_side / min(width, height), long_side / max(width, height))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def window_boxes(height: int, width: int, window: int, stride: int) -> list[Box]:
    """Windows of one size on a regular grid, row by row; the last row and column are moved back inside.

    The published rule: ``max(side - window + stride - 1, 0) // stride + 1`` windows per side. A side shorter
    than the window gets one window of its own length.
    """
    return [
        Box(top, left, bottom, right)
        for top, bottom in _spans(height, window, stride)
        for left, right in _spans(width, window, stride)
    ]


def plan_windows(protocol: Protocol, width: int, height: int) -> WindowPlan:
    """Resized size and windows of a photo of ``width`` x ``height`` pixels under ``protocol``."""
    new_width, new_height = resized_size(width, height, protocol.short_side, protocol.long_side)
    if protocol.whole:
        return WindowPlan(new_height, new_width, (Box(0, 0, new_height, new_width),))
    return WindowPlan(
        new_height, new_width, tuple(window_boxes(new_height, new_width, protocol.window, protocol.stride))
    )


def _spans(side: int, window: int, stride: int) -> list[tuple[int, int]]:
    count = max(side - window + stride - 1, 0) // stride + 1
    ends = [min(index * stride + window, side) for index in range(count)]
    return [(max(end - window, 0), end) for end in ends]

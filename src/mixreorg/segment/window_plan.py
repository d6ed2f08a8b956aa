"""Windows over a resized photo; needs no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from mixreorg.errors import MixreorgError
from mixreorg.segment.protocol import Protocol


class Box(NamedTuple):
    """A window in pixels of the resized photo; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


Members = list[tuple[int, Box]]
"""Numbers of windows and the boxes they have in the photo."""


@dataclass(frozen=True)
class WindowPlan:
    """Size of the resized photo in pixels and the windows to encode, all of one size, covering it.

    Windows are encoded in the order of :meth:`groups`: those of ``boxes``, then the tiles of each larger scale, then
    all of them mirrored where there is a flip.
    """

    height: int
    width: int
    boxes: tuple[Box, ...]
    larger: tuple["WindowPlan", ...] = ()
    """The photo at larger scales, cut into tiles of the same size."""
    flip: bool = False
    """Every window is encoded mirrored as well."""

    @property
    def num_windows(self) -> int:
        """Windows to encode."""
        return sum(len(scale.boxes) for scale in self.scales) * (1 + self.flip)

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of every window in pixels."""
        box = self.boxes[0]
        return box.bottom - box.top, box.right - box.left

    @property
    def scales(self) -> tuple["WindowPlan", ...]:
        """This plan and those of the larger scales."""
        return (self, *self.larger)

    def groups(self) -> Iterator[tuple["WindowPlan", Members]]:
        """Each scale with the numbers and boxes of its windows; a mirrored window has the box of its original."""
        start, half = 0, self.num_windows // 2
        for scale in self.scales:
            windows = list(enumerate(scale.boxes, start))
            if self.flip:
                windows += [(half + number, box) for number, box in windows]
            yield scale, windows
            start += len(scale.boxes)


def resized_size(width: int, height: int, short_side: float, long_side: float) -> tuple[int, int]:
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
    """Resized size, windows and tiles of a photo of ``width`` x ``height`` pixels under ``protocol``."""
    new_width, new_height = resized_size(width, height, protocol.short_side, protocol.long_side)
    if protocol.whole:
        boxes = [Box(0, 0, new_height, new_width)]
    else:
        boxes = window_boxes(new_height, new_width, protocol.window, protocol.stride)
    base = WindowPlan(new_height, new_width, tuple(boxes), flip=protocol.flip)
    tiles = tuple(_plan_tiles(protocol, width, height, scale, base.window_size) for scale in protocol.tile_scales)
    return replace(base, larger=tiles)


def require_patch(plan: WindowPlan, protocol: Protocol, photo: tuple[int, int], patch: int) -> None:
    """Refuse windows that are thinner than one patch, and say what makes them larger.

    Args:
        plan: of the photo.
        protocol: that it follows.
        photo: width and height of the photo in pixels.
        patch: side of a patch in pixels.

    Raises:
        MixreorgError: they are.
    """
    if min(plan.window_size) >= patch:
        return
    becomes, side = f"becomes {plan.width} x {plan.height}", min(plan.width, plan.height)
    if side >= patch:
        height, width = plan.window_size
        becomes, remedy = f"is cut into windows of {width} x {height}", "raise the protocol's window"
    elif side < protocol.short_side:
        remedy = f"crop it, or raise the protocol's long_side ({protocol.long_side}), as a larger short_side does"
    else:
        remedy = f"raise short_side ({protocol.short_side})"
    raise MixreorgError(
        f"a photo of {photo[0]} x {photo[1]} pixels {becomes}, thinner than one patch of {patch}; {remedy}"
    )


def _plan_tiles(protocol: Protocol, width: int, height: int, scale: float, size: tuple[int, int]) -> WindowPlan:
    """The photo at ``scale``, in tiles of ``size`` that overlap by half, or as the protocol's windows do."""
    new_width, new_height = resized_size(width, height, scale * protocol.short_side, scale * protocol.long_side)
    boxes = [
        Box(top, left, bottom, right)
        for top, bottom in _spans(new_height, size[0], _tile_stride(protocol, size[0]))
        for left, right in _spans(new_width, size[1], _tile_stride(protocol, size[1]))
    ]
    return WindowPlan(new_height, new_width, tuple(boxes))


def _tile_stride(protocol: Protocol, side: int) -> int:
    half = max(1, side // 2)
    return half if protocol.whole else min(half, protocol.stride)


def _spans(side: int, window: int, stride: int) -> list[tuple[int, int]]:
    count = max(side - window + stride - 1, 0) // stride + 1
    ends = [min(index * stride + window, side) for index in range(count)]
    return [(max(end - window, 0), end) for end in ends]

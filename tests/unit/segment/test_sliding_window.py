import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mixreorg.segment.class_maps import WindowScores
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import Box, WindowPlan, plan_windows, resized_size, window_boxes


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ((400, 300), (597, 448)),
        ((300, 400), (448, 597)),
        ((500, 375), (597, 448)),
        ((448, 448), (448, 448)),
        ((500, 333), (673, 448)),
        ((333, 500), (448, 673)),
        ((4000, 3000), (597, 448)),
        ((10000, 1000), (2048, 205)),
        ((10000, 1), (2048, 1)),
        ((1, 1), (448, 448)),
    ],
)
def test_resized_size(photo, expected):
    assert resized_size(*photo, 448, 2048) == expected


@pytest.mark.parametrize(
    ("side", "starts"),
    [
        (448, [0]),
        (449, [0, 1]),
        (672, [0, 224]),
        (673, [0, 224, 225]),
        (100, [0]),
        (1000, [0, 224, 448, 552]),
    ],
)
def test_windows_are_flush_with_the_border(side, starts):
    boxes = window_boxes(448, side, 448, 224)
    assert [box.left for box in boxes] == starts
    assert {box.right - box.left for box in boxes} == {min(448, side)}
    assert boxes[-1].right == side
    assert {(box.top, box.bottom) for box in boxes} == {(0, 448)}
    assert [(box.left, box.top) for box in boxes] == [(b.top, b.left) for b in window_boxes(side, 448, 448, 224)]


def test_windows_cover_every_pixel_row_by_row():
    boxes = window_boxes(70, 101, 32, 20)
    covered = torch.zeros(70, 101)
    for box in boxes:
        covered[box.top : box.bottom, box.left : box.right] += 1
    assert covered.min() >= 1
    assert boxes == sorted(boxes)


def test_plan():
    plan = plan_windows(groupvit_protocol(), 400, 300)
    assert plan == WindowPlan(448, 597, (Box(0, 0, 448, 448), Box(0, 149, 448, 597)))
    whole = plan_windows(groupvit_protocol().updated(whole=True), 400, 300)
    assert whole == WindowPlan(448, 597, (Box(0, 0, 448, 597),))


def _windows(plan, classes, kept, seed=0):
    """Random scores of ``kept`` classes per window, the others 0, as a shortlist leaves them."""
    generator = torch.Generator().manual_seed(seed)
    box = plan.boxes[0]
    shape = (len(plan.boxes), box.bottom - box.top, box.right - box.left)
    scores = torch.rand(len(plan.boxes), 6, classes, generator=generator)
    ranks = torch.rand(len(plan.boxes), 1, classes, generator=generator).argsort(-1)
    return WindowScores(torch.randint(6, shape, generator=generator), scores * (ranks < kept))


def _naive(windows, plan, height, width):
    total = torch.zeros(windows.segment_scores.shape[-1], plan.height, plan.width)
    count = torch.zeros(plan.height, plan.width)
    for scores, box in zip(windows.expand(), plan.boxes, strict=True):
        total[:, box.top : box.bottom, box.left : box.right] += scores
        count[box.top : box.bottom, box.left : box.right] += 1
    resized = functional.interpolate((total / count)[None], size=(height, width), mode="bilinear", align_corners=False)[
        0
    ]
    return resized.argmax(0), resized.amax((1, 2))


@pytest.mark.parametrize(("height", "width"), [(90, 120), (45, 61), (300, 401), (1, 7), (448, 597)])
@pytest.mark.parametrize("classes", [1, 3, 60])
def test_equals_the_naive_computation(height, width, classes):
    plan = WindowPlan(90, 120, tuple(window_boxes(90, 120, 64, 32)))
    windows = _windows(plan, classes, kept=5)
    merged = merge_windows(windows, plan, height, width)
    labels, best = _naive(windows, plan, height, width)
    assert torch.equal(merged.label_map.long(), labels)
    torch.testing.assert_close(merged.class_scores, best)


def test_ties_and_saturated_scores_equal_the_naive_computation():
    plan = WindowPlan(90, 120, tuple(window_boxes(90, 120, 64, 32)))
    windows = _windows(plan, 12, kept=5)
    saturated = WindowScores(windows.segment_map, windows.segment_scores.round())
    labels, _ = _naive(saturated, plan, 300, 333)
    assert torch.equal(merge_windows(saturated, plan, 300, 333).label_map.long(), labels)
    dead = WindowScores(windows.segment_map, torch.zeros_like(windows.segment_scores))
    assert merge_windows(dead, plan, 30, 33).label_map.eq(0).all()
    one = WindowScores(windows.segment_map, torch.zeros_like(windows.segment_scores))
    one.segment_scores[:, 2, 7] = 1e-3
    labels, _ = _naive(one, plan, 90, 120)
    assert labels.unique().tolist() == [0, 7]
    assert torch.equal(merge_windows(one, plan, 90, 120).label_map.long(), labels)


def test_a_large_photo_with_a_thousand_classes():
    plan = plan_windows(groupvit_protocol(), 4000, 3000)
    windows = _windows(plan, 1001, kept=5)
    with _LargestTensor() as largest:
        merged = merge_windows(windows, plan, 3000, 4000)
    assert merged.label_map.shape == (3000, 4000)
    assert largest.bytes == 4 * 3000 * 4000


class _LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple) else (result,):
            if isinstance(item, torch.Tensor):
                self.bytes = max(self.bytes, item.numel() * item.element_size())
        return result


@pytest.mark.parametrize(
    ("boxes", "message"),
    [((Box(0, 0, 8, 8),) * 2, "the plan has 2"), ((Box(0, 0, 8, 9),), "do not fit")],
)
def test_windows_of_another_plan(boxes, message):
    windows = WindowScores(torch.zeros(1, 8, 8, dtype=torch.long), torch.rand(1, 2, 3))
    with pytest.raises(ValueError, match=message):
        merge_windows(windows, WindowPlan(8, 9, boxes), 10, 10)


def test_one_window_of_the_photos_own_size_equals_the_general_way():
    torch.manual_seed(0)
    scores = torch.rand(1, 6, 9)
    scores[0, 2] = scores[0, 2].round()  # ties
    windows = WindowScores(torch.randint(0, 5, (1, 12, 10)), scores)
    plan = WindowPlan(12, 10, (Box(0, 0, 12, 10),))
    fast = merge_windows(windows, plan, 12, 10)
    twice = WindowScores(windows.segment_map.repeat(2, 1, 1), scores.repeat(2, 1, 1))
    general = merge_windows(twice, WindowPlan(12, 10, plan.boxes * 2), 12, 10)
    assert torch.equal(fast.label_map, general.label_map)
    torch.testing.assert_close(fast.class_scores, general.class_scores)


@pytest.mark.parametrize(
    ("num_classes", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (32768, torch.int16), (32769, torch.int32)],
)
def test_label_maps_hold_the_last_class_in_the_smallest_type(num_classes, dtype):
    scores = torch.zeros(1, 1, num_classes)
    scores[..., -1] = 1
    windows = WindowScores(torch.zeros(1, 4, 4, dtype=torch.long), scores)
    labels = merge_windows(windows, WindowPlan(4, 4, (Box(0, 0, 4, 4),)), 4, 4).label_map
    assert labels.dtype == dtype
    assert (labels == num_classes - 1).all()

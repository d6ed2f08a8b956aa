"""Scores of windows merged into labels of the photo's own size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mixreorg.segment.class_maps import WindowScores
from mixreorg.segment.refinement import RefineMap
from mixreorg.segment.window_plan import Members, WindowPlan


@dataclass(frozen=True)
class MergedScores:
    """What all windows together say about a photo."""

    label_map: Tensor
    """``[H, W]`` uint8, int16 or int32, the smallest that holds every class index: the best class (background
    first, where there is one)."""
    best_scores: Tensor
    """``[H, W]`` float32: the score of that class."""
    class_scores: Tensor
    """``[C]`` or ``[1 + C]`` float32: the best score any pixel gives each class."""


@torch.no_grad()
def merge_windows(
    windows: WindowScores, plan: WindowPlan, height: int, width: int, refine: RefineMap | None = None
) -> MergedScores:
    """Average overlapping windows, resize bilinearly (align_corners=False) to the photo and take the arg max.

    With larger scales each is averaged and resized by itself, and then all of them are averaged.

    Gives the labels of the same steps on full score maps ``[C, H, W]``, ties included, but holds one class
    at a time and visits only classes that some window shortlisted: about 12 bytes per pixel of the photo,
    however many classes.

    Args:
        windows: scores of the plan's windows, in their order.
        plan: the windows and the resized size.
        height: of the result, in pixels.
        width: of the result, in pixels.
        refine: refines the scores ``[H, W]`` of a class, before the arg max.

    Raises:
        ValueError: another number or size of windows than the plan has.
    """
    _check(windows, plan)
    if plan.num_windows == 1 and (plan.height, plan.width) == (height, width) and refine is None:
        return _label_segments(windows)
    scores_BSC = windows.segment_scores
    device = scores_BSC.device
    merger = _ClassMerger(windows, plan, height, width, refine)
    maps = ((index, merger.merge(index)) for index in _scoring_classes(scores_BSC))
    return label_maps(maps, scores_BSC.shape[-1], (height, width), device)


@torch.no_grad()
def merge_class(
    windows: WindowScores, plan: WindowPlan, height: int, width: int, index: int, refine: RefineMap | None = None
) -> Tensor:
    """Merge one class: its scores ``[H, W]`` over the photo, by the steps of :func:`merge_windows`."""
    _check(windows, plan)
    return _ClassMerger(windows, plan, height, width, refine).merge(index)


@torch.no_grad()
def merge_each_class(windows: WindowScores, plan: WindowPlan) -> Iterator[tuple[int, Tensor]]:
    """Merge every class that has any score: its index, and its scores ``[h, w]`` at the size of the largest scale."""
    _check(windows, plan)
    finest = plan.scales[-1]
    merger = _ClassMerger(windows, plan, finest.height, finest.width, None)
    for index in _scoring_classes(windows.segment_scores):
        yield index, merger.merge(index)


@torch.no_grad()
def label_maps(
    maps: Iterable[tuple[int, Tensor]],
    num_classes: int,
    size: tuple[int, int],
    device: torch.device,
    refine: RefineMap | None = None,
) -> MergedScores:
    """Resize score maps bilinearly (align_corners=False) and take the arg max; classes without a map score 0.

    Args:
        maps: index and scores ``[h, w]`` of classes, in the order of their indices.
        num_classes: ``C``, or ``1 + C`` with background.
        size: height and width of the result, in pixels.
        device: of the maps.
        refine: refines resized scores ``[H, W]``, before the arg max.
    """
    best_HW = torch.full(size, -torch.inf, device=device)
    label_map = torch.zeros(size, dtype=_label_dtype(num_classes), device=device)
    class_scores = torch.zeros(num_classes, device=device)
    for index, scores_hw in maps:
        scores_HW = _refined(_resize(scores_hw, size), refine)
        class_scores[index] = _raise_best(best_HW, label_map, scores_HW, index)
    return MergedScores(label_map=label_map, best_scores=best_HW, class_scores=class_scores)


class _ClassMerger:
    """Merges one class after another; what they share is computed once."""

    def __init__(
        self, windows: WindowScores, plan: WindowPlan, height: int, width: int, refine: RefineMap | None
    ) -> None:
        self.windows, self.size, self.refine = windows, (height, width), refine
        device = windows.segment_scores.device
        self.scales = [(members, _coverage(scale, members, device)) for scale, members in plan.groups()]

    def merge(self, index: int) -> Tensor:
        """Scores ``[H, W]`` of a class."""
        merged_HW: Tensor | None = None
        for members, coverage_hw in self.scales:
            averaged_hw = _sum_windows(self.windows, members, torch.zeros_like(coverage_hw), index) / coverage_hw
            resized_HW = _resize(averaged_hw, self.size)
            merged_HW = resized_HW if merged_HW is None else merged_HW + resized_HW
        assert merged_HW is not None
        if len(self.scales) > 1:
            merged_HW = merged_HW / len(self.scales)
        return _refined(merged_HW, self.refine)


def _refined(scores_HW: Tensor, refine: RefineMap | None) -> Tensor:
    if refine is None:
        return scores_HW
    return torch.from_numpy(refine(scores_HW.cpu().numpy())).to(scores_HW.device)


def _coverage(scale: WindowPlan, members: Members, device: torch.device) -> Tensor:
    """How many windows hold each pixel ``[h, w]``."""
    coverage_hw = torch.zeros(scale.height, scale.width, device=device)
    for _, box in members:
        coverage_hw[box.top : box.bottom, box.left : box.right] += 1
    return coverage_hw


def _resize(scores_hw: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(scores_hw.shape) == size:
        return scores_hw
    return functional.interpolate(scores_hw[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _label_dtype(num_classes: int) -> torch.dtype:
    if num_classes <= 256:
        return torch.uint8
    return torch.int16 if num_classes <= 32768 else torch.int32


def _raise_best(best_HW: Tensor, label_map: Tensor, merged_HW: Tensor, index: int) -> Tensor:
    """Update the best score and its label in place with one class's scores; return the largest of these."""
    # Strictly better, in class order: a tie goes to the first class, as in an arg max over all.
    label_map.masked_fill_(merged_HW > best_HW, index)
    torch.maximum(best_HW, merged_HW, out=best_HW)
    return merged_HW.max()


def _label_segments(windows: WindowScores) -> MergedScores:
    """The same for one window of the photo's own size, where every segment has one label."""
    segments_HW, scores_SC = windows.segment_map[0], windows.segment_scores[0]
    used_S = torch.bincount(segments_HW.flatten(), minlength=len(scores_SC)) > 0
    # As above, a tie goes to the first class.
    best_S1 = scores_SC.amax(dim=-1, keepdim=True)
    labels_S = (scores_SC == best_S1).int().argmax(dim=-1).to(_label_dtype(scores_SC.shape[-1]))
    return MergedScores(
        label_map=labels_S[segments_HW],
        best_scores=best_S1[:, 0][segments_HW],
        class_scores=scores_SC[used_S].amax(dim=0),
    )


def _scoring_classes(scores_BSC: Tensor) -> list[int]:
    """Classes with any score, in order, and the first: the arg max where every score underflowed to 0."""
    scoring_C = scores_BSC.ne(0).flatten(end_dim=1).any(dim=0)
    scoring_C[0] = True
    indices: list[int] = scoring_C.nonzero()[:, 0].tolist()
    return indices


def _sum_windows(windows: WindowScores, members: Members, total_hw: Tensor, index: int) -> Tensor:
    """Add one class's scores over the windows of a scale to ``total_hw``, in their order; return it."""
    scoring = windows.segment_scores[:, :, index].ne(0).any(dim=1).tolist()
    for number, box in members:
        if scoring[number]:
            segments_hw = windows.segment_map[number]
            # index_select: the same as indexing with the map, several times faster on CPUs.
            scores_n = windows.segment_scores[number, :, index].index_select(0, segments_hw.flatten())
            total_hw[box.top : box.bottom, box.left : box.right] += scores_n.view(segments_hw.shape)
    return total_hw


def _check(windows: WindowScores, plan: WindowPlan) -> None:
    if len(windows.segment_map) != plan.num_windows:
        raise ValueError(f"{len(windows.segment_map)} decoded windows, but the plan has {plan.num_windows}")
    for box in (box for _, members in plan.groups() for _, box in members):
        if tuple(windows.segment_map.shape[1:]) != (box.bottom - box.top, box.right - box.left):
            raise ValueError(f"decoded windows of {tuple(windows.segment_map.shape[1:])} pixels do not fit {box}")

"""One decoded photo at many background thresholds: what does not depend on the threshold is computed once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mixreorg.segment.class_maps import WindowScores, with_background
from mixreorg.segment.refinement import RefineMap
from mixreorg.segment.sliding_window import MergedScores, merge_class, merge_windows
from mixreorg.segment.window_plan import WindowPlan


def sweep_background(
    windows: WindowScores,
    plan: WindowPlan,
    height: int,
    width: int,
    thresholds: Sequence[float],
    rival: WindowScores | None = None,
    refine: RefineMap | None = None,
) -> tuple[Tensor, Iterator[tuple[tuple[float, ...], Tensor]]]:
    """Label a photo without background, and at each of several background thresholds.

    Gives the labels of :func:`merge_windows` on ``with_background(scores, threshold)``, ties included. The
    threshold decides only where the background scores, so the classes are merged once for all thresholds, and
    thresholds that make the same segments background share one map.

    Args:
        windows: scores ``[B, S, C]`` of ``plan.boxes`` without background.
        plan: the windows and the resized size.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
        thresholds: background thresholds.
        rival: scores ``[B, S, 1 + C]`` with background phrases as the first class, for protocols that have them.
        refine: refines the scores ``[H, W]`` of a class.

    Returns:
        The labels ``[H, W]`` without background, 0 to C - 1; and pairs of thresholds and their common labels
        ``[H, W]``, 0 for background and ``1 + c`` for class c.
    """
    merged = merge_windows(windows, plan, height, width, refine)
    if rival is not None:
        return merged.label_map, _with_rival(merge_windows(rival, plan, height, width, refine), thresholds)
    return merged.label_map, _at_thresholds(windows, plan, merged, thresholds, refine)


def background_below(label_map: Tensor, best_scores: Tensor, threshold: float) -> Tensor:
    """Make pixels background (label 0) where the best score ``[H, W]`` is below the threshold."""
    return torch.where(best_scores < threshold, 0, label_map)


def _with_rival(merged: MergedScores, thresholds: Sequence[float]) -> Iterator[tuple[tuple[float, ...], Tensor]]:
    for threshold in thresholds:
        yield (threshold,), background_below(merged.label_map, merged.best_scores, threshold)


def _at_thresholds(
    windows: WindowScores,
    plan: WindowPlan,
    merged: MergedScores,
    thresholds: Sequence[float],
    refine: RefineMap | None,
) -> Iterator[tuple[tuple[float, ...], Tensor]]:
    groups: dict[bytes, list[float]] = {}
    backgrounds: dict[bytes, Tensor] = {}
    for threshold in thresholds:
        background_BS1 = with_background(windows.segment_scores, threshold)[..., :1]
        key = background_BS1.cpu().numpy().tobytes()
        groups.setdefault(key, []).append(threshold)
        backgrounds[key] = background_BS1
    # One class more than without background, which may need a wider type.
    labels_HW, best_HW = merged.label_map.to(torch.int32) + 1, merged.best_scores
    for key, group in groups.items():
        decided = WindowScores(windows.segment_map, backgrounds[key])
        background_HW = merge_class(decided, plan, best_HW.shape[0], best_HW.shape[1], 0, refine)
        # Strictly better: the background is the first class, and a tie goes to the first.
        yield tuple(group), torch.where(best_HW > background_HW, labels_HW, 0)

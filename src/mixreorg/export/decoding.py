"""Zero-shot decoding in numpy: the steps of ``segment.class_maps`` and ``segment.sliding_window`` without torch.

Tests hold both to the same results. Shapes are those of the functions of the same names there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mixreorg.segment.refinement import RefineMap
from mixreorg.segment.resize import FloatArray, IntArray, resize_bilinear
from mixreorg.segment.window_plan import Members, WindowPlan


@dataclass(frozen=True)
class WindowScores:
    """Class scores of windows of equal size, in compact form."""

    segment_map: IntArray
    """``[B, H, W]``: the segment of each pixel."""
    segment_scores: FloatArray
    """``[B, S, C]``, or ``[B, S, 1 + C]`` background first."""


def map_segments(assignment: FloatArray, size: tuple[int, int]) -> IntArray:
    """Segment of each pixel ``[B, H, W]`` from soft assignments ``[B, S, h, w]``."""
    segments: IntArray = resize_bilinear(assignment, size).argmax(axis=1)
    return segments


def score_segments(
    segment_embeddings: FloatArray,
    image_embeddings: FloatArray,
    class_embeddings: FloatArray,
    owners: tuple[int, ...],
    *,
    logit_scale: float,
    shortlist: int,
    num_negatives: int = 0,
    absent: Sequence[int] = (),
) -> FloatArray:
    """Scores ``[B, S, C]`` of every segment, without background.

    Args:
        segment_embeddings: ``[B, S, E]``, L2-normalised.
        image_embeddings: ``[B, E]``, L2-normalised.
        class_embeddings: ``[P, E]`` phrases, L2-normalised.
        owners: the class of each phrase, ascending.
        logit_scale: exponentiated and clamped.
        shortlist: classes kept per window.
        num_negatives: how many of the last classes are negatives, with a shortlist of their own.
        absent: indices of classes that score 0 and take no place on the shortlist.
    """
    # First phrase of each class: the phrases of a class lie side by side.
    starts = np.unique(owners, return_index=True)[1]
    scale = np.float32(logit_scale)
    logits_BSC = np.maximum.reduceat(segment_embeddings @ class_embeddings.T * scale, starts, axis=-1)
    image_logits_BC = np.maximum.reduceat(image_embeddings @ class_embeddings.T * scale, starts, axis=-1)
    image_logits_BC[:, list(absent)] = -np.inf
    wanted = image_logits_BC.shape[-1] - num_negatives
    parts = (image_logits_BC[:, :wanted], image_logits_BC[:, wanted:])
    dropped_BC = np.concatenate([_dropped(part, shortlist) for part in parts], axis=-1)
    dropped_BC[:, list(absent)] = True
    kept_BSC = np.where(dropped_BC[:, None], np.float32(-np.inf), logits_BSC)
    scores: FloatArray = _softmax(kept_BSC) * _softmax(logits_BSC)
    return scores


def _dropped(image_logits_BC: FloatArray, shortlist: int) -> npt.NDArray[np.bool_]:
    """Mask ``[B, C]`` of the classes that are not among the best; of equals, the first in the list are kept."""
    best = np.argsort(-image_logits_BC, axis=-1, kind="stable")[:, :shortlist]
    dropped_BC = np.ones(image_logits_BC.shape, dtype=np.bool_)
    np.put_along_axis(dropped_BC, best, False, axis=-1)
    return dropped_BC


def with_background(scores_BSC: FloatArray, background_threshold: float) -> FloatArray:
    """Put the background in front of class scores: ``[B, S, C]`` to ``[B, S, 1 + C]``."""
    threshold_B11 = scores_BSC.max(axis=(1, 2), keepdims=True).clip(max=np.float32(background_threshold))
    background_BS1 = (scores_BSC.max(axis=-1, keepdims=True) < threshold_B11).astype(np.float32)
    return np.concatenate([background_BS1, scores_BSC], axis=-1)


def merge_windows(
    windows: WindowScores, plan: WindowPlan, height: int, width: int, refine: RefineMap | None = None
) -> tuple[IntArray, FloatArray]:
    """Average overlapping windows, resize bilinearly to the photo, average scales, refine and take the arg max.

    Returns:
        Labels ``[height, width]`` and the best score any pixel gives each class, ``[C]`` or ``[1 + C]``.
    """
    scores_BSC = windows.segment_scores
    if plan.num_windows == 1 and (plan.height, plan.width) == (height, width) and refine is None:
        scores_SC, segments_HW = scores_BSC[0], windows.segment_map[0]
        return scores_SC.argmax(axis=-1)[segments_HW], scores_SC[np.unique(segments_HW)].max(axis=0)
    scales = [(members, _coverage(scale, members)) for scale, members in plan.groups()]
    best_HW = np.full((height, width), -np.inf, dtype=np.float32)
    label_map = np.zeros((height, width), dtype=np.min_scalar_type(scores_BSC.shape[-1]))
    class_scores = np.zeros(scores_BSC.shape[-1], dtype=np.float32)
    for index in _scoring_classes(scores_BSC):
        merged_HW = np.zeros((height, width), dtype=np.float32)
        for members, coverage_hw in scales:
            averaged_hw = _sum_windows(windows, members, coverage_hw.shape, index) / coverage_hw
            merged_HW += resize_bilinear(averaged_hw, (height, width))
        merged_HW /= len(scales)
        if refine is not None:
            merged_HW = refine(merged_HW)
        # Strictly better, in class order: a tie goes to the first class, as in an arg max over all.
        label_map[merged_HW > best_HW] = index
        np.maximum(best_HW, merged_HW, out=best_HW)
        class_scores[index] = merged_HW.max()
    return label_map, class_scores


def normalise_rows(features: npt.NDArray[np.float32]) -> FloatArray:
    """L2-normalise over the last axis, as ``torch.nn.functional.normalize`` does."""
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    rows: FloatArray = features / np.maximum(norms, np.float32(1e-12))
    return rows


def _softmax(logits: FloatArray) -> FloatArray:
    # Of a row of -inf alone, 0 is subtracted, and 1 put for its sum of 0: all shares are then 0.
    largest: FloatArray = logits.max(axis=-1, keepdims=True)
    largest[np.isneginf(largest)] = 0
    weights: FloatArray = np.exp(logits - largest)
    sums: FloatArray = weights.sum(axis=-1, keepdims=True)
    sums[sums == 0] = 1
    shares: FloatArray = weights / sums
    return shares


def _scoring_classes(scores_BSC: FloatArray) -> list[int]:
    """Classes with any score, in order, and the first: the arg max where every score underflowed to 0."""
    scoring_C = (scores_BSC != 0).any(axis=(0, 1))
    scoring_C[0] = True
    indices: list[int] = scoring_C.nonzero()[0].tolist()
    return indices


def _coverage(scale: WindowPlan, members: Members) -> FloatArray:
    """How many windows hold each pixel ``[h, w]``."""
    coverage_hw = np.zeros((scale.height, scale.width), dtype=np.float32)
    for _, box in members:
        coverage_hw[box.top : box.bottom, box.left : box.right] += 1
    return coverage_hw


def _sum_windows(windows: WindowScores, members: Members, size: tuple[int, ...], index: int) -> FloatArray:
    """Sum ``[h, w]`` of one class's scores over the windows of a scale, added in their order."""
    total_hw = np.zeros(size, dtype=np.float32)
    for number, box in members:
        scores_S = windows.segment_scores[number, :, index]
        total_hw[box.top : box.bottom, box.left : box.right] += scores_S[windows.segment_map[number]]
    return total_hw

"""The upper bound of the grouping: every segment named as well as it can be."""

import numpy as np
import torch

from mixreorg.eval.confusion import IntArray
from mixreorg.eval.split import Mask
from mixreorg.segment.class_maps import WindowScores
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import WindowPlan


def grouping_oracle(windows: WindowScores, plan: WindowPlan, truth: Mask, num_labels: int) -> IntArray:
    """Label a photo by the truth as far as its segments allow.

    Every final segment of every window takes the true label that most of its pixels have (of equals the
    first), pixels without truth left out; windows are then merged as predictions are. A segment without any true
    pixel takes no label, so that at its border it cannot win against one that has a label. What is lost to 100 is the
    grouping's fault: borders, and classes that share a segment.

    Args:
        windows: the segment maps of ``plan.boxes``; scores are not looked at.
        plan: the windows and the resized size.
        truth: ``[H, W]`` labels; those outside ``0 .. num_labels - 1`` are left out.
        num_labels: labels there are.

    Returns:
        ``[H, W]`` labels.
    """
    num_segments = windows.segment_scores.shape[1]
    present = np.unique(truth[(truth >= 0) & (truth < num_labels)])
    if not len(present):
        return np.zeros(truth.shape, dtype=np.int64)
    # Only labels of this photo can win: a short list keeps the votes small, however many labels there are.
    position = np.full(num_labels, -1)
    position[present] = np.arange(len(present))
    votes = torch.zeros(plan.num_windows, num_segments, len(present))
    for scale, members in plan.groups():
        resized = _resized_truth(truth, scale)
        for number, box in members:
            part = resized[box.top : box.bottom, box.left : box.right]
            segments = windows.segment_map[number].cpu().numpy()
            valid = (part >= 0) & (part < num_labels)
            cells = segments[valid] * len(present) + position[part[valid]]
            counts = np.bincount(cells, minlength=num_segments * len(present)).reshape(num_segments, -1)
            named = torch.from_numpy(np.flatnonzero(counts.any(axis=1)))
            votes[number, named, torch.from_numpy(counts.argmax(axis=1))[named]] = 1
    merged = merge_windows(WindowScores(windows.segment_map.cpu(), votes), plan, truth.shape[0], truth.shape[1])
    labels: IntArray = present[merged.label_map.numpy()]
    return labels


def _resized_truth(truth: Mask, scale: WindowPlan) -> Mask:
    """The truth at the size of a scale, by nearest neighbours."""
    height, width = truth.shape
    rows = (np.arange(scale.height) * 2 + 1) * height // (2 * scale.height)
    columns = (np.arange(scale.width) * 2 + 1) * width // (2 * scale.width)
    resized: Mask = truth[rows[:, None], columns[None]]
    return resized

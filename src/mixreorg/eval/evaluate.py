"""Run a segmenter over a split and count everything in one pass."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mixreorg.eval.confusion import Confusion
from mixreorg.eval.split import Mask
from mixreorg.eval.voc_split import VocSplit
from mixreorg.models.dual_encoder import ImageOutput
from mixreorg.segment.class_maps import WindowScores, with_background
from mixreorg.segment.photos import read_photo
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import WindowPlan, merge_windows, plan_windows
from mixreorg.text.class_list import ClassName

BACKGROUND_THRESHOLDS = tuple(round(0.025 * step, 3) for step in range(1, 40))
"""Thresholds that a sweep tries: 0.025 to 0.975."""


@dataclass
class SplitResult:
    """Counts over a split; results of disjoint parts of a split add up."""

    class_names: tuple[str, ...]
    foreground: Confusion
    """``C`` classes; pixels of true background are left out (the background-free protocol)."""
    present: Confusion
    """The same with only the photo's true classes to choose from: localisation without recognition."""
    background: dict[float, Confusion]
    """``1 + C`` classes by background threshold."""
    num_images: int = 0
    num_recognised: int = 0
    """Of each photo's n true classes, those among the n names that fit the image embedding best; summed."""
    num_true_classes: int = 0

    @classmethod
    def empty(cls, class_names: tuple[str, ...], thresholds: Sequence[float]) -> "SplitResult":
        """A result of no photos yet."""
        count = len(class_names)
        return cls(
            class_names,
            Confusion(count),
            Confusion(count),
            {value: Confusion(count + 1) for value in thresholds},
        )

    def best_threshold(self) -> float:
        """Threshold of the highest mIoU with background. Choose it on a validation split only."""
        return max(self.background, key=lambda value: self.background[value].miou())

    def metrics(self) -> dict[str, float]:
        """Scalars for logs, in percent."""
        values = {
            "foreground_miou": self.foreground.miou(),
            "present_miou": self.present.miou(),
            "recognition": 100 * self.num_recognised / max(self.num_true_classes, 1),
        }
        if self.background:
            threshold = self.best_threshold()
            values["background_miou"] = self.background[threshold].miou()
            values["background_threshold"] = threshold
        return values

    def counts(self) -> npt.NDArray[np.int64]:
        """All counts as one vector, so that processes can sum them."""
        tables = [self.foreground, self.present, *self.background.values()]
        scalars = np.array([self.num_images, self.num_recognised, self.num_true_classes], dtype=np.int64)
        return np.concatenate([scalars, *(table.matrix.ravel() for table in tables)])

    def set_counts(self, counts: npt.NDArray[np.int64]) -> None:
        """Replace all counts by those of a vector from :meth:`counts`."""
        self.num_images, self.num_recognised, self.num_true_classes = (int(value) for value in counts[:3])
        start = 3
        for table in (self.foreground, self.present, *self.background.values()):
            stop = start + table.matrix.size
            table.matrix = counts[start:stop].reshape(table.matrix.shape)
            start = stop


def evaluate_split(
    segmenter: Segmenter,
    split: VocSplit,
    thresholds: Sequence[float] = (),
    *,
    part: tuple[int, int] = (0, 1),
    batch_size: int = 64,
    advance: Callable[[int], None] | None = None,
) -> SplitResult:
    """Evaluate a model zero-shot.

    Args:
        segmenter: model and protocol; the protocol must have no background, thresholds say which to count.
        split: photos and masks.
        thresholds: background thresholds to count mIoU with background for; none by default.
        part: (index, count): only every count-th photo, for a share per process.
        batch_size: photos of one size that are encoded together.
        advance: called with the number of photos done, for a progress bar.

    Returns:
        The counts of this part.
    """
    if segmenter.protocol.background_threshold is not None:
        raise ValueError("evaluate_split wants a protocol without background; give the thresholds instead")
    classes = [ClassName(name) for name in split.class_names]
    result = SplitResult.empty(split.class_names, thresholds)
    for photos, masks in _batches(split, split.stems[part[0] :: part[1]], batch_size):
        plan = plan_windows(segmenter.protocol, photos[0].width, photos[0].height)
        output = segmenter.encode(photos)
        for index, mask in enumerate(masks):
            count = len(plan.boxes)
            windows = output.part(index * count, (index + 1) * count)
            _count_photo(result, segmenter, windows, plan, classes, mask)
        if advance is not None:
            advance(len(photos))
    return result


def _batches(split: VocSplit, stems: Sequence[str], batch_size: int) -> Iterator[tuple[list[Image.Image], list[Mask]]]:
    """Consecutive photos of one size, at most ``batch_size`` at a time."""
    read = ((read_photo(split.photo_path(stem)), split.read_mask(stem)) for stem in stems)
    for _, run in groupby(read, key=lambda pair: pair[0].size):
        photos: list[Image.Image] = []
        masks: list[Mask] = []
        for photo, mask in run:
            photos.append(photo)
            masks.append(mask)
            if len(photos) == batch_size:
                yield photos, masks
                photos, masks = [], []
        if photos:
            yield photos, masks


def _count_photo(
    result: SplitResult,
    segmenter: Segmenter,
    windows: ImageOutput,
    plan: WindowPlan,
    classes: list[ClassName],
    mask: Mask,
) -> None:
    scores = segmenter.decode(windows, plan, classes)
    foreground_truth = mask - 1
    result.foreground.add(foreground_truth, _labels(scores, plan, mask.shape))
    for threshold, table in result.background.items():
        decided = WindowScores(scores.segment_map, with_background(scores.segment_scores, threshold))
        table.add(mask, _labels(decided, plan, mask.shape))
    true_labels = [int(label) for label in np.unique(mask) if label > 0]
    result.num_images += 1
    if true_labels:
        true_indices = np.array(true_labels) - 1
        chosen = segmenter.decode(windows, plan, [classes[index] for index in true_indices])
        result.present.add(foreground_truth, true_indices[_labels(chosen, plan, mask.shape)])
        result.num_recognised += _recognised(segmenter, windows, classes, true_indices)
        result.num_true_classes += len(true_labels)


def _labels(scores: WindowScores, plan: WindowPlan, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    labels: npt.NDArray[np.int64] = merge_windows(scores, plan, shape[0], shape[1]).label_map.cpu().numpy()
    return labels


def _recognised(
    segmenter: Segmenter, windows: ImageOutput, classes: list[ClassName], true_indices: npt.NDArray[np.int64]
) -> int:
    embeddings, _ = segmenter.class_embeddings(classes)
    fit = (windows.embedding @ embeddings.T).mean(dim=0)
    best = torch.topk(fit, len(true_indices)).indices.tolist()
    return len(set(best) & set(true_indices.tolist()))


def chance_miou(split: VocSplit) -> float:
    """Foreground mIoU in percent to expect of labels drawn at random, one class per photo.

    Every pixel of class c is then right with probability 1 / C, and wrong labels of c fall on other classes'
    pixels in proportion: IoU_c = p_c / C / (p_c + 1 / C - p_c / C) with p_c the class's share of pixels.
    """
    count = len(split.class_names)
    pixels = np.zeros(count, dtype=np.int64)
    for stem in split.stems:
        mask = split.read_mask(stem)
        pixels += np.bincount(mask[mask > 0] - 1, minlength=count)[:count]
    share = pixels[pixels > 0] / pixels.sum()
    iou = share / count / (share + 1 / count - share / count)
    return math.nan if not len(iou) else float(iou.mean() * 100)

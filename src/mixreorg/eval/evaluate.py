"""Run a segmenter over a split and count everything in one pass."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.confusion import count_pairs
from mixreorg.eval.grouping_oracle import grouping_oracle
from mixreorg.eval.result import Details, SplitResult
from mixreorg.eval.split import EvalSplit, Mask, class_labels
from mixreorg.models.dual_encoder import ImageOutput
from mixreorg.segment.background_sweep import sweep_background
from mixreorg.segment.class_maps import WindowScores, largest_of_phrases
from mixreorg.segment.photos import read_photo
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import WindowPlan, plan_windows, require_patch
from mixreorg.text.class_list import ClassName


def evaluate_split(
    segmenter: Segmenter,
    split: EvalSplit,
    thresholds: Sequence[float] = (),
    *,
    detail: bool = False,
    threshold: float | None = None,
    part: tuple[int, int] = (0, 1),
    stems: Sequence[str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> SplitResult:
    """Evaluate a model zero-shot.

    Args:
        segmenter: model and protocol; the protocol must have no background, thresholds say which to count.
        split: photos and masks.
        thresholds: background thresholds to count mIoU with background for; none by default.
        detail: count what explains the result as well: per photo, at borders, and the oracles.
        threshold: background threshold of the label maps that the details are about; None for those without
            background.
        part: (index, count): only every count-th photo, for a share per process.
        stems: only these photos; a part is taken of them.
        advance: called with the number of photos done, for a progress bar.

    Returns:
        The counts of this part.

    Raises:
        MixreorgError: a photo or mask that cannot be read, a mask of another size than its photo, or a photo thinner
            than one patch.
    """
    if segmenter.protocol.background_threshold is not None:
        raise ValueError("evaluate_split wants a protocol without background; give the thresholds instead")
    if not split.has_background and (thresholds or threshold is not None):
        raise ValueError(f"{split.name} has no background, so there is no threshold to count")
    classes = split.classes
    with_background = threshold is not None
    details = Details(len(classes) + with_background, with_background, threshold) if detail else None
    result = SplitResult.empty(tuple(item.name for item in classes), thresholds, details)
    for batch in photo_batches(segmenter, split, (split.stems if stems is None else stems)[part[0] :: part[1]]):
        outputs = segmenter.encode_each([photo for _, photo, _ in batch])
        for (stem, photo, mask), output in zip(batch, outputs, strict=True):
            counter = _PhotoCounter(segmenter, output, photo, classes)
            counter.count(result, stem, mask, class_labels(split, mask))
        if advance is not None:
            advance(len(batch))
    return result


def label_photo(
    segmenter: Segmenter, photo: Image.Image, classes: Sequence[ClassName], threshold: float | None
) -> npt.NDArray[np.integer]:
    """Labels ``[H, W]`` of a photo, as the details of :func:`evaluate_split` count them.

    No calibration beside the model is asked for, as none is for the counts.

    Args:
        segmenter: model and protocol; the protocol must have no background.
        photo: RGB.
        classes: of the split.
        threshold: background threshold, which makes label 0 background; None for labels without background.
    """
    (output,) = segmenter.encode_each([photo])
    counter = _PhotoCounter(segmenter, output, photo, classes)
    scores = segmenter.decode(output, counter.plan, classes)
    thresholds = [] if threshold is None else [threshold]
    foreground, at_thresholds = counter.sweep(scores, thresholds, (photo.height, photo.width))
    labels = [labels for _, labels in at_thresholds] or [foreground]
    return labels[0].cpu().numpy()


def read_pair(split: EvalSplit, stem: str) -> tuple[Image.Image, Mask]:
    """Photo and mask.

    Raises:
        MixreorgError: unreadable, or of different sizes.
    """
    photo, mask = read_photo(split.photo_path(stem)), split.read_mask(stem)
    if mask.shape != (photo.height, photo.width):
        raise MixreorgError(
            f"the mask of {stem!r} has {mask.shape[1]} x {mask.shape[0]} pixels, but its photo "
            f"{split.photo_path(stem)} has {photo.width} x {photo.height}; restore both from the official archive"
        )
    return photo, mask


def photo_batches(
    segmenter: Segmenter, split: EvalSplit, stems: Sequence[str]
) -> Iterator[list[tuple[str, Image.Image, Mask]]]:
    """Consecutive photos, until their windows fill a batch of the encoder."""
    batch: list[tuple[str, Image.Image, Mask]] = []
    num_windows = 0
    for stem in stems:
        photo, mask = read_pair(split, stem)
        batch.append((stem, photo, mask))
        num_windows += plan_photo(segmenter, split.photo_path(stem), photo.size).num_windows
        if num_windows >= segmenter.window_batch:
            yield batch
            batch, num_windows = [], 0
    if batch:
        yield batch


def plan_photo(segmenter: Segmenter, path: Path, size: tuple[int, int]) -> WindowPlan:
    """The windows of a photo.

    Args:
        segmenter: model and protocol.
        path: of the photo.
        size: its width and height in pixels.

    Raises:
        MixreorgError: they are thinner than one patch; it names the photo.
    """
    plan = plan_windows(segmenter.protocol, *size)
    try:
        require_patch(plan, segmenter.protocol, size, segmenter.model.config.image.patch_size)
    except MixreorgError as error:
        raise MixreorgError(f"{path}: {error}") from error
    return plan


class _PhotoCounter:
    """One encoded photo, decoded in all the ways that the counts ask for."""

    def __init__(
        self, segmenter: Segmenter, windows: ImageOutput, photo: Image.Image, classes: Sequence[ClassName]
    ) -> None:
        self.segmenter, self.windows, self.classes = segmenter, windows, classes
        self.plan = plan_windows(segmenter.protocol, photo.width, photo.height)
        self.refine = segmenter.refiner(photo)

    def count(self, result: SplitResult, stem: str, mask: Mask, class_mask: Mask) -> None:
        """Add the photo to ``result``.

        Args:
            result: counts so far.
            stem: the photo.
            mask: ``[H, W]`` labels as the split has them.
            class_mask: the same as indices of classes, negative where no class is true.
        """
        details = result.details
        scores = self.segmenter.decode(self.windows, self.plan, self.classes)
        asked = list(result.background)
        if details is not None and details.threshold is not None and details.threshold not in asked:
            asked.append(details.threshold)
        foreground, at_thresholds = self.sweep(scores, asked, mask.shape)
        foreground_labels = foreground.cpu().numpy()
        result.foreground.add(class_mask, foreground_labels)
        if details is not None and details.threshold is None:
            details.add(stem, class_mask, foreground_labels)
            details.grouping.add(class_mask, grouping_oracle(scores, self.plan, class_mask, details.num_labels))
        for group, labels in at_thresholds:
            self._count_thresholds(result, stem, mask, group, labels.cpu().numpy())
        if details is not None and details.threshold is not None:
            details.grouping.add(mask, grouping_oracle(scores, self.plan, mask, details.num_labels))
        result.num_images += 1
        self._count_present(result, class_mask, scores.segment_map)

    def sweep(
        self, scores: WindowScores, thresholds: Sequence[float], shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, Iterator[tuple[tuple[float, ...], torch.Tensor]]]:
        """Labels ``[H, W]`` without background and at thresholds, from the scores of all classes."""
        rival = None
        if thresholds and self.segmenter.protocol.background_phrases:
            rival = self.segmenter.decode_with_rival(self.windows, self.plan, self.classes, scores.segment_map)
        return sweep_background(scores, self.plan, shape[0], shape[1], thresholds, rival, self.refine)

    def _count_thresholds(
        self, result: SplitResult, stem: str, mask: Mask, group: tuple[float, ...], labels: npt.NDArray[np.integer]
    ) -> None:
        details = result.details
        pairs = count_pairs(mask, labels, len(self.classes) + 1)
        for value in group:
            if value in result.background:
                result.background[value].matrix += pairs
            if details is not None and value == details.threshold:
                details.add(stem, mask, labels)

    def _count_present(self, result: SplitResult, class_mask: Mask, segment_map: torch.Tensor) -> None:
        true_indices = np.unique(class_mask[class_mask >= 0])
        if not len(true_indices):
            return
        true_classes = [self.classes[index] for index in true_indices]
        chosen = self.segmenter.decode(self.windows, self.plan, true_classes, segment_map)
        merged = merge_windows(chosen, self.plan, class_mask.shape[0], class_mask.shape[1], self.refine)
        result.present.add(class_mask, true_indices[merged.label_map.cpu().numpy()])
        result.num_recognised += _recognised(self.segmenter, self.windows, self.classes, true_indices)
        result.num_true_classes += len(true_indices)


def _recognised(
    segmenter: Segmenter, windows: ImageOutput, classes: Sequence[ClassName], true_indices: npt.NDArray[np.integer]
) -> int:
    embeddings, owners = segmenter.class_embeddings(classes)
    fit_C = largest_of_phrases(windows.image_embedding @ embeddings.T, owners).mean(dim=0)
    best = torch.topk(fit_C, len(true_indices)).indices.tolist()
    return len(set(best) & set(true_indices.tolist()))


def chance_miou(split: EvalSplit) -> float:
    """Foreground mIoU in percent to expect of labels drawn at random, one class per photo.

    Every pixel of class c is then right with probability 1 / C, and wrong labels of c fall on other classes'
    pixels in proportion: IoU_c = p_c / C / (p_c + 1 / C - p_c / C) with p_c the class's share of pixels.
    """
    count = len(split.classes)
    pixels = np.zeros(count, dtype=np.int64)
    for stem in split.stems:
        labels = class_labels(split, split.read_mask(stem))
        pixels += np.bincount(labels[labels >= 0], minlength=count)[:count]
    share = pixels[pixels > 0] / pixels.sum()
    iou = share / count / (share + 1 / count - share / count)
    return math.nan if not len(iou) else float(iou.mean() * 100)

"""Thresholds for presence and background, chosen on a held-out split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

import mixreorg
from mixreorg.errors import MixreorgError
from mixreorg.eval.confusion import Confusion, IntArray
from mixreorg.eval.evaluate import photo_batches
from mixreorg.eval.presence_counts import PresenceCounts
from mixreorg.eval.result import BACKGROUND_THRESHOLDS
from mixreorg.eval.split import EvalSplit, Mask, class_labels
from mixreorg.models.digest import model_digest
from mixreorg.models.dual_encoder import ImageOutput
from mixreorg.segment.background import require_other_phrases
from mixreorg.segment.background_sweep import sweep_background
from mixreorg.segment.calibration import Calibration, protocol_key
from mixreorg.segment.presence import EVERYDAY_NAMES, PresenceRule
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.window_plan import plan_windows

_NEWTON_STEPS = 50
_MOST_HALVINGS = 40
_RIDGE = 1e-3
"""Weight of the squared coefficients in the fit: it keeps them finite where presence is never mistaken."""


@dataclass
class Outcome:
    """Counts of one way to decode a split at one background threshold."""

    labels: Confusion
    """``1 + C`` classes."""
    presence: PresenceCounts = field(default_factory=PresenceCounts)

    def add(self, mask: IntArray, labels: IntArray) -> None:
        """Count a photo: ``[H, W]`` true and predicted labels, 0 for background."""
        self.labels.add(mask, labels)
        self.presence.add(mask, labels, len(self.labels.matrix) - 1)

    def measured(self) -> dict[str, float]:
        """mIoU with background, false and missed presence, in percent."""
        return {"miou": self.labels.miou(), **self.presence.rates()}


def calibrate(
    segmenter: Segmenter, split: EvalSplit, data: str, advance: Callable[[int], None] | None = None
) -> Calibration:
    """Fit presence scores and choose thresholds on a split.

    1. Every class of the split is asked for in every photo. A logistic regression on the two features of
       :func:`~mixreorg.segment.presence.presence_features`, with the split's own names as the bank, gives the rule.
    2. The presence threshold is the one of the highest F1 of classes said to be there.
    3. The background thresholds are those of the highest mIoU with background, with and without abstention.

    Photos are encoded twice, so that memory does not grow with the split.

    Args:
        segmenter: model and protocol; whatever background threshold the protocol has is left out.
        split: with background; never the one that results will be reported on.
        data: what the calibration calls the data.
        advance: called with the number of photos done, of twice their number.

    Raises:
        MixreorgError: unreadable photos, a split without background, a class that is asked for by one of the
            background's phrases, or classes that are everywhere or nowhere.
    """
    if not split.has_background:
        raise MixreorgError(f"{split.name} has no background to choose a threshold on; take a split that has")
    require_other_phrases(split.classes, segmenter.protocol.background_phrases)
    protocol = segmenter.protocol.updated(background_threshold=None)
    segmenter = Segmenter(segmenter.model, protocol, segmenter.window_batch)
    features, truth = _collect_features(segmenter, split, advance)
    rule = fit_presence(features, truth, _bank(split))
    threshold = best_presence_threshold(rule.scores(features), truth)
    plain, abstaining = _decode_both_ways(segmenter, split, rule.scores(features) < threshold, advance)
    best, best_abstaining = (max(ways, key=lambda value: ways[value].labels.miou()) for ways in (plain, abstaining))
    measured = {f"before_{name}": value for name, value in plain[best].measured().items()}
    measured |= {f"after_{name}": value for name, value in abstaining[best_abstaining].measured().items()}
    return Calibration(
        version=mixreorg.__version__,
        model=model_digest(segmenter.model),
        protocol=protocol_key(protocol),
        data=data,
        split=split.name.rpartition("/")[2],
        num_photos=len(split.stems),
        num_classes=len(split.classes),
        presence=rule,
        presence_threshold=threshold,
        background_threshold=best,
        abstaining_background_threshold=best_abstaining,
        measured={name: round(value, 2) for name, value in measured.items() if not np.isnan(value)},
    )


def fit_presence(features: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], bank: Sequence[str]) -> PresenceRule:
    """Logistic regression of presence on features, by Newton's method with steps that never raise the loss.

    Args:
        features: ``[n, C, 2]`` of photos and classes.
        truth: ``[n, C]`` whether the class is there.
        bank: names that the features were measured against.

    Raises:
        MixreorgError: every class is in every photo, or none in any.
    """
    rows, targets = features.reshape(-1, 2), truth.ravel().astype(np.float64)
    if targets.min() == targets.max():
        raise MixreorgError(
            "presence cannot be calibrated where every class is in every photo, or none in any; take more photos"
        )
    inputs = np.column_stack([rows, np.ones(len(rows))])
    weights = np.zeros(3)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        logits = inputs @ weights
        return float((np.logaddexp(0, logits) - targets * logits).sum() + _RIDGE / 2 * weights @ weights)

    for _ in range(_NEWTON_STEPS):
        scores = 1 / (1 + np.exp(-np.clip(inputs @ weights, -60, 60)))
        gradient = inputs.T @ (scores - targets) + _RIDGE * weights
        curvature = (inputs.T * (scores * (1 - scores))) @ inputs + _RIDGE * np.eye(3)
        step, before = np.linalg.solve(curvature, gradient), loss(weights)
        # A whole step goes astray where few points are left on the wrong side.
        share = next((2.0**-power for power in range(_MOST_HALVINGS) if loss(weights - 2.0**-power * step) < before), 0)
        if not share:
            break
        weights -= share * step
    image, segment, bias = (round(float(weight), 6) for weight in weights)
    return PresenceRule(bank=tuple(bank), image_weight=image, segment_weight=segment, bias=bias)


def best_presence_threshold(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float:
    """The score threshold of the highest F1: classes at or above it are said to be there.

    Args:
        scores: presence scores, any shape.
        truth: whether the class is there, of that shape.
    """
    order = np.argsort(-scores.ravel(), kind="stable")
    ranked, hits = scores.ravel()[order], np.cumsum(truth.ravel()[order])
    # F1 = 2 TP / (shown + present).
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    # Equal scores lie on one side of a threshold.
    is_last = np.append(ranked[:-1] > ranked[1:], True)
    best = int(np.where(is_last, f1, -1.0).argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def _bank(split: EvalSplit) -> tuple[str, ...]:
    """The first phrase of each class; everyday names where there is but one class, which needs rivals."""
    names = tuple(item.phrases[0] for item in split.classes)
    return names if len(names) > 1 else EVERYDAY_NAMES


def _collect_features(
    segmenter: Segmenter, split: EvalSplit, advance: Callable[[int], None] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Features ``[n, C, 2]`` against the split's own names as the bank, and truth ``[n, C]``."""
    bank = _bank(split)
    features, truth = [], []
    for _, photo, mask, output in _encoded(segmenter, split, advance):
        segment_map = segmenter.map_segments(output, plan_windows(segmenter.protocol, *photo.size))
        features.append(segmenter.presence_features(output, segment_map, split.classes, bank))
        labels = class_labels(split, mask)
        truth.append(np.bincount(labels[labels >= 0], minlength=len(split.classes)) > 0)
    return np.stack(features), np.stack(truth)


def _decode_both_ways(
    segmenter: Segmenter, split: EvalSplit, absent: npt.NDArray[np.bool_], advance: Callable[[int], None] | None
) -> tuple[dict[float, Outcome], dict[float, Outcome]]:
    """Outcomes by background threshold, with all classes and with those that are not absent ``[n, C]``."""
    plain, abstaining = (
        {value: Outcome(Confusion(len(split.classes) + 1)) for value in BACKGROUND_THRESHOLDS} for _ in range(2)
    )
    for index, photo, mask, output in _encoded(segmenter, split, advance):
        plan = plan_windows(segmenter.protocol, *photo.size)
        segment_map, refine = segmenter.map_segments(output, plan), segmenter.refiner(photo)
        for outcomes, left_out in ((plain, ()), (abstaining, tuple(np.flatnonzero(absent[index]).tolist()))):
            windows = segmenter.decode(output, plan, split.classes, segment_map, left_out)
            rival = None
            if segmenter.protocol.background_phrases:
                rival = segmenter.decode_with_rival(output, plan, split.classes, segment_map, left_out)
            height, width = mask.shape
            _, maps = sweep_background(windows, plan, height, width, tuple(outcomes), rival, refine)
            for thresholds, labels in maps:
                for value in thresholds:
                    outcomes[value].add(mask, labels.cpu().numpy())
    return plain, abstaining


def _encoded(
    segmenter: Segmenter, split: EvalSplit, advance: Callable[[int], None] | None
) -> Iterator[tuple[int, Image.Image, Mask, ImageOutput]]:
    """Number, photo, mask and encoded windows of every photo."""
    index = 0
    for batch in photo_batches(segmenter, split, split.stems):
        outputs = segmenter.encode_each([photo for _, photo, _ in batch])
        for (_, photo, mask), output in zip(batch, outputs, strict=True):
            yield index, photo, mask, output
            index += 1
        if advance is not None:
            advance(len(batch))

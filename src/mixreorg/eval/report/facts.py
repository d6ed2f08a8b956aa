"""The facts of one evaluation: everything that its report says, as plain values."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.bootstrap import LEVEL, NUM_RESAMPLES, interval, resample_miou
from mixreorg.eval.parts import Counted
from mixreorg.eval.protocols import ResolvedProtocol
from mixreorg.eval.report.published import published_numbers
from mixreorg.eval.result import Details
from mixreorg.eval.split import label_names

FORMAT = "mixreorg-evaluation-1"

_OF_BEST_THRESHOLD = ("background_miou", "background_threshold")
"""Chosen on the evaluated split: of use while training, but no result."""

_NUM_PAIRS = 20
_NUM_PHOTOS = 4


def build_facts(
    counted: Counted,
    split: BenchmarkSplit,
    protocol: ResolvedProtocol,
    benchmark: str,
    model: dict[str, Any],
    official: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Facts of a finished evaluation.

    Args:
        counted: with details.
        split: that was evaluated.
        protocol: with its final threshold.
        benchmark: canonical name, which published numbers are found by.
        model: plain values about the model.
        official: official numbers of photos, several where published lists differ; none for own data.

    Returns:
        Plain values; shares and IoU in percent, NaN where a measure does not exist.
    """
    details = counted.result.details
    assert details is not None
    confusion = details.photos.confusion()
    names = label_names(split)
    sampled = interval(resample_miou([details.photos.totals()])[0])
    metrics = counted.result.metrics()
    seconds = counted.seconds
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "split": split.name,
        "masks": split.form.name,
        "num_images": counted.result.num_images,
        "official_num_images": list(official),
        "model": model,
        "protocol": protocol_facts(protocol),
        "protocol_hash": protocol.hash(),
        "miou": confusion.miou(),
        "miou_interval": [sampled.low, sampled.high],
        "interval": {"level": LEVEL, "resamples": NUM_RESAMPLES, "over": "photos", "method": "bootstrap percentile"},
        "per_class_iou": {name: 100 * float(iou) for name, iou in zip(names, confusion.iou(), strict=True)},
        "metrics": {
            name: value for name, value in metrics.items() if name not in _OF_BEST_THRESHOLD and not np.isnan(value)
        },
        "label_names": list(names),
        "confusion": confusion.matrix.tolist(),
        "confusion_pairs": confusion_pairs(details, names),
        "threshold_curve": [[value, table.miou()] for value, table in sorted(counted.result.background.items())],
        "images_per_second": counted.result.num_images / seconds if seconds else float("nan"),
        "peak_memory_bytes": counted.peak_bytes,
        "best_photos": _photos(details, best=True),
        "worst_photos": _photos(details, best=False),
        "published": [asdict(item) for item in published_numbers(benchmark)],
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def protocol_facts(protocol: ResolvedProtocol) -> dict[str, Any]:
    """A protocol as plain values."""
    return {
        "name": protocol.name,
        "version": protocol.version,
        "hash": protocol.hash(),
        "background": protocol.describe(),
        "threshold": protocol.threshold,
        "threshold_rule": protocol.threshold_rule,
        "calibrated_on": protocol.calibrated_on,
        "segmentation": protocol.segmentation.to_dict(),
        "classes": {name: list(phrases) for name, phrases in protocol.classes},
    }


def confusion_pairs(details: Details, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The commonest errors: true and predicted name, and their share of the true class's pixels in percent.

    Sorted by pixels, the errors that cost most first.
    """
    matrix = details.photos.confusion().matrix
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_PAIRS]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        {
            "truth": names[row],
            "prediction": names[column],
            "pixels": int(wrong[row, column]),
            "share_of_truth": float(100 * wrong[row, column] / matrix[row].sum()),
        }
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if wrong[row, column]
    ]


def _photos(details: Details, *, best: bool) -> list[dict[str, Any]]:
    """Photos of the highest or lowest mIoU of their own; half of them at most, so that none is both."""
    values = details.photos.photo_miou()
    known = np.nonzero(np.isfinite(values))[0]
    order = known[np.argsort(-values[known] if best else values[known], kind="stable")]
    count = min(_NUM_PHOTOS, len(known) // 2)
    return [{"stem": details.photos.stems[index], "miou": float(values[index])} for index in order[:count].tolist()]

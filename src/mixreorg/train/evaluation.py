"""Evaluation of a model in training: each process takes its part of the images, and the counts are added up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mixreorg.distributed import rank, world_size
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.result import BACKGROUND_THRESHOLDS, SplitResult
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.segmenter import Segmenter
from mixreorg.train.config import TrainConfig


class _StopEvaluationError(Exception):
    """Raised out of an evaluation whose process was asked to stop."""


def open_evaluation_split(config: TrainConfig) -> BenchmarkSplit | None:
    """Open the split that a run is evaluated on; None where its configuration names none."""
    evaluation = config.evaluation
    if evaluation.root is None:
        return None
    return open_voc_split(Path(str(evaluation.root)), evaluation.split, evaluation.max_images)


def evaluate_part(
    model: DualEncoder, split: BenchmarkSplit, config: TrainConfig, is_stopping: Callable[[], bool]
) -> SplitResult | None:
    """Evaluate this process's part of a split with the run's protocol.

    Args:
        model: as trained so far.
        split: of labelled images.
        config: of the run.
        is_stopping: asked after every image.

    Returns:
        The counts of the part; None where ``is_stopping`` said yes.
    """

    def go_on(_: int) -> None:
        if is_stopping():
            raise _StopEvaluationError

    # Evaluation counts with several thresholds by itself.
    protocol = config.protocol.updated(background_threshold=None)
    segmenter = Segmenter(model, protocol, window_batch=64)
    try:
        return evaluate_split(segmenter, split, BACKGROUND_THRESHOLDS, part=(rank(), world_size()), advance=go_on)
    except _StopEvaluationError:
        return None


def sum_over_processes(result: SplitResult, device: torch.device) -> None:
    """Give the counts of one process's part those of the whole split; all processes call it together."""
    if world_size() > 1:
        counts = torch.from_numpy(result.counts()).to(device)
        dist.all_reduce(counts)
        result.set_counts(counts.cpu().numpy().astype(np.int64))

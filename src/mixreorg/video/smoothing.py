"""Labels of the frames of a video, from class scores averaged over time."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mixreorg.segment.background import require_other_phrases
from mixreorg.segment.background_sweep import background_below
from mixreorg.segment.results import Segmentation, result_names
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import label_maps, merge_each_class
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import ClassName

DEFAULT_SMOOTHING = 0.7
"""Weight of the past; measured by ``benchmarks/video.py``."""
_LEAST_WEIGHT = 1 / 256


class FrameLabeller:
    """Segments one frame after the other; each class's score map is an exponential average over the frames.

    ``average = smoothing * average + (1 - smoothing) * scores``, starting with the first frame's scores: frames are
    averaged as a photo's overlapping windows are, background included. A class that a frame's windows do not
    shortlist scores 0 there.
    """

    def __init__(
        self, segmenter: Segmenter, classes: Sequence[ClassName], smoothing: float = DEFAULT_SMOOTHING
    ) -> None:
        """Start a video.

        Args:
            segmenter: model and protocol.
            classes: parsed class list.
            smoothing: weight of the past, 0 (every frame for itself) to below 1.

        Raises:
            ValueError: another ``smoothing``.
            MixreorgError: a class that is called background, or asked for by one of the background's phrases.
        """
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing {smoothing} must be at least 0 and below 1")
        self._segmenter, self._classes, self._smoothing = segmenter, tuple(classes), smoothing
        self._names = result_names(self._classes, has_background=segmenter.protocol.background_threshold is not None)
        if segmenter.protocol.background_threshold is not None:
            require_other_phrases(self._classes, segmenter.protocol.background_phrases)
        self._averages: dict[int, Tensor] = {}
        # What is left in an average of the last frame that gave the class a score.
        self._weights: dict[int, float] = {}

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Segmentation:
        """Label a frame.

        Args:
            image: RGB; all frames of a video have one size.

        Returns:
            Labels of the frame's size and the scores behind them, both averaged over time.

        Raises:
            MixreorgError: a frame that is too thin for the model.
        """
        segmenter, protocol = self._segmenter, self._segmenter.protocol
        plan = plan_windows(protocol, image.width, image.height)
        windows = segmenter.decode(segmenter.encode([image]), plan, self._classes)
        self._average(dict(merge_each_class(windows, plan)))
        size, device = (image.height, image.width), windows.segment_scores.device
        averages = sorted(self._averages.items(), key=lambda item: item[0])
        merged = label_maps(averages, len(self._names), size, device, segmenter.refiner(image))
        labels = merged.label_map
        if protocol.background_threshold is not None and protocol.background_phrases:
            labels = background_below(labels, merged.best_scores, protocol.background_threshold)
        return Segmentation(
            label_map=labels.cpu().numpy(),
            class_names=self._names,
            scores=merged.class_scores.cpu().numpy(),
            protocol=protocol,
        )

    def _average(self, scores: dict[int, Tensor]) -> None:
        past, first = self._smoothing, not self._averages
        for index in scores.keys() - self._averages.keys():
            self._averages[index] = scores[index] if first else torch.zeros_like(scores[index])
        for index in list(self._averages):
            average = self._averages[index]
            if index in scores:
                self._weights[index] = 1.0
                average.lerp_(scores[index], 1 - past)
                continue
            self._weights[index] *= past
            average.mul_(past)
            # Memory is that of the classes seen lately, however long the list is.
            if self._weights[index] < _LEAST_WEIGHT:
                del self._averages[index], self._weights[index]

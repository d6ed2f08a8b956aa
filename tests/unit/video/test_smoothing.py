"""Scores averaged over frames: the definition, its limits, and that a still scene flickers less."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_class
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import parse_class_list
from mixreorg.video.smoothing import DEFAULT_SMOOTHING, FrameLabeller

CLASSES = parse_class_list("dog, cat=cat|kitten, car, grass, sand, photo")
PROTOCOL = Protocol(name="test", short_side=32, window=32, stride=16, shortlist=3)


@pytest.fixture
def segmenter(tiny_model: DualEncoder) -> Segmenter:
    return Segmenter(tiny_model, PROTOCOL)


def still_scene(count: int, noise: float) -> list[Image.Image]:
    """The same coarse picture with other noise in every frame."""
    random = np.random.default_rng(0)
    scene = np.kron(random.integers(0, 255, (6, 8, 3)), np.ones((16, 16, 1)))
    return [
        Image.fromarray((scene + random.normal(0, noise, scene.shape)).clip(0, 255).astype(np.uint8))
        for _ in range(count)
    ]


def changed(segmenter: Segmenter, smoothing: float, frames: list[Image.Image]) -> float:
    """Mean share of pixels whose label changes from frame to frame."""
    labeller = FrameLabeller(segmenter, CLASSES, smoothing)
    maps = [labeller(frame).label_map for frame in frames]
    return float(np.mean([np.mean(a != b) for a, b in itertools.pairwise(maps)]))


@pytest.mark.parametrize(
    "changes",
    [{}, {"whole": True}, {"background_threshold": 0.3}, {"flip": True}, {"refine": "pamr", "whole": True}],
    ids=str,
)
def test_without_smoothing_frames_are_photos(segmenter: Segmenter, changes: dict[str, object]) -> None:
    segmenter.protocol = PROTOCOL.updated(**changes)
    labeller = FrameLabeller(segmenter, CLASSES, 0)
    for frame in still_scene(3, 60):
        found, expected = labeller(frame), segmenter(frame, CLASSES)
        assert found.class_names == expected.class_names
        np.testing.assert_array_equal(found.label_map, expected.label_map)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_scores_are_the_exponential_average_of_the_frames(segmenter: Segmenter) -> None:
    labeller, average = FrameLabeller(segmenter, CLASSES, 0.6), None
    for frame in still_scene(5, 80):
        plan = plan_windows(PROTOCOL, *frame.size)
        windows = segmenter.decode(segmenter.encode([frame]), plan, CLASSES)
        maps = torch.stack([merge_class(windows, plan, plan.height, plan.width, index) for index in range(6)])
        average = maps if average is None else 0.6 * average + 0.4 * maps
        resized = torch.nn.functional.interpolate(average[None], size=(96, 128), mode="bilinear")[0]
        found = labeller(frame)
        np.testing.assert_allclose(found.scores, resized.amax(dim=(1, 2)).numpy(), atol=1e-6)
        assert np.mean(found.label_map == resized.argmax(dim=0).numpy()) > 0.999


def test_a_still_scene_flickers_less_and_a_clean_one_not_at_all(segmenter: Segmenter) -> None:
    noisy = still_scene(8, 100)
    alone = changed(segmenter, 0, noisy)
    assert alone > 0.1
    assert changed(segmenter, DEFAULT_SMOOTHING, noisy) < 0.5 * alone
    assert changed(segmenter, DEFAULT_SMOOTHING, still_scene(3, 0)) == 0


def test_classes_that_are_gone_are_forgotten(segmenter: Segmenter) -> None:
    labeller, scores = FrameLabeller(segmenter, CLASSES, 0.5), torch.ones(4, 4)
    labeller._average({0: scores, 3: scores})
    for _ in range(5):
        labeller._average({0: scores})
    assert float(labeller._averages[3][0, 0]) == pytest.approx(0.5**5)
    for _ in range(5):
        labeller._average({0: scores})
    assert set(labeller._averages) == set(labeller._weights) == {0}


def test_a_class_that_is_a_background_phrase_is_refused(segmenter: Segmenter) -> None:
    protocol = segmenter.protocol.updated(background_phrases=(CLASSES[0].phrases[0],))
    FrameLabeller(Segmenter(segmenter.model, protocol.updated(background_threshold=None)), CLASSES)
    with pytest.raises(MixreorgError, match="one of the protocol's background_phrases"):
        FrameLabeller(Segmenter(segmenter.model, protocol.updated(background_threshold=0.1)), CLASSES)


def test_the_past_cannot_be_all(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="below 1"):
        FrameLabeller(segmenter, CLASSES, 1.0)

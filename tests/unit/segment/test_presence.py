"""Presence scores: what they are made of, and what they must not depend on."""

import numpy as np
import pytest

from mixreorg.segment.presence import PhotoEmbeddings, PresenceRule, find_own_names, presence_features
from mixreorg.text.class_list import parse_class_list


def unit(*shape: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


BANK, SCALE = unit(7, 16, seed=4), 14.0


def embedded(windows: int = 2, segments: int = 3, unused: int | None = None) -> PhotoEmbeddings:
    labels = [index for index in range(segments) if index != unused]
    segment_map = np.random.default_rng(0).choice(labels, (windows, 8, 8))
    return PhotoEmbeddings(unit(windows, 16, seed=1), unit(windows, segments, 16, seed=2), segment_map)


def features(photo: PhotoEmbeddings, phrases: np.ndarray, owners=(0, 1, 2, 3), own=None) -> np.ndarray:
    own = np.zeros((max(owners) + 1, len(BANK)), dtype=bool) if own is None else np.array(own)
    return presence_features(photo, phrases, owners[: len(phrases)], BANK, own, SCALE)


@pytest.mark.parametrize("own", [[], [0], [0, 3], range(7)])
def test_features_are_the_best_log_odds_against_the_other_names(own) -> None:
    photo, phrases = embedded(), unit(3, 16, seed=3)
    own_names = np.isin(np.arange(14).reshape(2, 7), own)
    found = features(photo, phrases, (0, 0, 1), own_names)
    others = np.stack([name for index, name in enumerate(BANK) if index not in own or len(own) == 7])
    for column, rows in enumerate((photo.image, photo.segments.reshape(-1, 16))):
        for index, (mine, rest) in enumerate(((phrases[:2], others), (phrases[2:], BANK))):
            odds = [
                np.log(max(np.exp(SCALE * row @ phrase) for phrase in mine) / np.exp(SCALE * rest @ row).sum())
                for row in rows
            ]
            np.testing.assert_allclose(found[index, column], max(odds))


def test_own_names_are_found_without_case() -> None:
    classes = parse_class_list("Dog, cat=kitten|CAT, bus")
    assert find_own_names(classes, ["cat", "dog", "kitten"]).tolist() == [
        [False, True, False],
        [True, False, True],
        [False, False, False],
    ]


def test_a_class_is_judged_alone() -> None:
    photo, phrases = embedded(), unit(4, 16, seed=3)
    together = features(photo, phrases)
    for index in range(4):
        np.testing.assert_allclose(features(photo, phrases[[index]], (0,)), together[[index]])


def test_segments_without_pixels_are_not_evidence() -> None:
    photo = embedded(unused=1)
    phrase = photo.segments[0, 1][None]
    assert features(photo, phrase, (0,))[0, 1] < features(embedded(), phrase, (0,))[0, 1]


def test_log_odds_stay_finite_at_the_largest_scale() -> None:
    photo, own = embedded(), np.eye(7, dtype=bool)[:1]
    assert np.isfinite(presence_features(photo, photo.image[:1], (0,), BANK, own, 100.0)).all()


def test_scores_are_the_logistic_function_of_the_features() -> None:
    rule = PresenceRule(bank=("dog", "cat"), image_weight=2.0, segment_weight=0.5, bias=-1.0)
    scores = rule.scores(np.array([[1.0, 2.0], [-1.0, 0.0], [1e9, 0.0], [-1e9, 0.0]]))
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(3)), 1, 0], atol=1e-6)
    assert scores.dtype == np.float32


def test_a_bank_of_one_name_has_no_scale() -> None:
    with pytest.raises(ValueError, match="bank"):
        PresenceRule(bank=("dog",))

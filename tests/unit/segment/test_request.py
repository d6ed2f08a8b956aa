"""What a request makes of scores: rules for background, absent classes, negatives."""

import json

import numpy as np
import pytest

from mixreorg.errors import MixreorgError
from mixreorg.segment.background import otsu_threshold
from mixreorg.segment.calibration import Calibration, CalibrationSource, protocol_key
from mixreorg.segment.presence import PresenceRule
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.request import MaskRequest, read_names

PROTOCOL = groupvit_protocol(32)
WITH_THRESHOLD = PROTOCOL.updated(background_threshold=0.7)
CALIBRATION = Calibration(
    version="1",
    model="digest",
    protocol=protocol_key(PROTOCOL),
    data="VOC",
    split="val",
    num_photos=7,
    num_classes=3,
    presence=PresenceRule(bank=("dog", "cat", "car")),
    presence_threshold=0.4,
    background_threshold=0.2,
    abstaining_background_threshold=0.3,
)
WITH_PHRASES = PROTOCOL.updated(background_phrases=("sky", "tree"))
SCORES, PIXELS = np.array([[0.1, 0.2, 0.9]]), np.array([[10, 10, 10]])


def request(protocol=PROTOCOL, calibration=None, classes="dog, cat, car", negatives=None, **options) -> MaskRequest:
    fields = {"background": None, "abstain": None, **options}
    return MaskRequest(*read_names(classes, negatives), protocol, calibration=calibration, **fields)


def test_otsu_parts_into_the_groups_of_the_largest_variance_between_them() -> None:
    random = np.random.default_rng(0)
    scores, weights = random.random(9), random.integers(1, 50, 9)

    def between(threshold: float) -> float:
        low = scores < threshold
        share = weights[low].sum() / weights.sum()
        means = [np.average(scores[part], weights=weights[part]) for part in (low, ~low)]
        return share * (1 - share) * (means[0] - means[1]) ** 2

    middles = np.convolve(np.sort(scores), [0.5, 0.5], "valid")
    assert otsu_threshold(scores, weights) == pytest.approx(max(middles, key=between))


def test_otsu_of_equal_scores_and_of_segments_without_pixels() -> None:
    assert otsu_threshold(np.full(4, 0.5), np.array([3, 1, 0, 2])) == 0
    assert otsu_threshold(np.array([0.1, 0.5, 0.5]), np.array([0, 1, 2])) == 0


@pytest.mark.parametrize(
    ("values", "rule", "threshold"),
    [
        ({}, None, None),
        ({"negatives": "sky"}, "names", 0.0),
        ({"abstain": 0.5}, "names", 0.0),
        ({"protocol": WITH_THRESHOLD, "negatives": "sky"}, "protocol", 0.7),
        ({"protocol": WITH_THRESHOLD, "background": 0.1}, "given", 0.1),
        ({"protocol": WITH_THRESHOLD, "background": "auto"}, "otsu", 0.55),
        ({"background": "auto", "calibration": CALIBRATION}, "calibration", 0.2),
        ({"background": "auto", "abstain": "auto", "calibration": CALIBRATION}, "calibration", 0.3),
        ({"background": "auto", "calibration": CALIBRATION.updated(num_classes=7)}, "otsu", 0.55),
    ],
)
def test_rules_for_background_in_their_order(values, rule, threshold) -> None:
    asked = request(**values)
    choice = asked.choose_background(SCORES, PIXELS)
    assert asked.has_background == (rule is not None)
    if rule is None:
        assert choice is None
        return
    assert (choice.rule, choice.threshold) == (rule, pytest.approx(threshold))
    assert ("7 photos of VOC/val" in choice.reason) == (rule == "calibration")


def test_absent_classes_are_those_below_the_threshold() -> None:
    presence = np.array([0.39, 0.4, 0.8], dtype=np.float32)
    assert request().absent(presence) == ()
    assert request(abstain=0.5).absent(presence) == (0, 1)
    assert request(abstain="auto", calibration=CALIBRATION).absent(np.array([0.39, 0.41, 0.8])) == (0,)


def test_negatives_are_folded_into_background_and_counted() -> None:
    asked = request(negatives="sky, wall=wall|bricks")
    labels = np.array([[0, 1, 4, 4], [2, 3, 5, 5], [2, 3, 5, 0]])
    choice = asked.choose_background(SCORES, PIXELS)
    result = asked.finish(labels, np.arange(6, dtype=np.float32) / 6, choice, np.full(3, 0.5, dtype=np.float32))
    assert result.class_names == ("background", "dog", "cat", "car")
    assert result.label_map.tolist() == [[0, 1, 0, 0], [2, 3, 0, 0], [2, 3, 0, 0]]
    assert result.negative_pixels == {"sky": 2, "wall": 3}
    assert result.scores.shape == result.presence_scores.shape == (4,)
    values = result.to_dict("photo")
    assert values["negatives"] == [{"name": "sky", "pixels": 2}, {"name": "wall", "pixels": 3}]
    assert values["background"]["rule"] == "names"
    assert [item["presence_score"] for item in values["classes"]] == [None, 0.5, 0.5, 0.5]


def test_the_protocol_of_a_result_has_the_threshold_given_by_hand() -> None:
    for background, expected in ((0.25, 0.25), ("auto", None), (None, None)):
        asked = request(background=background)
        choice = asked.choose_background(SCORES, PIXELS)
        result = asked.finish(np.zeros((2, 2), dtype=int), np.zeros(3 + bool(choice), np.float32), choice, None)
        assert result.protocol.background_threshold == expected


def test_a_threshold_of_numpy_can_be_written_as_json() -> None:
    asked = request(background=np.float32(0.25))
    choice = asked.choose_background(SCORES, PIXELS)
    result = asked.finish(np.zeros((2, 2), dtype=int), np.zeros(4, np.float32), choice, None)
    assert json.loads(json.dumps(result.to_dict()))["background"]["threshold"] == 0.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"abstain": "auto"}, "needs a calibration"),
        ({"abstain": 1.5}, "abstain 1.5 is no threshold"),
        ({"background": "Auto"}, "background 'Auto' is no threshold"),
        ({"background": True}, "background True is no threshold"),
        ({"negatives": "sky, Dog"}, "classes and negatives share a name"),
        ({"negatives": "sky=sky|cat"}, "classes and negatives share a name"),
        ({"classes": "dog, background", "negatives": "sky"}, "leave it out"),
        ({"protocol": WITH_PHRASES, "classes": "dog, plant=Tree|bush", "background": 0.1}, "'Tree' is a phrase of the"),
    ],
)
def test_requests_that_cannot_be_met(values, message) -> None:
    with pytest.raises(MixreorgError, match=message):
        request(**values)


def test_phrases_of_the_background_are_free_where_they_do_not_compete() -> None:
    assert len(request(protocol=WITH_PHRASES, classes="dog, tree").competitors) == 2
    assert len(request(protocol=WITH_PHRASES, negatives="tree", background=0.1).competitors) == 5


def test_a_named_calibration_of_another_model_or_protocol_is_refused() -> None:
    other = PROTOCOL.updated(short_side=96)
    with pytest.raises(MixreorgError, match="made for a model of digest digest"):
        CalibrationSource(CALIBRATION, None, lambda: "other", PROTOCOL)
    with pytest.raises(MixreorgError, match="made for a protocol of hash"):
        CalibrationSource(CALIBRATION, None, lambda: "digest", other)
    assert CalibrationSource(CALIBRATION, None, lambda: "digest", WITH_THRESHOLD).of(WITH_THRESHOLD) == CALIBRATION


def test_a_calibration_found_beside_the_model_is_passed_over_under_another_protocol() -> None:
    found = CalibrationSource(None, CALIBRATION.to_dict(), lambda: "digest", PROTOCOL)
    assert found.of(PROTOCOL) == CALIBRATION
    assert found.rule(PROTOCOL).bank == ("dog", "cat", "car")
    other = PROTOCOL.updated(templates=("a {}",))
    assert found.of(other) is None
    assert found.rule(other) == PresenceRule()


def test_the_digest_is_not_computed_without_a_calibration() -> None:
    def digest() -> str:
        raise AssertionError

    assert CalibrationSource(None, None, digest, PROTOCOL).of(PROTOCOL) is None


def test_calibrations_are_read_back_and_damaged_ones_refused(tmp_path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    assert Calibration.load(path) == CALIBRATION
    path.write_text(path.read_text().replace("mixreorg-calibration-1", "mixreorg-calibration-9"))
    with pytest.raises(MixreorgError, match="is not a calibration"):
        Calibration.load(path)
    path.write_text("{")
    with pytest.raises(MixreorgError, match=r"calibration\.json is not valid JSON"):
        Calibration.load(path)

"""Calibration on a split: the fit, the thresholds, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval_kit import NAMES, write_voc
from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.eval.calibrate import best_presence_threshold, calibrate, fit_presence
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.presence_counts import PresenceCounts
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.presence import EVERYDAY_NAMES
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter

PROTOCOL = Protocol(name="windows", short_side=40, window=32, stride=16)


def sparse_voc(root: Path) -> Path:
    """Six photos that show one class each."""
    write_voc(root, count=6)
    for index in range(6):
        path = root / "SegmentationClass" / f"val{index}.png"
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where((mask == 255) | (mask == index % 3 + 1), mask, 0).astype(np.uint8)).save(path)
    return root


def test_the_fit_finds_the_rule_that_made_the_truth() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(4000, 3, 2))
    chances = 1 / (1 + np.exp(-(features @ [1.5, -0.5] - 1)))
    rule = fit_presence(features, random.random(chances.shape) < chances, ["dog", "cat"])
    np.testing.assert_allclose([rule.image_weight, rule.segment_weight, rule.bias], [1.5, -0.5, -1], atol=0.1)


def test_the_fit_arrives_where_a_whole_step_would_go_astray() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        truth = random.random((10, 3)) < 0.15
        if not truth.any():
            continue
        features = random.normal(size=(10, 3, 2)) * 4 + truth[..., None] * 8.0 - 10
        rule = fit_presence(features, truth, ["dog", "cat"])
        weights = np.array([rule.image_weight, rule.segment_weight, rule.bias])
        inputs = np.column_stack([features.reshape(-1, 2), np.ones(30)])
        gradient = inputs.T @ (rule.scores(features).ravel() - truth.ravel()) + 1e-3 * weights
        assert np.abs(gradient).max() < 1e-3


def test_presence_without_mistakes_still_has_a_finite_rule() -> None:
    features = np.stack([np.full((10, 2), value, dtype=float) for value in (-1, 1)], axis=1)
    rule = fit_presence(features, features[..., 0] > 0, ["dog", "cat"])
    scores = rule.scores(features)
    assert (scores[:, 1] > 0.99).all()
    assert (scores[:, 0] < 0.01).all()


@pytest.mark.parametrize("value", [True, False])
def test_presence_of_everything_or_nothing_cannot_be_fitted(value: bool) -> None:
    with pytest.raises(MixreorgError, match="take more photos"):
        fit_presence(np.zeros((2, 3, 2)), np.full((2, 3), value), ["dog", "cat", "car"])


def test_the_presence_threshold_has_the_highest_f1() -> None:
    random = np.random.default_rng(1)
    truth = random.random(200) < 0.3
    scores = np.round(np.clip(0.3 * truth + 0.7 * random.random(200), 0, 1), 2)

    def f1(threshold: float) -> float:
        shown = scores >= threshold
        return 2 * (shown & truth).sum() / (shown.sum() + truth.sum())

    assert f1(best_presence_threshold(scores, truth)) == max(f1(value) for value in scores)


def test_equal_scores_lie_on_one_side_of_the_presence_threshold() -> None:
    # The true one of four equal scores cannot be had alone: all of them are worse than none.
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    truth = np.array([True, True, False, False, False, False])
    assert best_presence_threshold(scores, truth) == pytest.approx(0.7)


def test_presence_is_counted_by_pixels_outside_void() -> None:
    counts = PresenceCounts()
    counts.add(np.array([[0, 1, 1, -1]]), np.array([[2, 0, 0, 3]]), 4)
    assert counts == PresenceCounts(num_absent=3, num_false=1, num_present=1, num_missed=1)
    assert counts.rates() == pytest.approx({"false_presence": 100 / 3, "missed_presence": 100})


def test_thresholds_are_the_best_of_the_split(tiny_model: DualEncoder, tmp_path: Path) -> None:
    split = open_voc_split(sparse_voc(tmp_path), "val")
    segmenter = Segmenter(tiny_model, PROTOCOL, window_batch=3)
    done: list[int] = []
    calibration = calibrate(segmenter, split, "VOC", done.append)
    assert sum(done) == 2 * 6
    result = evaluate_split(segmenter, split, (calibration.background_threshold, 0.025, 0.1, 0.5, 0.975))
    assert result.best_threshold() == calibration.background_threshold
    assert calibration.measured["before_miou"] == pytest.approx(result.metrics()["background_miou"], abs=0.01)
    assert calibration.presence.bank == NAMES
    assert calibration == calibrate(segmenter, split, "VOC")
    # What it measured with abstention is what a segmenter does with it.
    calibrated = Segmenter(tiny_model, PROTOCOL, calibration=calibration)
    counts = PresenceCounts()
    for stem in split.stems:
        labelled = calibrated(split.photo_path(stem), NAMES, background="auto", abstain="auto")
        assert labelled.background is not None
        assert labelled.background.rule == "calibration"
        counts.add(split.read_mask(stem), labelled.label_map, 3)
    measured = {name: calibration.measured[f"after_{name}"] for name in ("false_presence", "missed_presence")}
    assert counts.rates() == pytest.approx(measured, abs=0.01)


def test_the_command_puts_a_calibration_beside_the_model_that_segmentation_takes(
    tiny_model: DualEncoder, tmp_path: Path
) -> None:
    model, voc = tmp_path / "model", sparse_voc(tmp_path / "VOC")
    save_model(tiny_model, model, PROTOCOL.to_dict())
    run = CliRunner().invoke(app, ["calibrate", str(model), "--data", str(voc)])
    assert run.exit_code == 0, run.output
    assert "mIoU" in run.output
    assert load_model(model).inference_calibration == json.loads((model / "calibration.json").read_text())
    photo, out = voc / "JPEGImages" / "val0.jpg", tmp_path / "masks"
    arguments = ["segment", str(photo), "--model", str(model), "--out", str(out), "--classes", "dog, cat, car"]
    chosen = ["--background", "auto", "--abstain", "auto", "--negatives", "sky"]
    assert CliRunner().invoke(app, [*arguments, *chosen]).exit_code == 0
    values = json.loads((out / "val0.json").read_text())
    assert values["background"]["rule"] == "calibration"
    assert values["calibrated_on"] == "6 photos of VOC/val"
    assert [item["name"] for item in values["negatives"]] == ["sky"]
    # Another protocol: the file beside the model is passed over, one named by hand refused.
    other = [*arguments, "--template", "a {}.", "--template", "subset"]
    assert CliRunner().invoke(app, [*other, "--background", "auto"]).exit_code == 0
    assert json.loads((out / "val0.json").read_text())["background"]["rule"] == "otsu"
    run = CliRunner().invoke(app, [*other, "--calibration", str(model / "calibration.json")])
    assert isinstance(run.exception, MixreorgError)
    assert "made for a protocol of hash" in str(run.exception)


def test_options_that_no_photo_can_change_are_refused_once(tiny_model: DualEncoder, tmp_path: Path) -> None:
    model, voc = tmp_path / "model", write_voc(tmp_path / "VOC", count=2)
    save_model(tiny_model, model, PROTOCOL.to_dict())
    photos = [str(path) for path in sorted((voc / "JPEGImages").iterdir())]
    arguments = ["segment", *photos, "--model", str(model), "--out", str(tmp_path / "out"), "--classes", "dog, cat"]
    for option, message in (
        (["--abstain", "auto"], "needs a calibration"),
        (["--background", "much"], "--background 'much' is no threshold"),
        (["--background", "nan"], "background nan is no threshold"),
        (["--negatives", "sky, dog"], "share a name"),
        (["--template", "a photo"], "must have exactly one {}"),
    ):
        run = CliRunner().invoke(app, [*arguments, *option])
        assert isinstance(run.exception, MixreorgError)
        assert message in str(run.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "there to report results on"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_calibrated_on(
    tiny_model: DualEncoder, tmp_path: Path, arguments: list[str], message: str
) -> None:
    save_model(tiny_model, tmp_path / "model")
    defaults = ["calibrate", str(tmp_path / "model"), "--data", str(write_voc(tmp_path / "VOC"))]
    run = CliRunner().invoke(app, [*defaults, *arguments])
    assert isinstance(run.exception, MixreorgError)
    assert message in str(run.exception)
    assert not (tmp_path / "model" / "calibration.json").exists()


def test_a_class_that_is_a_background_phrase_is_refused(tiny_model: DualEncoder, tmp_path: Path) -> None:
    segmenter = Segmenter(tiny_model, PROTOCOL.updated(background_phrases=("sky", "Cat")))
    with pytest.raises(MixreorgError, match="'cat' is a phrase of the class 'cat' and one of the protocol's"):
        calibrate(segmenter, open_voc_split(write_voc(tmp_path / "VOC"), "val"), "VOC")


def test_a_model_that_is_no_folder_needs_a_place_for_the_file(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["calibrate", "OWNER/NAME", "--data", str(tmp_path)])
    assert "say where with --out" in str(run.exception)


def test_a_place_that_cannot_be_written_is_refused_before_any_photo(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["calibrate", "missing", "--data", "missing", "--out", str(tmp_path)])
    assert f"cannot write {tmp_path}: Is a directory; name another place" in str(run.exception)


def test_one_class_is_compared_with_everyday_names(tmp_path: Path, tiny_model: DualEncoder) -> None:
    voc = sparse_voc(tmp_path / "voc")
    (voc / "classes.txt").write_text("background\ndog\n")
    for path in (voc / "SegmentationClass").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where((mask == 1) | (mask == 255), mask, 0).astype(np.uint8)).save(path)
    calibration = calibrate(Segmenter(tiny_model, PROTOCOL), open_voc_split(voc, "val"), "voc")
    assert calibration.presence.bank == EVERYDAY_NAMES


def test_an_unreadable_calibration_can_be_made_again(tmp_path: Path, tiny_model: DualEncoder) -> None:
    save_model(tiny_model, tmp_path / "model", PROTOCOL.to_dict())
    (tmp_path / "model" / "calibration.json").write_text('{"format": "mixreorg-calibration-0"}')
    segmenter = Segmenter(load_model(tmp_path / "model"))
    with pytest.raises(MixreorgError, match=r"make it again with `mixreorg calibrate`, or delete calibration\.json"):
        segmenter.request("dog, cat")
    arguments = ["calibrate", str(tmp_path / "model"), "--data", str(sparse_voc(tmp_path / "voc"))]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert Segmenter(load_model(tmp_path / "model")).request("dog, cat").calibration is not None

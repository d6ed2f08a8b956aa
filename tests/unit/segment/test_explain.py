import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.explain import explain
from mixreorg.segment.explain_picture import group_panels, shade_first_stage
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import parse_class_list

WHOLE = Protocol(name="whole", short_side=64, window=64, stride=32, whole=True, shortlist=3)
WINDOWS = WHOLE.updated(name="windows", whole=False, window=32, stride=16)
NAMES = "dog, cat=cat|kitten, car, grass, sand, photo"


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Patches of several colours, so that groups differ."""
    blocks = np.random.default_rng(1).integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"background_threshold": 0.3},
        {"background_threshold": 1.0},
        {"background_threshold": 0.3, "background_phrases": ("wall", "sky")},
        {"background_threshold": 1.0, "background_phrases": ("wall",)},
        {"decoding": "softmax"},
        {"logit_scale": 7.0},
    ],
    ids=str,
)
def test_labels_are_those_of_segmenting(varied_model: DualEncoder, changes: dict[str, object]) -> None:
    segmenter = Segmenter(varied_model, WHOLE.updated(**changes))
    segmentation = segmenter(photo(), NAMES)
    explanation = explain(segmenter, photo(), NAMES)
    assert explanation.names == segmentation.class_names
    assert (explanation.label_map == segmentation.label_map).all()
    assert explanation.name_colors == segmentation.colors
    assert len(explanation.groups) > 1
    for group in explanation.groups:
        best = segmentation.scores[group.ranking[0] + explanation.name_offset]
        assert explanation.scores[group.index, group.ranking[0]] <= best + 1e-6


def test_margins_scores_and_logits_belong_together(varied_model: DualEncoder) -> None:
    explanation = explain(Segmenter(varied_model, WHOLE), photo(), NAMES)

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    kept = np.where(explanation.shortlist, explanation.logits, -np.inf)
    np.testing.assert_allclose(explanation.scores, softmax(kept) * softmax(explanation.logits), atol=1e-5)
    for group in explanation.groups:
        ordered = sorted(explanation.scores[group.index].tolist(), reverse=True)
        assert group.margin == pytest.approx(ordered[0] - ordered[1])
        assert explanation.names[group.label] == explanation.compared[group.ranking[0]].name
    assert sum(group.area_share for group in explanation.groups) == pytest.approx(1)
    only = explain(Segmenter(varied_model, WHOLE), photo(), ["dog"]).groups[0]
    assert only.margin == pytest.approx(1, abs=1e-5)


def test_the_shortlist_keeps_what_fits_the_window_and_names_what_it_cost(varied_model: DualEncoder) -> None:
    explanation = explain(Segmenter(varied_model, WHOLE.updated(shortlist=1)), photo(), NAMES)
    best = int(explanation.image_logits.argmax())
    assert np.flatnonzero(explanation.shortlist).tolist() == [best]
    assert list(explanation.removed) == [i for i in np.argsort(-explanation.image_logits).tolist() if i != best]
    assert (explanation.scores[:, list(explanation.removed)] == 0).all()
    favourites = explanation.logits.argmax(axis=1)
    assert any(group.removed is not None for group in explanation.groups)
    for group in explanation.groups:
        favourite = int(favourites[group.index])
        assert group.removed == (None if favourite == best else favourite)
    everything = explain(Segmenter(varied_model, WHOLE.updated(decoding="softmax")), photo(), NAMES)
    assert everything.removed == ()
    assert {group.removed for group in everything.groups} == {None}


def test_a_class_is_explained_by_its_best_phrase(varied_model: DualEncoder) -> None:
    segmenter = Segmenter(varied_model, WHOLE.updated(decoding="softmax"))
    separate = explain(segmenter, photo(), "kitten, dog, car, grass, sand, photo")
    together = explain(segmenter, photo(), "any=kitten|dog|car|grass|sand|photo, cat")
    winners = {group.index: separate.compared[group.ranking[0]].name for group in separate.groups}
    assert len(set(winners.values())) > 1
    explained = [group for group in together.groups if group.ranking[0] == 0]
    assert explained
    for group in explained:
        assert group.phrase == winners[group.index]


def test_groups_of_the_first_stage_are_shared_out_among_those_of_the_second(varied_model: DualEncoder) -> None:
    explanation = explain(Segmenter(varied_model, WHOLE), photo(), NAMES)
    assert sum(explanation.first_stage.values()) == pytest.approx(1)
    parents = explanation.merges.argmax(axis=0)
    for group in explanation.groups:
        assert all(parents[index] == group.index for index in group.first_stage)
    shades = shade_first_stage(explanation)
    used = list(explanation.first_stage)
    assert len({tuple(color) for color in shades[used].tolist()}) == len(used)


def test_one_window_is_explained_as_segmenting_sees_it(varied_model: DualEncoder) -> None:
    segmenter = Segmenter(varied_model, WINDOWS)
    plan = plan_windows(WINDOWS, 96, 64)
    decoded = segmenter.decode(segmenter.encode([photo()]), plan, parse_class_list(NAMES))
    for number in (1, 2, len(plan.boxes)):
        explanation = explain(segmenter, photo(), NAMES, window=number)
        assert (explanation.segment_map == decoded.segment_map[number - 1].numpy()).all()
        np.testing.assert_allclose(explanation.scores, decoded.segment_scores[number - 1].numpy(), atol=1e-5)
        assert explanation.window.picture.size == (32, 32)
        assert explanation.window.describe().startswith(f"window {number} of 15 ")


def test_the_whole_photo_says_when_segmenting_sees_something_else(varied_model: DualEncoder) -> None:
    explanation = explain(Segmenter(varied_model, WINDOWS), photo(), NAMES)
    assert explanation.segment_map.shape == (64, 96)
    assert "segmenting averages 15 windows" in explanation.window.describe()
    assert "averages" not in explain(Segmenter(varied_model, WHOLE), photo(), NAMES).window.describe()


@pytest.mark.parametrize(
    ("protocol", "window", "difference"),
    [
        (WHOLE.updated(flip=True), None, "(segmenting averages 2 windows with mirrored ones)"),
        (WHOLE.updated(tile_scales=(2.0,), flip=True), None, "averages 20 windows with tiles and mirrored ones)"),
        (WHOLE.updated(segment_similarity=0.9), None, "(segmenting merges segments of cosine 0.9)"),
        (WINDOWS.updated(tile_scales=(2.0,)), None, "with tiles; choose one of the first 15)"),
        (WINDOWS.updated(flip=True, segment_similarity=0.9), 2, "30 windows with mirrored ones and merges segments"),
    ],
)
def test_mirrored_windows_tiles_and_merged_segments_are_said(
    varied_model: DualEncoder, protocol: Protocol, window: int | None, difference: str
) -> None:
    explained = explain(Segmenter(varied_model, protocol), photo(), NAMES, window).window
    assert difference in explained.describe()
    assert explained.count == plan_windows(protocol, 96, 64).num_windows


@pytest.mark.parametrize(
    ("protocol", "window", "message"),
    [(WINDOWS, 16, "no window 16: its windows are 1 to 15"), (WINDOWS, 0, "no window 0"), (WHOLE, 2, "1 is its only")],
)
def test_a_window_that_is_not_there(varied_model: DualEncoder, protocol: Protocol, window: int, message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        explain(Segmenter(varied_model, protocol), photo(), NAMES, window)


def test_the_json_holds_every_number(varied_model: DualEncoder, tmp_path: Path) -> None:
    explanation = explain(Segmenter(varied_model, WHOLE.updated(background_threshold=0.3)), photo(), NAMES)
    picture, values = explanation.save(tmp_path, "street", "street.jpg")
    content = json.loads(values.read_text())
    assert content == json.loads(json.dumps(explanation.to_dict("street.jpg")))
    assert content["photo"] == "street.jpg"
    assert content["background_threshold"]["protocol"] == 0.3
    assert [item["name"] for item in content["names"] if item["shortlisted"]] == [
        explanation.compared[index].name for index in np.flatnonzero(explanation.shortlist)
    ]
    for group, item in zip(explanation.groups, content["second_stage"], strict=True):
        assert item["group"] == group.letter
        assert len(item["scores"]) == 6
        assert item["scores"][0]["score"] - item["scores"][1]["score"] == pytest.approx(item["margin"])
        owned = [first["index"] for first in content["first_stage"] if first["second_stage"] == group.index]
        assert owned == item["first_stage"]
    with Image.open(picture) as image:
        assert image.width == 1360


def test_panels_show_groups_and_names_in_their_colours(varied_model: DualEncoder) -> None:
    explanation = explain(Segmenter(varied_model, WHOLE.updated(background_threshold=1.0)), photo(), NAMES)
    panels = group_panels(explanation, side=192)
    assert [title.split(":")[0] for title, _ in panels] == ["photo", "stage 1", "stage 2", "names"]
    assert np.array_equal(np.asarray(panels[0][1])[::2, ::2], np.asarray(photo()))
    background = explanation.label_map == 0
    assert background.any()
    names = np.asarray(panels[3][1])[::2, ::2].astype(int)
    grey = np.ptp(names, axis=-1) == 0
    assert grey[background].all()
    assert not grey.all()
    # Black at this opacity would leave at most 64 of 255.
    assert np.median(names[background]) > 64


@pytest.mark.parametrize("size", [(16, 16), (640, 32), (32, 640), (320, 240)])
@pytest.mark.parametrize("names", [["dog"], ["<b>&amp;</b>", "犬", "x" * 150], [f"thing {i}" for i in range(300)]])
def test_anything_can_be_drawn(varied_model: DualEncoder, size: tuple[int, int], names: list[str]) -> None:
    for window in (None, 1):
        explanation = explain(Segmenter(varied_model, WINDOWS), photo(*size), names, window)
        picture = explanation.picture("<script>.jpg")
        assert picture.width == 1360
        assert picture.height < 1600

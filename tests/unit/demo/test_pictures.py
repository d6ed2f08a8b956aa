import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.data.pairs import Pair
from mixreorg.demo.pictures import mixing_groups, segmentation_rows, spread_stems
from mixreorg.errors import MixreorgError
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.models.pixels import normalise, to_uint8
from mixreorg.objectives.groupvit import TextSide
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.palette import distinct_colors
from mixreorg.randomness import sample_keys
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import ClassName

CAPTIONS = ["a red dog", "a green cat", "a blue car", "a grey tree", "two birds", "one fish", "a cow", "a pig"]
SIDE, PATCH = 32, 8
FACTOR = 256 // SIDE


@pytest.fixture
def model(varied_model):
    return varied_model


@pytest.fixture
def objective(model):
    return MixReorgObjective(model, MixReorgConfig(num_contextual_blocks=1, group_size=4, block=1))


def _pairs(count, side=SIDE):
    """Images of one colour each, so that a patch shows where it comes from."""
    shades = [(30 * index + 10, 255 - 30 * index, 7 * index) for index in range(count)]
    return [
        Pair(str(index), "shard", Image.new("RGB", (side, side), shade), CAPTIONS[index])
        for index, shade in enumerate(shades)
    ]


def _patch_centres(picture):
    """[h, w, 3] colour in the middle of each patch of an enlarged picture."""
    step = PATCH * FACTOR
    return np.asarray(picture)[step // 2 :: step, step // 2 :: step]


def test_mixed_pixels_agree_with_the_source_mask_and_are_put_back(objective):
    pairs = _pairs(8)
    groups = mixing_groups(objective, pairs)
    assert [len(rows) for rows in groups] == [4, 4]
    for number, rows in enumerate(groups):
        shade_of = {row.color: pairs[4 * number + index].image.getpixel((0, 0)) for index, row in enumerate(rows)}
        assert len(shade_of) == 4
        sources = np.stack([_patch_centres(row.source_mask) for row in rows])
        for index, row in enumerate(rows):
            assert {picture.size for picture in (row.original, row.mixed, row.predicted_mask)} == {(256, 256)}
            assert row.restored.tobytes() == row.original.tobytes()
            assert row.caption == CAPTIONS[4 * number + index]
            for source, shade in zip(
                sources[index].reshape(-1, 3), _patch_centres(row.mixed).reshape(-1, 3), strict=True
            ):
                assert shade_of[tuple(source.tolist())] == tuple(shade.tolist())
        # At every place the four mixed images together show each image of the group once.
        assert all(len({tuple(color) for color in sources[:, y, x].tolist()}) == 4 for y, x in np.ndindex(4, 4))


def test_frames_have_the_colour_of_the_image(objective):
    (rows,) = mixing_groups(objective, _pairs(4))
    for row in rows:
        pixels = np.asarray(row.original)
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, 3]):
            assert (edge == row.color).all()
        assert not (pixels[4:-4, 4:-4] == row.color).all(axis=-1).any()
        mixed, mask = np.asarray(row.mixed), np.asarray(row.source_mask)
        assert (mixed[0] == mask[0]).all()


def test_accuracy_is_the_mixed_mask_accuracy_of_the_objective(objective):
    pairs = _pairs(8)
    rows = [row for group in mixing_groups(objective, pairs, seed=3) for row in group]
    images = normalise(torch.stack([to_uint8(pair.image) for pair in pairs]))
    with torch.no_grad():
        _, mixed, _ = objective.branches(images, sample_keys(3, torch.arange(8)), with_restored=False)
        texts = objective.model.encode_text(objective.model.tokenizer.encode(CAPTIONS))
        _, accuracy = objective.mixed_loss(mixed.features, TextSide(texts, slice(0, 8)))
    assert np.mean([row.accuracy for row in rows]) == pytest.approx(float(accuracy), abs=1e-6)
    for row in rows:
        same = (_patch_centres(row.predicted_mask) == _patch_centres(row.source_mask)).all(axis=-1)
        assert row.accuracy == pytest.approx(same.mean())


def test_other_sizes_and_a_smaller_last_group_are_mixed_too(objective):
    groups = mixing_groups(objective, _pairs(5, side=50))
    assert [len(rows) for rows in groups] == [4, 1]
    (alone,) = groups[1]
    assert alone.accuracy == 1
    assert alone.mixed.tobytes() == alone.original.tobytes()


def test_no_pairs_is_an_error(objective):
    with pytest.raises(MixreorgError, match="none were given"):
        mixing_groups(objective, [])


@pytest.fixture
def split(tmp_path):
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("background\ndog\ncat\ncar\n")
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("one\ntwo\n")
    generator = np.random.default_rng(0)
    for stem, label in (("one", 1), ("two", 3)):
        pixels = generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[4:20, 4:20] = label
        mask[30:, 30:] = 255
        Image.fromarray(mask).save(tmp_path / "SegmentationClass" / f"{stem}.png")
    return open_voc_split(tmp_path, "test")


PROTOCOL = Protocol(name="test", short_side=SIDE, window=SIDE, stride=SIDE, whole=True)


def test_truth_and_prediction_share_the_colours_of_the_legend(model, split):
    rows = segmentation_rows(Segmenter(model, PROTOCOL), split, ["one", "two"], threshold=0.4)
    colors = distinct_colors(3)
    labels = Segmenter(model, PROTOCOL.updated(background_threshold=0.4))
    for row, stem, index in zip(rows, ("one", "two"), (0, 2), strict=True):
        assert {picture.size for picture in (row.photo, row.groups, row.prediction, row.truth)} == {(256, 256)}
        predicted = labels(split.photo_path(stem), [ClassName(name) for name in split.class_names]).label_map
        assert {item.name for item in row.legend if item.is_predicted} == {
            split.class_names[label - 1] for label in np.unique(predicted) if label
        }
        assert row.legend[0].name == split.class_names[index]
        assert [item.is_true for item in row.legend] == [True] + [False] * (len(row.legend) - 1)
        assert all(item.color == colors[split.class_names.index(item.name)] for item in row.legend)
        centre = np.asarray(row.truth)[100, 100].astype(int)
        grey = np.asarray(row.truth)[8:16, 200].astype(int)
        assert np.abs(centre - np.array(row.legend[0].color)).max() <= 52  # a fifth of the photo shines through
        assert (np.ptp(grey, axis=-1) == 0).all()
        assert np.ptp(np.asarray(row.truth)[250, 250].astype(int)) == 0  # void is left untinted


def test_the_threshold_of_the_page_replaces_the_protocols(model, split):
    segmenter = Segmenter(model, PROTOCOL.updated(background_threshold=0.95))
    none, much = (segmentation_rows(segmenter, split, ["one"], threshold=value)[0] for value in (0.0, 1.0))
    # Untinted pixels are grey, lines between classes white.
    grey = [
        (np.ptp(pixels, axis=-1) == 0) & (pixels.min(axis=-1) < 255)
        for pixels in (np.asarray(row.prediction).astype(int) for row in (none, much))
    ]
    assert not grey[0].any()
    assert 0.05 < grey[1].mean() < 1
    assert none.truth.tobytes() == much.truth.tobytes()


def test_groups_are_those_of_the_whole_photo(model, split):
    windows = PROTOCOL.updated(whole=False, window=16, stride=16)
    cut, whole = (segmentation_rows(Segmenter(model, p), split, ["one"], threshold=0.0) for p in (windows, PROTOCOL))
    assert cut[0].groups.tobytes() == whole[0].groups.tobytes()
    assert cut[0].prediction.tobytes() != whole[0].prediction.tobytes()


def test_stems_are_spread_over_the_split(split):
    split = dataclasses.replace(split, stems=tuple(f"s{index}" for index in range(10)))
    assert spread_stems(split, 4) == ("s0", "s2", "s5", "s7")
    assert spread_stems(split, 99) == split.stems
    assert len(spread_stems(dataclasses.replace(split, stems=split.stems * 10))) == 12

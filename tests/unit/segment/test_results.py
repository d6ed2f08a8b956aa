import json

import numpy as np
import pytest
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.results import Segmentation

WITH_BACKGROUND = groupvit_protocol().updated(background_threshold=0.95)


def _segmentation(names=("background", "dog", "cat"), protocol=WITH_BACKGROUND, size=(8, 4)):
    labels = np.zeros(size[::-1], dtype=np.int64)
    labels[: size[1] // 2, : size[0] // 2] = 1
    scores = np.linspace(1.0, 0.0, len(names), dtype=np.float32)
    return Segmentation(labels, tuple(names), scores, protocol)


def test_shares_presence_and_size():
    segmentation = _segmentation()
    assert segmentation.size == (8, 4)
    assert segmentation.area_share.tolist() == [0.75, 0.25, 0.0]
    assert segmentation.is_present.tolist() == [True, True, False]


@pytest.mark.parametrize(("count", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (70_000, np.uint32)])
def test_labels_take_the_smallest_type(count, dtype):
    labels = np.full((2, 2), count - 1, dtype=np.int64)
    names = tuple(str(index) for index in range(count))
    segmentation = Segmentation(labels, names, np.zeros(count, np.float32), groupvit_protocol())
    assert segmentation.label_map.dtype == dtype
    assert (segmentation.label_map == count - 1).all()


@pytest.mark.parametrize(
    ("labels", "names", "scores"),
    [
        (np.full((2, 2), 2), ("background", "dog"), 2),
        (np.full((2, 2), -1), ("background", "dog"), 2),
        (np.zeros((2, 2)), ("background", "dog"), 2),
        (np.zeros(4, dtype=int), ("background", "dog"), 2),
        (np.zeros((0, 2), dtype=int), ("background", "dog"), 2),
        (np.zeros((2, 2), dtype=int), ("background", "dog"), 3),
        (np.zeros((2, 2), dtype=int), ("cat", "dog"), 2),
    ],
)
def test_fields_that_do_not_fit(labels, names, scores):
    with pytest.raises(ValueError, match=r"label_map|scores|background"):
        Segmentation(labels, names, np.zeros(scores, np.float32), WITH_BACKGROUND)


def test_palette_image_holds_labels_and_colours():
    image = _segmentation().palette_image()
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), _segmentation().label_map)
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    plain = _segmentation(("dog", "cat"), groupvit_protocol()).palette_image()
    assert plain.getpalette()[:6] == [128, 0, 0, 0, 128, 0]


def test_more_classes_than_a_palette_holds(tmp_path):
    names = [str(index) for index in range(300)]
    labels = np.arange(300).reshape(20, 15)
    segmentation = Segmentation(labels, tuple(names), np.zeros(300, np.float32), groupvit_protocol())
    with pytest.raises(MixreorgError, match="a palette image holds 256 classes, not 300"):
        segmentation.palette_image()
    paths = segmentation.save(tmp_path, "photo", Image.new("RGB", (15, 20)))
    assert np.array_equal(np.asarray(Image.open(paths[0])).astype(int), labels)


def test_overlay_needs_the_photo_it_belongs_to():
    drawn = _segmentation(size=(80, 40)).overlay(Image.new("RGB", (80, 40), (100, 100, 100)))
    assert drawn.height > 40
    with pytest.raises(MixreorgError, match="the photo has 8 x 4 pixels, its labels 80 x 40"):
        _segmentation(size=(80, 40)).overlay(Image.new("RGB", (8, 4)))


def test_legend_names_only_what_is_there():
    segmentation = _segmentation(size=(80, 40))
    legend = np.asarray(segmentation.overlay(Image.new("RGB", (80, 40), "white")))[40:]
    shown = [(legend == color).all(-1).sum() > 50 for color in segmentation.colors]
    assert shown == [True, True, False]


def test_saved_files_read_back(tmp_path):
    segmentation = _segmentation()
    paths = segmentation.save(tmp_path / "new", "a photo", Image.new("RGB", (8, 4)), "a photo.jpg")
    assert [path.name for path in paths] == ["a photo_labels.png", "a photo_overlay.png", "a photo.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    assert segmentation.save(str(tmp_path / "new"), "a photo", Image.new("RGB", (8, 4)), "a photo.jpg") == paths
    with Image.open(paths[0]) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), segmentation.label_map)
        assert image.getpalette()[3:6] == [128, 0, 0]
    values = json.loads(paths[2].read_text())
    assert values == {
        "photo": "a photo.jpg",
        "size": {"width": 8, "height": 4},
        "protocol": {"name": "groupvit", "hash": WITH_BACKGROUND.hash(), "background_threshold": 0.95},
        "background": {"rule": "protocol", "threshold": 0.95, "reason": "the protocol's"},
        "calibrated_on": None,
        "negatives": [],
        "classes": [
            {
                "name": "background",
                "index": 0,
                "color": "#000000",
                "area_share": 0.75,
                "score": 1.0,
                "present": True,
                "presence_score": None,
                "absent": False,
            },
            {
                "name": "dog",
                "index": 1,
                "color": "#800000",
                "area_share": 0.25,
                "score": 0.5,
                "present": True,
                "presence_score": None,
                "absent": False,
            },
            {
                "name": "cat",
                "index": 2,
                "color": "#008000",
                "area_share": 0.0,
                "score": 0.0,
                "present": False,
                "presence_score": None,
                "absent": False,
            },
        ],
    }


@pytest.mark.parametrize("stem", ["", "a/b", "/a"])
def test_stems_that_are_no_file_names(tmp_path, stem):
    with pytest.raises(MixreorgError, match="cannot begin a file name"):
        _segmentation().save(tmp_path, stem, Image.new("RGB", (8, 4)))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MixreorgError, match="cannot write"):
        _segmentation().save(tmp_path / "file", "a", Image.new("RGB", (8, 4)))
    with pytest.raises(MixreorgError, match="cannot write"):
        _segmentation().save(tmp_path, "x" * 300, Image.new("RGB", (8, 4)))

"""Labels in the forms of other tools, read back by those tools."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mixreorg.errors import MixreorgError
from mixreorg.segment.exchange import to_polygons
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.results import Segmentation

# Of the libraries, not of our use of them: a slower fallback without OpenCV; numpy 2 in pycocotools' decoder.
pytestmark = [
    pytest.mark.filterwarnings("ignore:OpenCV:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PLAIN = groupvit_protocol()
WITH_BACKGROUND = PLAIN.updated(background_threshold=0.5)


def blobs(seed: int, size: tuple[int, int] = (40, 60), count: int = 4) -> np.ndarray:
    """Labels in random overlapping ellipses, with holes and parts."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(-5, size[1]), rng.integers(-5, size[0])
        width, height = rng.integers(1, 25, 2)
        draw.ellipse((int(x), int(y), int(x + width), int(y + height)), fill=int(rng.integers(0, count)))
    return np.asarray(image).astype(int)


def segmentation(labels: np.ndarray, names=("background", "dog", "cat", "grass"), protocol=WITH_BACKGROUND):
    return Segmentation(labels, tuple(names), np.linspace(1, 0.25, len(names), dtype=np.float32), protocol)


def inside(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose middle lies inside, by the even-odd rule."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    result = np.zeros(size, dtype=bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y0 > rows) != (y1 > rows)
                result ^= crosses & (columns < (x1 - x0) * (rows - y0) / (y1 - y0) + x0)
    return result


def test_masks():
    labels = blobs(0)
    masks = segmentation(labels).to_masks()
    assert all(
        np.array_equal(mask, labels == ["background", "dog", "cat", "grass"].index(name))
        for name, mask in masks.items()
    )
    assert sum(mask.sum() for mask in masks.values()) == labels.size
    assert set(segmentation(np.full((2, 3), 2)).to_masks()) == {"cat"}


def test_detections():
    labels = np.zeros((6, 8), dtype=int)
    labels[1:3, 2:7] = 1
    labels[4, 4] = 3
    detections = segmentation(labels).to_detections()
    assert detections.xyxy.tolist() == [[2, 1, 7, 3], [4, 4, 5, 5]]
    assert detections.class_id.tolist() == [1, 3]
    assert detections.data["class_name"].tolist() == ["dog", "grass"]
    assert detections.confidence.tolist() == [0.75, 0.25]
    assert np.array_equal(detections.mask, np.stack([labels == 1, labels == 3]))
    assert len(segmentation(np.zeros((4, 4), dtype=int)).to_detections()) == 0
    assert len(segmentation(labels, ("sky", "dog", "cat", "grass"), PLAIN).to_detections()) == 3


def test_coco_reads_our_run_lengths():
    from pycocotools import mask as coco

    labels = blobs(2)
    entries = json.loads(json.dumps(segmentation(labels).to_coco_rle(image_id=42)))
    assert [entry["category_id"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        mask = labels == entry["category_id"]
        assert np.array_equal(coco.decode(entry["segmentation"]), mask)
        assert entry["area"] == coco.area(entry["segmentation"]) == mask.sum()
        assert (entry["image_id"], entry["iscrowd"]) == (42, 0)
    assert entries[0]["category_name"] == "dog"
    assert entries[0]["score"] == 0.75


def test_coco_takes_the_area_of_the_mask_and_not_of_a_box():
    from pycocotools.coco import COCO

    labels = blobs(2)
    truth = COCO()
    truth.dataset = {"images": [{"id": 42}], "categories": [{"id": index} for index in range(4)], "annotations": []}
    truth.createIndex()
    results = truth.loadRes(segmentation(labels).to_coco_rle(image_id=42))
    assert [entry["area"] for entry in results.loadAnns([1, 2, 3])] == np.bincount(labels.ravel())[1:].tolist()
    columns = np.flatnonzero((labels == 1).any(axis=0))
    assert list(results.loadAnns([1])[0]["bbox"])[::2] == [columns[0], np.ptp(columns) + 1]


@pytest.mark.parametrize("seed", range(8))
def test_polygons_enclose_the_middles_of_exactly_the_masks_pixels(seed):
    labels = blobs(seed)
    for name, rings in segmentation(labels).to_polygons().items():
        mask = labels == ["background", "dog", "cat", "grass"].index(name)
        assert np.array_equal(inside(rings, mask.shape), mask)


def test_polygons_of_noise_and_of_single_pixels():
    noise = np.random.default_rng(0).random((20, 30)) < 0.5
    assert np.array_equal(inside(to_polygons(noise), noise.shape), noise)
    one = np.zeros((3, 3), dtype=bool)
    one[1, 1] = True
    (ring,) = to_polygons(one)
    assert {tuple(point) for point in ring.tolist()} == {(1.0, 1.5), (1.5, 1.0), (2.0, 1.5), (1.5, 2.0)}
    assert to_polygons(np.zeros((3, 3), dtype=bool)) == []


def test_straight_outlines_have_few_points():
    full = np.ones((50, 80), dtype=bool)
    (ring,) = to_polygons(full)
    assert len(ring) == 8
    assert ring.min() == 0
    assert ring.max(axis=0).tolist() == [80, 50]
    holed = full.copy()
    holed[10:20, 10:20] = False
    (ring,) = to_polygons(holed)
    assert len(ring) < 25


def test_coco_fills_our_polygons_nearly_alike():
    from pycocotools import mask as coco

    labels = np.zeros((60, 80), dtype=int)
    labels[10:50, 10:70] = 1
    labels[20:30, 20:40] = 0
    rings = segmentation(labels).to_polygons()["dog"]
    runs = coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in rings], 60, 80))
    filled, mask = coco.decode(runs).astype(bool), labels == 1
    assert (filled & mask).sum() / (filled | mask).sum() > 0.95


def test_labelme():
    labels = blobs(2)
    content = json.loads(json.dumps(segmentation(labels).to_labelme("photo.jpg")))
    assert (content["imageWidth"], content["imageHeight"]) == (60, 40)
    assert content["imagePath"] == "photo.jpg"
    assert {shape["label"] for shape in content["shapes"]} == {"dog", "cat", "grass"}
    for name, index in (("dog", 1), ("cat", 2), ("grass", 3)):
        rings = [np.array(shape["points"]) for shape in content["shapes"] if shape["label"] == name]
        assert np.array_equal(inside(rings, labels.shape), labels == index)
    assert all(shape["shape_type"] == "polygon" for shape in content["shapes"])


@pytest.mark.parametrize(
    ("library", "method"),
    [("supervision", "to_detections"), ("pycocotools", "to_coco_rle"), ("contourpy", "to_labelme")],
)
def test_missing_libraries(monkeypatch, library, method):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MixreorgError, match=rf"this needs {library}.*pip install 'mixreorg\[results\]'"):
        getattr(segmentation(blobs(3)), method)()

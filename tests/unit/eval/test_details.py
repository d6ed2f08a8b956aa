"""The measures that explain a result, against plain counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from mixreorg.errors import MixreorgError
from mixreorg.eval.boundary import BoundaryCounts, boundary_reach, near_border
from mixreorg.eval.confusion import Confusion, count_pairs
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.grouping_oracle import grouping_oracle
from mixreorg.eval.photo_counts import PhotoCounts
from mixreorg.eval.result import Details, SplitResult
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.background_sweep import sweep_background
from mixreorg.segment.class_maps import WindowScores, with_background
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import plan_windows

WINDOWED = Protocol(name="test", short_side=32, window=32, stride=16)


def blobs(random: np.random.Generator, height: int, width: int, num_classes: int) -> np.ndarray:
    coarse = random.integers(0, num_classes, (height // 8 + 1, width // 8 + 1))
    return np.kron(coarse, np.ones((8, 8), dtype=np.int64))[:height, :width]


def test_measures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth, prediction = blobs(random, 40, 56, 6), blobs(random, 40, 56, 6)
    truth[truth == 3] = 2  # class 3 is predicted but never true, 5 is neither
    truth[truth == 5] = 4
    prediction[prediction == 5] = 4
    prediction[prediction == 2] = 1  # class 2 is never found
    truth[:3] = -1
    confusion = Confusion(6)
    confusion.add(truth, prediction)
    flat_truth, flat = truth[truth >= 0], prediction[truth >= 0]
    assert (confusion.matrix == confusion_matrix(flat_truth, flat, labels=range(6))).all()
    expected = jaccard_score(flat_truth, flat, labels=range(5), average=None)
    assert confusion.iou()[:5] == pytest.approx(expected)
    assert np.isnan(confusion.iou()[5])
    assert confusion.miou() == pytest.approx(100 * expected.mean())
    assert confusion.pixel_accuracy() == pytest.approx(100 * accuracy_score(flat_truth, flat))
    assert expected[2] == 0
    assert confusion.zero_iou_share() == pytest.approx(100 * np.mean(expected[np.unique(flat_truth)] == 0))
    assert np.isnan(Confusion(2).pixel_accuracy())
    assert np.isnan(Confusion(2).zero_iou_share())


def eroded(mask: np.ndarray, reach: int) -> np.ndarray:
    """What ``reach`` erosions by a 3 x 3 square leave, outside counting as empty."""
    for _ in range(reach):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.all([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask


@pytest.mark.parametrize(("height", "width", "reach"), [(40, 56, 1), (40, 56, 3), (23, 40, 11), (7, 30, 4)])
def test_boundary_regions_are_what_erosion_takes_away(height: int, width: int, reach: int) -> None:
    labels = blobs(np.random.default_rng(1), height, width, 2)
    region = near_border(labels, reach)
    for label in np.unique(labels):
        mask = labels == label
        assert (region & mask == mask & ~eroded(mask, reach)).all()


def test_boundary_iou_by_the_papers_formula() -> None:
    random = np.random.default_rng(2)
    counts, both, either = BoundaryCounts(3), np.zeros(3), np.zeros(3)
    for _ in range(3):
        truth, prediction = blobs(random, 96, 80, 3), blobs(random, 96, 80, 3)
        truth[40:44] = 255
        counts.add(truth, prediction)
        reach = boundary_reach(96, 80)
        assert reach == 2
        valid = truth != 255
        for label in range(3):
            true_edge = (truth == label) & ~eroded(truth == label, reach) & valid
            edge = (prediction == label) & ~eroded(prediction == label, reach) & valid
            both[label] += (true_edge & edge).sum()
            either[label] += (true_edge | edge).sum()
    assert counts.iou() == pytest.approx(both / either)
    assert counts.mean_iou() == pytest.approx(100 * (both / either).mean())
    assert boundary_reach(10, 10) == 1


def test_boundary_iou_of_labels_that_cannot_end_where_the_truth_does() -> None:
    """As documented: the edge of an object within ignored pixels is a border that a map of one class does not have."""
    truth = np.full((100, 100), -1, dtype=np.int64)
    truth[30:70, 30:70] = 0
    counts = BoundaryCounts(1)
    counts.add(truth, np.zeros_like(truth))
    assert counts.mean_iou() == 0


def test_perfect_labels_are_perfect_in_every_measure() -> None:
    random = np.random.default_rng(3)
    details = Details(4, has_background=True)
    for index in range(3):
        truth = blobs(random, 64, 64, 4)
        details.add(str(index), truth, truth)
    metrics = details.metrics()
    assert metrics.pop("zero_iou_share") == 0
    assert {name: value for name, value in metrics.items() if value == value} == {
        name: pytest.approx(100)
        for name in ("miou", "pixel_accuracy", "boundary_iou", "naming_oracle_miou", "medium_region_iou",
                     "large_region_iou")
    }  # fmt: skip


def test_counts_per_photo_add_up_and_survive_a_file() -> None:
    random = np.random.default_rng(4)
    photos, whole = PhotoCounts(5), Confusion(5)
    for index in range(4):
        truth, prediction = random.integers(-1, 5, (9, 7)), random.integers(0, 5, (9, 7))
        photos.add(f"photo {index}", count_pairs(truth, prediction, 5))
        whole.add(truth, prediction)
    assert (photos.confusion().matrix == whole.matrix).all()
    totals = photos.totals()
    assert (totals.hit.sum(axis=0) == np.diag(whole.matrix)).all()
    assert (totals.truth.sum(axis=0) == whole.matrix.sum(axis=1)).all()
    assert (totals.predicted.sum(axis=0) == whole.matrix.sum(axis=0)).all()
    restored = PhotoCounts.from_arrays(5, photos.to_arrays())
    assert restored.stems == photos.stems
    assert (restored.confusion().matrix == whole.matrix).all()
    assert PhotoCounts.from_arrays(5, PhotoCounts(5).to_arrays()).stems == []


def test_the_naming_oracle_gives_each_true_region_its_commonest_label() -> None:
    photos = PhotoCounts(3)
    truth = np.array([[0] * 5 + [1] * 5])
    prediction = np.array([[0, 0, 0, 1, 2, 2, 2, 2, 1, 1]])
    photos.add("one", count_pairs(truth, prediction, 3))
    assert photos.naming().matrix.tolist() == [[5, 0, 0], [0, 0, 5], [0, 0, 0]]


def test_regions_are_sorted_by_their_share_of_the_photo() -> None:
    truth = np.zeros((10, 10), dtype=int)
    truth[0, 0] = 1  # 1 %: small, missed
    truth[1] = 2  # 10 %: medium, half found
    truth[5:] = 3  # 50 %: large, found
    prediction = truth.copy()
    prediction[0, 0] = 0
    prediction[1, :5] = 0
    photos = PhotoCounts(4)
    photos.add("one", count_pairs(truth, prediction, 4))
    assert photos.size_buckets([1, 2, 3]) == {"small": 0, "medium": pytest.approx(50), "large": pytest.approx(100)}
    assert photos.photo_miou() == pytest.approx([100 * np.mean([39 / 45, 0, 0.5, 1])])


@pytest.mark.parametrize(("pixels", "bucket"), [(1, "small"), (2, "medium"), (14, "medium"), (15, "large")])
def test_a_region_as_large_as_a_bucket_begins_is_in_it(pixels: int, bucket: str) -> None:
    truth = np.zeros((10, 10), dtype=int)
    truth.reshape(-1)[:pixels] = 1
    photos = PhotoCounts(2)
    photos.add("one", count_pairs(truth, truth, 2))
    found = {name for name, value in photos.size_buckets([1]).items() if value == pytest.approx(100)}
    assert found == {bucket}


def random_windows(size: tuple[int, int]) -> tuple[WindowScores, object]:
    plan = plan_windows(WINDOWED, *size)
    box = plan.boxes[0]
    generator = torch.Generator().manual_seed(5)
    segments = torch.randint(3, (len(plan.boxes), box.bottom // 8, box.right // 8), generator=generator)
    segments = segments.repeat_interleave(8, 1).repeat_interleave(8, 2)
    scores = torch.rand(len(plan.boxes), 3, 4, generator=generator).mul(8).round() / 8
    return WindowScores(segments, scores), plan


@pytest.mark.parametrize("size", [(32, 32), (70, 48), (32, 64)])
def test_a_sweep_gives_the_labels_of_each_threshold_alone(size: tuple[int, int]) -> None:
    windows, plan = random_windows(size)
    thresholds = [0.1, 0.3, 0.5, 0.52, 0.7, 0.9]
    foreground, at_thresholds = sweep_background(windows, plan, size[1], size[0], thresholds)
    assert torch.equal(foreground, merge_windows(windows, plan, size[1], size[0]).label_map)
    seen = []
    for group, labels in at_thresholds:
        for threshold in group:
            decided = WindowScores(windows.segment_map, with_background(windows.segment_scores, threshold))
            expected = merge_windows(decided, plan, size[1], size[0]).label_map
            assert torch.equal(labels, expected.to(labels.dtype)), threshold
            seen.append(threshold)
    assert sorted(seen) == thresholds


def test_the_grouping_oracle_names_segments_as_well_as_can_be() -> None:
    plan = plan_windows(WINDOWED, 32, 32)
    segments = torch.zeros(1, 32, 32, dtype=torch.int64)
    segments[:, :, 16:] = 1
    windows = WindowScores(segments, torch.zeros(1, 3, 7))
    truth = np.full((32, 32), 2, dtype=np.int32)
    truth[:, 12:] = 5  # segment 0 is 12 columns of 2 and 4 of 5
    truth[:2] = -1
    labels = grouping_oracle(windows, plan, truth, 7)
    assert (labels[:, :16] == 2).all()
    assert (labels[:, 16:] == 5).all()
    assert grouping_oracle(windows, plan, np.full((32, 32), -1, dtype=np.int32), 7).shape == (32, 32)
    # Segments that follow the truth reach 100, in windows and at another size too.
    large = np.kron(np.arange(4).reshape(2, 2), np.ones((48, 32), dtype=np.int64)).astype(np.int32)
    plan = plan_windows(WINDOWED, 64, 96)
    small = torch.from_numpy(large[::2, ::2].astype(np.int64))
    maps = torch.stack([small[box.top : box.bottom, box.left : box.right] for box in plan.boxes])
    labels = grouping_oracle(WindowScores(maps, torch.zeros(len(maps), 4, 4)), plan, large, 4)
    assert (labels == large).all()


@pytest.mark.parametrize("first", [0, 1])
def test_the_grouping_oracle_gives_no_name_to_segments_without_truth(first: int) -> None:
    """At another size scores blend at borders: a segment of ignored pixels alone takes nothing from its neighbours."""
    truth = np.full((112, 112), -1, dtype=np.int32)
    truth[4:32, 4:32], truth[52:100, 52:100] = first, 1 - first
    plan = plan_windows(WINDOWED.updated(short_side=32), 112, 112)
    rows = (np.arange(32) * 2 + 1) * 112 // 64
    segments = torch.from_numpy(np.where(truth < 0, 2, truth)[rows[:, None], rows[None]].astype(np.int64))[None]
    labels = grouping_oracle(WindowScores(segments, torch.zeros(1, 3, 2)), plan, truth, 2)
    inside = truth >= 0
    assert (labels == truth)[inside].mean() > 0.99


def test_the_grouping_oracle_names_the_segments_of_tiles() -> None:
    truth = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 32), dtype=np.int64)).astype(np.int32)
    plan = plan_windows(WINDOWED.updated(short_side=32, tile_scales=(2,), flip=True), 64, 64)
    maps = torch.zeros(plan.num_windows, 32, 32, dtype=torch.int64)
    for scale, members in plan.groups():
        resized = torch.from_numpy(truth[:: 64 // scale.height, :: 64 // scale.width].astype(np.int64))
        for number, box in members:
            maps[number] = resized[box.top : box.bottom, box.left : box.right]
    windows = WindowScores(maps, torch.zeros(plan.num_windows, 4, 4))
    assert (grouping_oracle(windows, plan, truth, 4) == truth).mean() > 0.95


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for index, size in enumerate([(32, 32), (32, 48), (40, 32), (32, 48)]):
        photo = np.kron(random.integers(0, 255, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1)))
        Image.fromarray(photo.astype(np.uint8)).save(tmp_path / f"JPEGImages/{index}.jpg")
        mask = blobs(random, *size, 4).astype(np.uint8)
        mask[:2] = 255
        Image.fromarray(mask).save(tmp_path / f"SegmentationClass/{index}.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "classes.txt").write_text("background\ndog\ncat\ncar\n")
    return tmp_path


@pytest.mark.parametrize("threshold", [None, 0.15])
def test_details_of_a_split(voc: Path, tiny_model: DualEncoder, threshold: float | None) -> None:
    split, segmenter = open_voc_split(voc, "val"), Segmenter(tiny_model, WINDOWED)
    result = evaluate_split(segmenter, split, (0.1, 0.2), detail=True, threshold=threshold)
    assert result.details is not None
    alone = Segmenter(tiny_model, WINDOWED.updated(background_threshold=threshold))
    expected = Confusion(4 if threshold else 3)
    for stem in split.stems:
        labels = alone(split.photo_path(stem), list(split.class_names)).label_map
        expected.add(split.read_mask(stem) - (0 if threshold else 1), labels)
    assert (result.details.photos.confusion().matrix == expected.matrix).all()
    metrics = result.metrics()
    assert metrics["miou"] == pytest.approx(expected.miou())
    if threshold is None:
        assert metrics["miou"] == metrics["foreground_miou"]
    assert metrics["grouping_oracle_miou"] > metrics["miou"]
    assert metrics["naming_oracle_miou"] <= 100
    assert "boundary_iou" in metrics
    assert "miou" not in evaluate_split(segmenter, split).metrics()


def test_parts_with_details_add_up(voc: Path, tiny_model: DualEncoder) -> None:
    split, segmenter = open_voc_split(voc, "val"), Segmenter(tiny_model, WINDOWED)
    whole = evaluate_split(segmenter, split, (0.1,), detail=True, threshold=0.1)
    total = SplitResult.empty(split.class_names, (0.1,), Details(4, has_background=True, threshold=0.1))
    for stems in (split.stems[:1], split.stems[1:]):
        total.add(evaluate_split(segmenter, split, (0.1,), detail=True, threshold=0.1, stems=stems))
    assert (total.counts() == whole.counts()).all()
    assert total.metrics() == pytest.approx(whole.metrics(), nan_ok=True)
    assert total.details is not None
    assert total.details.photos.stems == list(split.stems)
    with pytest.raises(ValueError, match="not parts of one evaluation"):
        total.add(evaluate_split(segmenter, split, (0.1,)))


def test_a_mask_of_another_size_is_refused(voc: Path, tiny_model: DualEncoder) -> None:
    Image.new("L", (9, 9)).save(voc / "SegmentationClass/2.png")
    with pytest.raises(MixreorgError, match=r"mask of '2' has 9 x 9 pixels, but its photo .*2\.jpg has 32 x 40"):
        evaluate_split(Segmenter(tiny_model, WINDOWED), open_voc_split(voc, "val"))

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.evaluate import chance_miou, evaluate_split
from mixreorg.eval.result import SplitResult
from mixreorg.eval.split import VOID, EvalSplit
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.models.dual_encoder import DualEncoder, ImageOutput
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter

CLASSES = "background\nthing\ndog=dog|puppy|hound\ncat=cat|kitten\ncar\n"
PROTOCOL = Protocol(name="test", short_side=32, window=32, stride=32, whole=True)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(5):
        size = (32, 32) if index < 3 else (32, 48)
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / f"JPEGImages/{index}.jpg")
        mask = random.integers(0, 4, size, dtype=np.uint8)
        mask[:2] = 255
        Image.fromarray(mask).save(tmp_path / f"SegmentationClass/{index}.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("0\n1\n2\n3\n4\n")
    (tmp_path / "classes.txt").write_text("background\ndog\ncat\ncar\n")
    return tmp_path


def test_confusion_against_a_plain_count() -> None:
    random = np.random.default_rng(0)
    confusion = Confusion(4)
    expected = np.zeros((4, 4), dtype=int)
    for _ in range(3):
        truth, prediction = random.integers(-1, 6, (7, 5)), random.integers(0, 4, (7, 5))
        confusion.add(truth, prediction)
        for true, predicted in zip(truth.ravel(), prediction.ravel(), strict=True):
            if 0 <= true < 4:
                expected[true, predicted] += 1
    assert (confusion.matrix == expected).all()
    for index, iou in enumerate(confusion.iou()):
        union = expected[index].sum() + expected[:, index].sum() - expected[index, index]
        assert iou == pytest.approx(expected[index, index] / union)
    assert confusion.miou() == pytest.approx(100 * confusion.iou().mean())


def test_a_class_that_never_occurs_counts_for_nothing() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]]))
    assert np.isnan(confusion.iou()[2])
    assert confusion.miou() == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert np.isnan(Confusion(2).miou())


def test_masks_are_read_with_void(voc: Path) -> None:
    split = open_voc_split(voc, "val")
    assert split.class_names == ("dog", "cat", "car")
    mask = split.read_mask("0")
    assert (mask[:2] == VOID).all()
    assert set(np.unique(mask)) == {VOID, 0, 1, 2, 3}
    wide = np.array([[0, 3, 65535]], dtype=np.uint16)
    Image.fromarray(wide).save(voc / "SegmentationClass/1.png")
    assert split.read_mask("1").tolist() == [[0, 3, VOID]]


def test_it_is_read_as_own_data_are(voc: Path) -> None:
    (voc / "classes.txt").write_text("background\ndog=dog|puppy\n# a remark\ncat\ncar\n")
    for photo in (voc / "JPEGImages").iterdir():
        photo.rename(photo.with_suffix(".png"))
    split = open_voc_split(voc, "val")
    assert split == open_benchmark("voc_folder", voc)
    assert split.classes[0].phrases == ("dog", "puppy")


@pytest.mark.parametrize("refine", ["none", "pamr", "guided"])
@pytest.mark.parametrize("options", [{}, {"tile_scales": (1.5,), "flip": True, "segment_similarity": 0.9}])
def test_the_result_equals_photo_by_photo_segmentation(voc: Path, varied_model: DualEncoder, options, refine) -> None:
    split, protocol = open_voc_split(voc, "val"), PROTOCOL.updated(**options, refine=refine)
    result = evaluate_split(Segmenter(varied_model, protocol), split, (0.4,))
    with_background = Segmenter(varied_model, protocol.updated(background_threshold=0.4))
    foreground, background = Confusion(3), Confusion(4)
    for stem in split.stems:
        photo, mask = split.photo_path(stem), split.read_mask(stem)
        labels = Segmenter(varied_model, protocol)(photo, list(split.class_names)).label_map
        foreground.add(mask - 1, labels)
        background.add(mask, with_background(photo, list(split.class_names)).label_map)
    assert (result.foreground.matrix == foreground.matrix).all()
    assert (result.background[0.4].matrix == background.matrix).all()
    assert result.num_images == 5
    assert result.num_true_classes == 15
    assert result.num_recognised == 15  # all three classes are in every photo


def class_fit(segmenter: Segmenter, split: EvalSplit, stem: str) -> np.ndarray:
    """How well each class fits each window of a photo, ``[N, C]``: by its best phrase."""
    with Image.open(split.photo_path(stem)) as photo:
        windows = segmenter.encode([photo.convert("RGB")])
    embeddings = [segmenter.class_embeddings([item])[0] for item in split.classes]
    return np.stack([(windows.image_embedding @ item.T).amax(dim=1).numpy() for item in embeddings], axis=1)


def write_classes(split: EvalSplit, stem: str, pair: Iterable[int]) -> None:
    """A mask of two classes, one of them in the upper rows."""
    above, below = pair
    mask = np.full(split.read_mask(stem).shape, below + 1, dtype=np.uint8)
    mask[:8] = above + 1
    Image.fromarray(mask).save(split.mask_path(stem))


def test_recognition_ranks_classes_and_not_phrases(voc: Path, tiny_model: DualEncoder) -> None:
    (voc / "classes.txt").write_text(CLASSES)
    split, segmenter = open_benchmark("voc_folder", voc), Segmenter(tiny_model, PROTOCOL)
    ranked = {stem: np.argsort(class_fit(segmenter, split, stem).mean(axis=0)).tolist() for stem in split.stems}
    expected = 0
    for stem in split.stems:  # of five classes two are true
        write_classes(split, stem, (3, 2))
        expected += len({2, 3} & set(ranked[stem][-2:]))
    result = evaluate_split(segmenter, split)
    assert result.num_true_classes == 10
    assert result.num_recognised == expected
    # The two that fit best, and the two that fit worst.
    for pair, recognised in ((slice(2, None), 10), (slice(2), 0)):
        for stem in split.stems:
            write_classes(split, stem, ranked[stem][pair])
        assert evaluate_split(segmenter, split).num_recognised == recognised


def test_recognition_takes_the_mean_of_all_windows(
    voc: Path, tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (voc / "classes.txt").write_text(CLASSES)
    encode_each = Segmenter.encode_each

    def opposed(self: Segmenter, images: Sequence[Image.Image]) -> list[ImageOutput]:
        # A second window that outweighs the first and ranks the other way round.
        outputs = encode_each(self, images)
        weights = torch.tensor([[1.0], [-3.0]])
        return [replace(item, image_embedding=item.image_embedding[:1] * weights) for item in outputs]

    monkeypatch.setattr(Segmenter, "encode_each", opposed)
    (voc / "ImageSets/Segmentation/val.txt").write_text("3\n4\n")  # of two windows
    split = open_benchmark("voc_folder", voc)
    segmenter = Segmenter(tiny_model, PROTOCOL.updated(whole=False, stride=16))
    for stem in split.stems:
        fit = class_fit(segmenter, split, stem)
        best = np.argsort(fit.mean(axis=0))[-2:].tolist()
        assert set(best) != set(np.argsort(fit[0])[-2:].tolist())
        write_classes(split, stem, best)
    assert evaluate_split(segmenter, split).num_recognised == 4


def test_parts_add_up_to_the_whole(voc: Path, tiny_model: DualEncoder) -> None:
    split, segmenter = open_voc_split(voc, "val"), Segmenter(tiny_model, PROTOCOL)
    whole = evaluate_split(segmenter, split, (0.2, 0.4))
    parts = [evaluate_split(segmenter, split, (0.2, 0.4), part=(index, 2)) for index in range(2)]
    total = SplitResult.empty(split.class_names, (0.2, 0.4))
    total.set_counts(parts[0].counts() + parts[1].counts())
    assert (total.counts() == whole.counts()).all()
    assert total.metrics() == whole.metrics()


def test_the_model_is_left_in_evaluation_mode_only_where_asked(voc: Path, tiny_model: DualEncoder) -> None:
    with pytest.raises(ValueError, match="without background"):
        evaluate_split(Segmenter(tiny_model, PROTOCOL.updated(background_threshold=0.5)), open_voc_split(voc, "val"))


def test_chance_agrees_with_random_labels(voc: Path) -> None:
    split = open_voc_split(voc, "val")
    random = np.random.default_rng(1)
    confusion = Confusion(3)
    for _ in range(40):
        for stem in split.stems:
            mask = split.read_mask(stem)
            confusion.add(mask - 1, random.integers(0, 3, mask.shape))
    assert chance_miou(split) == pytest.approx(confusion.miou(), abs=0.3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "classes.txt").unlink(), "classes.txt"),
        (lambda root: (root / "classes.txt").write_text("dog\ncat\n"), "must name 'background' first"),
        (lambda root: (root / "ImageSets/Segmentation/val.txt").write_text(""), "lists no photos"),
        (lambda root: (root / "SegmentationClass/3.png").unlink(), r"3\.png is missing"),
    ],
)
def test_incomplete_splits_are_refused_before_the_start(voc: Path, damage: object, message: str) -> None:
    damage(voc)  # type: ignore[operator]
    with pytest.raises(MixreorgError, match=message):
        open_voc_split(voc, "val")


def test_masks_that_are_no_masks(voc: Path) -> None:
    split = open_voc_split(voc, "val")
    Image.new("RGB", (4, 4)).save(voc / "SegmentationClass/0.png")
    with pytest.raises(MixreorgError, match="mode RGB, but masks hold one index"):
        split.read_mask("0")
    Image.fromarray(np.full((2, 2), 9, dtype=np.uint8)).save(voc / "SegmentationClass/0.png")
    with pytest.raises(MixreorgError, match=r"unknown label 9; .*classes\.txt has 3 classes"):
        split.read_mask("0")

from pathlib import Path

import numpy as np
import pytest
from benchmark_kit import make_ade, make_cityscapes, make_coco, make_voc, stripes, write_mask, write_photo
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.class_table import class_table
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.split import VOID, EvalSplit, label_names


def test_voc_with_and_without_background(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"b": stripes([0, 5, 255]), "a": stripes([20])})
    for root in (tmp_path, tmp_path / "VOCdevkit", folder):
        split: EvalSplit = open_benchmark("voc12", root)
        assert split.stems == ("b", "a")  # the official order, not the alphabet's
        assert split.name == "voc21/val"
        assert len(label_names(split)) == 21
        assert split.read_mask("b")[0, :3].tolist() == [0, 5, VOID]
    split = open_benchmark("voc20", tmp_path)
    assert len(label_names(split)) == 20
    assert split.read_mask("b")[0, :3].tolist() == [VOID, 4, VOID]
    assert split.read_mask("a").max() == 19
    assert split.photo_path("a").is_file()
    assert open_benchmark("voc20", tmp_path, max_images=1).stems == ("b",)


def test_namings_change_phrases_alone(tmp_path: Path) -> None:
    make_voc(tmp_path, {"a": stripes([1])})
    phrases = [open_benchmark("voc21", tmp_path, naming=naming).classes[3].phrases for naming in ("official", "sclip")]
    assert phrases == [("boat",), ("ship",)]


def test_coco_reads_the_maps_as_downloaded(tmp_path: Path) -> None:
    # person, bicycle, toothbrush, banner (stuff), wood (stuff), unlabelled
    make_coco(tmp_path, {"000000000139": stripes([0, 1, 89, 91, 181, 255])})
    objects = open_benchmark("coco_object", tmp_path)
    assert objects.read_mask("000000000139")[0, :6].tolist() == [1, 2, 80, 0, 0, 0]
    stuff = open_benchmark("coco_stuff", tmp_path)
    assert stuff.read_mask("000000000139")[0, :6].tolist() == [0, 1, 79, 80, 170, VOID]
    assert not stuff.has_background
    assert stuff.classes[80].name == "banner"


def test_every_class_of_the_maps_is_read_as_itself(tmp_path: Path) -> None:
    make_coco(tmp_path, {"1": np.array([class_table("coco_stuff").labels()])})
    assert open_benchmark("coco_stuff", tmp_path).read_mask("1")[0].tolist() == list(range(171))


def test_ade(tmp_path: Path) -> None:
    make_ade(tmp_path, {"ADE_val_00000001": stripes([0, 1, 150])})
    split = open_benchmark("ade150", tmp_path)
    assert split.read_mask("ADE_val_00000001")[0, :3].tolist() == [VOID, 0, 149]


def test_cityscapes(tmp_path: Path) -> None:
    stems = ("munster/munster_000001_000019", "frankfurt/frankfurt_000000_000294")
    make_cityscapes(tmp_path, {stem: stripes([0, 7, 33, 29, 24]) for stem in stems})
    split = open_benchmark("cityscapes", tmp_path)
    assert split.stems == tuple(sorted(stems))
    assert split.read_mask(stems[0])[0, :5].tolist() == [VOID, 0, 18, VOID, 11]
    assert split.photo_path(stems[0]).is_file()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voc21", 21, r"unknown label 21; masks of VOC 2012 hold 0 to 20"),
        ("ade150", 255, r"unknown label 255; .* shifted them already"),
        ("coco_stuff", 183, r"unknown label 183; .* take stuffthingmaps_trainval2017.zip"),
        ("coco_object", 182, r"unknown label 182; .* take stuffthingmaps_trainval2017.zip"),
        ("coco_object", 25, r"unknown label 25"),  # category 26, hat, was never annotated
        ("cityscapes", 34, r"unknown label 34; labelIds of Cityscapes hold 0 to 33"),
    ],
)
def test_unknown_labels(tmp_path: Path, name: str, value: int, message: str) -> None:
    makers = {"voc21": make_voc, "ade150": make_ade, "cityscapes": make_cityscapes}
    stem = "a/a_1" if name == "cityscapes" else "a"
    makers.get(name, make_coco)(tmp_path, {stem: stripes([1, value])})
    split = open_benchmark(name, tmp_path)
    with pytest.raises(MixreorgError, match=message) as caught:
        split.read_mask(stem)
    assert str(split.mask_path(stem)) in str(caught.value)


def test_colour_masks_are_refused(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([1])})
    path = folder / "SegmentationClass" / "a.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(MixreorgError, match=r"a\.png is a picture of mode RGB, but masks hold one index per pixel"):
        open_benchmark("voc21", tmp_path).read_mask("a")


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([1])})
    path = folder / "SegmentationClass" / "a.png"
    split = open_benchmark("voc21", tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(MixreorgError, match=r"cannot read the mask .*a\.png"):
        split.read_mask("a")
    path.unlink()
    with pytest.raises(MixreorgError, match=r"a\.png is missing"):
        split.read_mask("a")


def test_missing_things(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match="nowhere is not a folder"):
        open_benchmark("voc21", tmp_path / "nowhere")
    with pytest.raises(MixreorgError, match=r"no PASCAL VOC 2012 .* get it from"):
        open_benchmark("voc21", tmp_path)
    folder = make_voc(tmp_path, {"a": stripes([1]), "b": stripes([1])})
    with pytest.raises(MixreorgError, match=r"no list of the split 'tset'"):
        open_benchmark("voc21", tmp_path, "tset")
    (folder / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(MixreorgError, match=r"val\.txt names 2 photos, but .*b\.jpg is missing;"):
        open_benchmark("voc21", tmp_path)
    (folder / "SegmentationClass" / "a.png").unlink()
    with pytest.raises(MixreorgError, match=r"has no mask of 'a': expected SegmentationClass/a.png"):
        open_benchmark("voc21", tmp_path)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(MixreorgError, match="lists no photos"):
        open_benchmark("voc21", tmp_path)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\na\n")
    with pytest.raises(MixreorgError, match="lists 'a' twice"):
        open_benchmark("voc21", tmp_path)


@pytest.mark.parametrize(
    ("name", "trap", "message"),
    [
        ("ade150", "ADE20K_2021_17_01/images/x.jpg", "this is the full ADE20K; SceneParse150 is meant"),
        ("ade150", "images/training/abbey/ADE_train_1_seg.png", "this is the full ADE20K"),
        ("coco_stuff", "coco/val2014/x.jpg", "this is COCO 2014"),
        ("voc21", "VOC2007/x.jpg", "this is VOC 2007"),
        ("context60", "59_context_labels/x.png", "orders the classes in another way"),
    ],
)
def test_wrong_versions_are_named(tmp_path: Path, name: str, trap: str, message: str) -> None:
    write_photo(tmp_path / trap)
    with pytest.raises(MixreorgError, match=message):
        open_benchmark(name, tmp_path)


def test_wrong_masks_are_named(tmp_path: Path) -> None:
    folder = make_coco(tmp_path, {"1": stripes([1])})
    (folder / "stuffthingmaps" / "val2017" / "1.png").unlink()
    write_mask(folder / "annotations" / "stuff_val2017_pixelmaps" / "1.png", stripes([92]))
    with pytest.raises(MixreorgError, match=r"expected .*pixel maps of the stuff task lack the things"):
        open_benchmark("coco_stuff", tmp_path)


def test_real_samples(shared: Path) -> None:
    voc = open_benchmark("voc21", shared / "data")
    mask = voc.read_mask(voc.stems[0])
    with Image.open(voc.photo_path(voc.stems[0])) as photo:
        assert mask.shape == photo.size[::-1]
    assert (mask == VOID).any()
    assert mask.max() > 0
    ade = open_benchmark("ade150", shared / "data")
    assert len(ade.stems) == 8
    assert all(ade.read_mask(stem).max() < 150 for stem in ade.stems)

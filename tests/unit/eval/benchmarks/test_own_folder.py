from pathlib import Path

import numpy as np
import pytest
from benchmark_kit import stripes, write_mask, write_photo
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.split import VOID, label_names


def make_own(root: Path, kind: str, classes: str, mask: np.ndarray, suffix: str = ".jpg") -> Path:
    if kind == "voc_folder":
        write_photo(root / "JPEGImages" / f"a{suffix}")
        write_mask(root / "SegmentationClass" / "a.png", mask)
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    else:
        write_photo(root / "images" / "val" / f"a{suffix}")
        write_mask(root / "annotations" / "val" / "a.png", mask)
    (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("kind", ["voc_folder", "ade_folder"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_first_name_decides_on_background(tmp_path: Path, kind: str, suffix: str) -> None:
    root = make_own(tmp_path / "own", kind, "background\ncat=cat|kitten\ndog\n", stripes([0, 1, 2, 255]), suffix)
    split = open_benchmark(kind, root)
    assert split.name == "own/val"
    assert split.photo_path("a").is_file()
    assert label_names(split) == ("background", "cat", "dog")
    assert split.classes[0].phrases == ("cat", "kitten")
    assert split.read_mask("a")[0, :4].tolist() == [0, 1, 2, VOID]
    (root / "classes.txt").write_text("cat\ndog\n")
    split = open_benchmark(kind, root)
    assert label_names(split) == ("cat", "dog")
    assert split.read_mask("a")[0, :4].tolist() == [VOID, 0, 1, VOID]


def test_a_name_may_hold_spaces(tmp_path: Path) -> None:
    root = make_own(tmp_path, "voc_folder", "cat\n", stripes([1]))
    for file in (root / "JPEGImages" / "a.jpg", root / "SegmentationClass" / "a.png"):
        file.rename(file.with_stem("my cat"))
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text(" my cat \n\n")
    split = open_benchmark("voc_folder", root)
    assert split.stems == ("my cat",)
    assert split.read_mask("my cat")[0, 0] == 0


def test_a_mask_with_a_broken_chunk_is_an_error_that_names_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400)).astype(np.uint8)
    root = make_own(tmp_path, "voc_folder", "background\ncat\n", noise)
    path = root / "SegmentationClass" / "a.png"
    content = path.read_bytes()
    # The name of the second of its data chunks.
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    path.write_bytes(content[:second] + b"\0DAT" + content[second + 4 :])
    with pytest.raises(MixreorgError, match=r"cannot read the mask .*a\.png .*broken PNG file"):
        open_benchmark("voc_folder", root).read_mask("a")


def test_sixteen_bits(tmp_path: Path) -> None:
    names = "".join(f"class {number}\n" for number in range(300))
    root = make_own(tmp_path, "ade_folder", names, stripes([1]))
    Image.fromarray(stripes([0, 255, 300, 65535]).astype(np.uint16)).save(root / "annotations" / "val" / "a.png")
    assert open_benchmark("ade_folder", root).read_mask("a")[0, :4].tolist() == [VOID, 254, 299, VOID]


def test_a_class_list_that_does_not_fit(tmp_path: Path) -> None:
    root = make_own(tmp_path, "voc_folder", "background\ncat\n", stripes([1, 2]))
    with pytest.raises(MixreorgError, match=r"unknown label 2; .*classes\.txt has 1 classes"):
        open_benchmark("voc_folder", root).read_mask("a")
    other = tmp_path / "names.txt"
    other.write_text("background\ncat\ndog\n")
    assert open_benchmark("voc_folder", root, classes=other).read_mask("a").max() == 2
    other.write_text("background\n")
    with pytest.raises(MixreorgError, match=r"names\.txt names no class besides background"):
        open_benchmark("voc_folder", root, classes=other)
    with pytest.raises(MixreorgError, match="cannot read the class list"):
        open_benchmark("voc_folder", root, classes=tmp_path / "missing.txt")
    with pytest.raises(MixreorgError, match="has its own classes; a class list is for voc_folder and ade_folder"):
        open_benchmark("voc21", root, classes=other)


def test_a_missing_split(tmp_path: Path) -> None:
    root = make_own(tmp_path, "ade_folder", "cat\n", stripes([1]))
    with pytest.raises(MixreorgError, match="no data in the layout of ade_folder with a split 'test'"):
        open_benchmark("ade_folder", root, "test")


def test_photos_of_several_endings(tmp_path: Path) -> None:
    root = make_own(tmp_path / "ade", "ade_folder", "cat\n", stripes([1]))
    write_photo(root / "images" / "val" / "b.png")
    with pytest.raises(MixreorgError, match=r"end in \.jpg, \.png; give all of them one ending"):
        open_benchmark("ade_folder", root)
    (root / "images" / "val" / "b.png").unlink()
    (root / "images" / "val" / "a.jpg").rename(root / "images" / "val" / "a.JPG")
    with pytest.raises(MixreorgError, match=r"end in \.JPG; give all of them one ending"):
        open_benchmark("ade_folder", root)
    # A list says which photos are meant, whatever lies beside them; and it may begin with a byte order mark.
    root = make_own(tmp_path / "voc", "voc_folder", "cat\n", stripes([1]))
    write_photo(root / "JPEGImages" / "preview.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n", encoding="utf-8-sig")
    assert open_benchmark("voc_folder", root).stems == ("a",)
    write_mask(root / "SegmentationClass" / "preview.png", stripes([1]))
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\npreview\n")
    with pytest.raises(MixreorgError, match=r"preview\.jpg is missing; preview\.png is there: give all photos one end"):
        open_benchmark("voc_folder", root)
    (root / "JPEGImages" / "preview.png").unlink()
    with pytest.raises(MixreorgError, match=r"preview\.jpg is missing; unpack the archives again"):
        open_benchmark("voc_folder", root)


def test_background_phrases_in_a_class_list_are_refused(tmp_path: Path) -> None:
    root = make_own(tmp_path, "voc_folder", "background=sky|wall\ncat\n", stripes([1]))
    with pytest.raises(MixreorgError, match=r"phrases of its own; .* segmentation\.background_phrases"):
        open_benchmark("voc_folder", root)

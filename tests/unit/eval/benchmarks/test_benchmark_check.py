import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_kit import HEIGHT, WIDTH, make_ade, make_voc, stripes, write_mask, write_photo
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.check import CheckReport, Finding, check_split, reordered_palette
from mixreorg.eval.benchmarks.opening import open_benchmark


def check(root: Path, name: str = "voc21", **options: object) -> CheckReport:
    return check_split(open_benchmark(name, root), **options)  # type: ignore[arg-type]


def only(report: CheckReport) -> Finding:
    assert len(report.findings) == 1
    return report.findings[0]


def test_nothing_wrong(tmp_path: Path) -> None:
    make_voc(tmp_path, {"a": stripes([0, 0, 1]), "b": stripes([0, 255, 255])})
    done: list[None] = []
    report = check(tmp_path, official=(2,), voc_palette=True, advance=lambda: done.append(None))
    assert report.findings == ()
    assert report.exit_code == 0
    report.require_usable()
    assert len(done) == report.num_photos == report.num_sampled == 2
    # Of 2 x 12 columns, 8 + 4 are background, 4 aeroplane, 8 void.
    assert report.void_share == pytest.approx(8 / 24)
    assert report.labels[0].share == pytest.approx(12 / 16)
    assert (report.labels[0].num_masks, report.labels[1].num_masks, report.labels[2].num_masks) == (2, 1, 0)
    assert report.labels[1].name == "aeroplane"
    assert json.loads(json.dumps(report.to_dict()))["exit_code"] == 0


def test_another_number_of_photos_is_doubtful(tmp_path: Path) -> None:
    make_voc(tmp_path, {"a": stripes([1])})
    report = check(tmp_path, official=(5105, 5104))
    assert report.exit_code == 1
    assert only(report).severity == "warning"
    assert "1 photos instead of 5,105 or 5,104; results" in only(report).examples[0]


def test_another_size(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([1]), "b": stripes([1])})
    write_photo(folder / "JPEGImages" / "b.jpg", (WIDTH, HEIGHT + 1))
    report = check(tmp_path, sample=1)  # sizes are compared beyond the sample
    assert report.exit_code == 2
    assert only(report).kind == "mask of another size"
    assert "b.png is 12 x 8 pixels, its photo" in only(report).examples[0]


def test_a_photo_on_its_side_is_turned_first(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([1])})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "JPEGImages" / "a.jpg", exif=exif)
    assert check(tmp_path).findings == ()
    # A text where a number belongs.
    text = b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x02\0\0\0\x04abc\0" + bytes(4)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "JPEGImages" / "a.jpg", exif=text)
    assert check(tmp_path).findings == ()


def test_colours_and_unknown_labels(tmp_path: Path) -> None:
    stems = [f"{number:02}" for number in range(9)]
    folder = make_ade(tmp_path, {stem: stripes([1]) for stem in stems})
    masks = folder / "annotations" / "validation"
    for stem in stems[:7]:
        write_mask(masks / f"{stem}.png", stripes([151, 200]))
    Image.new("RGB", (WIDTH, HEIGHT)).save(masks / "07.png")
    report = check(tmp_path, "ade150")
    assert report.exit_code == 2
    assert only(report).kind == "unusable mask"
    assert only(report).count == 8
    assert len(only(report).examples) == 5
    assert "00.png holds the unknown labels 151, 200" in only(report).examples[0]
    with pytest.raises(MixreorgError, match=r"00\.png holds the unknown labels .* \(7 more errors in ade150/val\)"):
        report.require_usable()
    # One mask was usable.
    assert report.labels[0].num_masks == 1


def test_damaged_files(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([1]), "b": stripes([1])})
    (folder / "JPEGImages" / "a.jpg").write_bytes(b"no photo")
    (folder / "SegmentationClass" / "b.png").write_bytes(b"no mask")
    report = check(tmp_path)
    assert {finding.kind: finding.count for finding in report.findings} == {"unusable photo": 1, "unusable mask": 1}


def test_empty_masks(tmp_path: Path) -> None:
    make_voc(tmp_path, {"a": stripes([255])})
    report = check(tmp_path)
    assert only(report).kind == "empty mask"
    assert report.exit_code == 1


def test_a_sorted_palette_shows(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, {"a": stripes([0, 3, 15])})
    path = folder / "SegmentationClass" / "a.png"
    assert reordered_palette(path) is None
    # What drawing programs do: keep the colours, number them as they occur.
    with Image.open(path) as image:
        saved = image.convert("RGB").quantize(3)
    saved.save(path)
    assert saved.getextrema()[1] < 15
    report = check(tmp_path, voc_palette=True)
    assert only(report).kind == "re-ordered palette"
    assert "saved again with a sorted palette" in only(report).examples[0]


def test_other_palettes_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(stripes([0, 3, 15]).astype(np.uint8))
    image.putpalette([value for index in range(256) for value in (index, index, index)])
    image.save(path)
    assert reordered_palette(path) is None
    image = Image.fromarray(stripes([0, 3, 15]).astype(np.uint8))
    image.save(path)
    assert reordered_palette(path) is None


def test_sample_is_spread(tmp_path: Path) -> None:
    make_voc(tmp_path, {f"{number}": stripes([number]) for number in range(10)})
    report = check(tmp_path, sample=2)
    assert report.num_sampled == 2
    assert [label.num_masks for label in report.labels[:6]] == [1, 0, 0, 0, 0, 1]


def test_real_samples_are_fine_but_for_their_number(shared: Path) -> None:
    for name in ("voc21", "ade150"):
        report = check(shared / "data", name, official=(1,), sample=None, voc_palette=name == "voc21")
        assert [finding.kind for finding in report.findings] == ["number of photos"]
        assert sum(label.share for label in report.labels) == pytest.approx(1)

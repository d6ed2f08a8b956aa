import base64
import dataclasses
import io
import math

import pytest
from PIL import Image

from mixreorg.demo.curves import draw_curves
from mixreorg.demo.page import Command, DemoReport, Scores, write_page
from mixreorg.demo.pictures import LegendName, MixingRow, SegmentationRow
from page_kit import Page

NASTY = "<script>alert('1')</script> & \"dog\""

REPORT = DemoReport(
    seconds=552.4,
    recipe="scenes_<x>",
    class_names=("dog", "a<b>&c"),
    captions=(NASTY, "a dog"),
    num_pairs=60000,
    image_size=64,
    num_parameters=1_230_000,
    steps=2000,
    batch_size=64,
    group_size=4,
    parts="Patches are mixed <early>.",
    num_test_scenes=1000,
    trained=Scores(foreground=61.23, background=34.0, present=82.5),
    untrained=Scores(foreground=0.4, background=3.2, present=math.nan),
    chance=Scores(foreground=2.0),
    threshold=0.35,
    is_best_checkpoint=False,
    mixed_mask_accuracy=0.815,
    commands=(Command("Again & again:", 'mixreorg segment "<photo>.jpg"'),),
)


def _picture(shade):
    return Image.new("RGB", (8, 8), (shade, 0, 0))


def _write(path, report=REPORT):
    mixing = [[MixingRow(NASTY, (30, 105, 210), *map(_picture, range(5)), accuracy=0.75)]] * 2
    legend = (
        LegendName("dog", (1, 2, 3), True, True),
        LegendName("a<b>&c", (4, 5, 6), True, False),
        LegendName("cat", (7, 8, 9), False, True),
    )
    rows = [SegmentationRow("one", *map(_picture, range(10, 14)), legend=legend)]
    log = [{"step": 1, "train/contrastive": 1.0}, {"step": 1, "val/foreground_miou": 2.0}]
    write_page(path, report, curves=draw_curves(log), mixing=mixing, segmentation=rows)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("demo") / "index.html")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_texts_from_data_stay_texts(page):
    assert not {"script", "x", "b", "photo"} & set(page.tags)
    for text in (NASTY, "scenes_<x>", "a<b>&c", "Again & again:", 'mixreorg segment "<photo>.jpg"'):
        assert text in page.text
    assert f"original: {NASTY}" in page.values("img", "alt")


def test_the_page_loads_nothing(page, source):
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    pictures = page.values("img", "src")
    assert len(pictures) == 2 * 5 + 4
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    first = base64.b64decode(pictures[0].split(",", 1)[1])
    assert Image.open(io.BytesIO(first)).getpixel((0, 0)) == (10, 0, 0)
    assert not any("url(" in style or "@import" in style for style in page.styles)
    assert "default-src 'none'" in source
    assert page.text.count("Mix") > 1


def test_every_picture_says_what_it_is(page):
    assert all(page.values("img", "alt"))
    assert len(page.values("svg", "aria-label")) == 2
    ids = [attributes["id"] for _, attributes in page.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_figures_and_table(page):
    for text in (
        "foreground mIoU 61.2 % untrained 0.4 %, chance 2.0 %",
        "mIoU with background 34.0 % untrained 3.2 %",
        "mixed-mask accuracy 81.5 % chance 25.0 %",
        "9 min 12 s",
        "trained model 61.2 34.0 82.5 untrained model 0.4 3.2 – chance 2.0 – –",
        "1.23 million parameters",
        "60,000 scenes of 64 × 64 pixels",
        "2,000 steps of 64 images",
        "Measured on 1,000 unseen scenes",
        "below 0.35 become background",
        "75 % of the mixed image's patches right",
        "OpenMoji",
        "CC BY-SA 4.0",
    ):
        assert text in page.text
    assert "the validation split chose the background threshold," in page.text


def test_legends_name_what_was_missed_and_what_is_not_there(page):
    assert "dog a<b>&c (missed) cat (not in truth)" in page.text
    assert "background:#010203" in page.values("span", "style")


def test_what_the_run_says_changes_the_page(tmp_path):
    report = dataclasses.replace(REPORT, seconds=48.2, is_best_checkpoint=True, captions=(), commands=())
    page = Page(_write(tmp_path / "new" / "index.html", report))
    assert " 48 s " in page.text
    assert "chose the checkpoint and the background threshold" in page.text
    assert "such as" not in page.text
    assert "Run it again" not in page.text


def test_both_themes_and_small_screens_are_styled(page, source):
    (style,) = [style for style in page.styles if "--paper" in style]
    assert "prefers-color-scheme: dark" in style
    assert "max-width: 40rem" in style
    assert 'name="viewport"' in source


def test_the_page_says_which_parts_of_the_method_were_used(tmp_path):
    path = tmp_path / "index.html"
    _write(path)
    assert "Patches are mixed <early>." in Page(path.read_text(encoding="utf-8")).text

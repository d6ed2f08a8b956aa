"""The report page and report.json: hostile captions, pictures of suspects, stable names."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from doctor_kit import (
    PAIR_DEFECTS,
    SHARD_DEFECTS,
    check,
    pair,
    pairs,
    photo,
    suspicious_pairs,
    write_damaged_shards,
    write_shard,
)
from PIL import Image
from rich.console import Console

from mixreorg.data.doctor.console import print_summary
from mixreorg.data.doctor.page import write_report
from page_kit import Page

NASTY = "<script>alert('1')</script> \x1b[31m[red]&amp;\" onerror=x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor")
    members = [*suspicious_pairs(), *pair(60, photo(60, (9, 9)), NASTY.encode()), *pair(61, caption=NASTY.encode())]
    shard = write_shard(root / f"{NASTY.replace('/', '|')}.tar", members)
    write_report(check(shard, *write_damaged_shards(root / "shards")), root / "report")
    return root / "report"


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_captions_and_names_stay_text(page: Page) -> None:
    assert "script" not in page.tags
    assert not any("onerror" in attributes for _, attributes in page.attributes)
    assert "<script>alert('1')</script> \ufffd[31m[red]&amp;\" onerror=x" in page.text
    assert "\x1b" not in page.text


def test_the_page_loads_nothing(page: Page, folder: Path) -> None:
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    sources = [attributes["src"] for tag, attributes in page.attributes if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "url(" not in text


def test_every_finding_is_on_the_page_with_its_count(page: Page) -> None:
    hostile = {"tiny image": 3, "duplicate caption": 4, "no caption": 4}
    for kind, count in {**PAIR_DEFECTS, **SHARD_DEFECTS, **hostile}.items():
        assert f"{kind} : {count}" in page.text, kind
    assert "Serious: pairs are missing or lost." in page.text


def test_pictures_show_what_can_be_decoded(tmp_path: Path) -> None:
    members = [*pairs(0, 1), *pair(1, photo(1, (600, 40))), *pair(2, photo(2)[:-200]), *pair(3, b"nothing")]
    write_report(check(write_shard(tmp_path / "a.tar", members)), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    encoded = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for data in encoded]
    # The truncated image, the long one, and the healthy one.
    assert sizes == [(48, 40), (160, 11), (48, 40)]
    assert text.count('class="blank"') == 1
    assert "7 bytes that begin with b&#x27;nothing&#x27;" in text


def test_report_json_has_its_documented_fields(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["format"] == "mixreorg-data-check-1"
    parts = ("pairs", "findings", "captions", "images", "shards")
    assert tuple(report) == ("format", "specs", "settings", "exit_code", "run", *parts)
    assert report["exit_code"] == 2
    assert {item["kind"]: item["count"] for item in report["findings"]}["damaged image"] == 3
    assert report["captions"]["context_length"] == 77
    assert sum(count for _, count in report["captions"]["words"]["histogram"]) == report["pairs"]["usable"]
    assert sum(count for _, count in report["images"]["short_side"]["histogram"]) == report["pairs"]["usable"]
    assert report["captions"]["most_frequent"][0]["caption"] == "one text for three"
    assert report["captions"]["most_frequent"][0]["count"] == 3
    assert report["images"]["aspect_ratio"]["max"] == 10
    assert next(item for item in report["captions"]["frequent_words"] if item["word"] == "object") == {
        "word": "object",
        "count": 30,
    }
    by_name = {Path(shard["path"]).name: shard for shard in report["shards"]}
    assert by_name["00004.tar"]["findings"] == {"truncated shard": 1, "no caption": 1}
    assert by_name["00002.tar"]["stored"] == 3


def test_long_captions_are_measured_and_shortened(tmp_path: Path) -> None:
    members = [*pairs(0, 1), *pair(1, photo(0), b"word " * 500)]
    report = check(write_shard(tmp_path / "a.tar", members))
    assert report.num_cut == 1
    assert report.statistics["num_tokens"]["max"] == 502
    write_report(report, tmp_path)
    assert "word " * 100 not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_summary_takes_captions_as_text(tmp_path: Path) -> None:
    report = check(write_shard(tmp_path / "a.tar", pair(0, photo(0, (9, 9)), NASTY.encode())))
    console = Console(file=io.StringIO(), width=400, force_terminal=True)
    print_summary(report, console)
    text = console.file.getvalue()
    assert "\ufffd[31m[red]&amp;" in text
    assert "tiny image" in text
    assert "suspects, which training skips or survives" in text


def test_an_empty_set_has_a_page(tmp_path: Path) -> None:
    report = check(tmp_path / "none.tar")
    write_report(report, tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no usable pair" in page.text
    print_summary(report, Console(file=io.StringIO()))

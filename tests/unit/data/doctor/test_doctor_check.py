"""The whole check: every planted defect is found as often as it was planted, whatever the processes."""

import json
import os
from pathlib import Path

import pytest
from doctor_kit import (
    PAIR_DEFECTS,
    SHARD_DEFECTS,
    check,
    counts,
    pair,
    pairs,
    photo,
    suspicious_pairs,
    write_damaged_shards,
    write_shard,
    write_statistics,
)

from mixreorg.data.doctor import work
from mixreorg.data.doctor.report import CheckConfig
from mixreorg.data.shards import file_digest
from mixreorg.errors import MixreorgError


def test_healthy_pairs_have_no_findings(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "00000.tar", pairs(0, 30))
    write_statistics(shard, 40, 30)
    report = check(tmp_path, expect=30)
    assert counts(report) == {}
    assert report.exit_code == 0
    assert (report.num_indexed, report.num_examined, report.num_usable) == (30, 30, 30)
    assert (report.asked, report.stored) == (40, 30)
    assert len(report.healthy) == 24


def test_every_defect_of_a_pair_is_counted(tmp_path: Path) -> None:
    report = check(write_shard(tmp_path / "00000.tar", suspicious_pairs()))
    assert counts(report) == PAIR_DEFECTS
    assert report.exit_code == 1
    unusable = {"no caption": 1, "damaged caption": 2, "damaged image": 3, "image too large": 1}
    assert report.num_usable == report.num_examined - sum(unusable.values())
    keys = {finding.kind.name: [example.key for example in finding.examples] for finding in report.findings}
    assert keys["damaged image"] == ["000027", "000028", "000029"]
    assert keys["duplicate member"] == ["000024.txt"]
    assert keys["duplicate image"] == ["000035", "000034"]
    assert keys["tiny image"] == ["000031", "000032"]
    assert {healthy.key for healthy in report.healthy} <= {
        f"{number:06}" for number in (*range(10), 24, *range(34, 40))
    }


def test_every_defect_of_a_shard_is_counted(tmp_path: Path) -> None:
    report = check(*write_damaged_shards(tmp_path))
    # The cut shard loses the caption of its third image, the damaged one a whole pair.
    assert counts(report) == {**SHARD_DEFECTS, "no caption": 1}
    assert report.exit_code == 2
    assert report.num_usable == 14
    named = {finding.kind.name: [Path(item.shard).name for item in finding.examples] for finding in report.findings}
    assert sorted(named["missing shard"]) == ["00001.tar", "00003.tar", "set-10-of-11.tar", "set-8-of-11.tar"]
    assert named["unreadable shard"] == ["00006.tar", "00007.tar"]
    assert named["truncated shard"] == ["00004.tar"]
    assert named["damaged shard"] == ["00005.tar"]
    assert named["short shard"] == ["00002.tar"]
    assert named["shard without statistics"] == ["00008.tar"]


def test_the_report_does_not_depend_on_processes_or_on_who_made_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_WORTHWHILE_SECONDS", 0)
    for shard in range(9):
        write_shard(tmp_path / f"{shard}.tar", [*pairs(10 * shard, 2), *suspicious_pairs()[20:60]])
    reports = [check(tmp_path, workers=workers, index=index) for workers, index in ((1, False), (2, True), (1, True))]
    states = [{part.index for part in report.parts} for report in reports]
    assert states == [{"none"}, {"written"}, {"fresh"}]
    assert [report.effort.num_processes for report in reports] == [1, 2, 1]
    values = [report.to_dict() for report in reports]
    for value in values:
        del value["run"], value["settings"]
        for shard in value["shards"]:
            del shard["index"]
    assert values[0] == values[1] == values[2]
    assert counts(reports[0])["duplicate pair"] > 8


def test_expected_numbers(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [*pairs(0, 97), *pair(97, b"damaged")])
    assert counts(check(shard, expect=97)) == {"damaged image": 1}
    few = check(shard, expect=100, tolerance=0.03)
    assert counts(few) == {"few missing pairs": 3, "damaged image": 1}
    assert few.exit_code == 1
    many = check(shard, expect=100, tolerance=0.02)
    assert counts(many) == {"missing pairs": 3, "damaged image": 1}
    assert many.exit_code == 2
    assert many.findings[0].examples[0].detail == "97 of 100, 3.00% are missing"


def test_nothing_usable_is_serious(tmp_path: Path) -> None:
    report = check(write_shard(tmp_path / "a.tar", pair(0, b"damaged")), tmp_path / "b.tar")
    assert counts(report) == {"missing shard": 1, "no usable pair": 1, "damaged image": 1}
    assert report.exit_code == 2
    assert report.to_dict()["captions"]["words"]["histogram"]


def test_allowed_findings_do_not_count(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [*pairs(0, 3), *pair(3, photo(0)), *pair(4, caption=b"1")])
    report = check(shard, allow=["caption without letters", "duplicate image"])
    assert report.exit_code == 0
    assert [(finding.kind.name, finding.severity) for finding in report.findings] == [
        ("duplicate image", "allowed"),
        ("caption without letters", "allowed"),
    ]
    assert check(shard, allow=["duplicate image"]).exit_code == 1
    with pytest.raises(MixreorgError, match="did you mean 'duplicate image'"):
        check(shard, allow=["duplicate images"])


def test_a_sample_is_spread_evenly(tmp_path: Path) -> None:
    for shard in range(4):
        write_shard(tmp_path / f"{shard}.tar", pairs(100 * shard, 25))
    write_shard(tmp_path / "4.tar", [*pairs(400, 24), *pair(424, b"damaged")])
    report = check(tmp_path, sample=10, expect=125)
    assert (report.num_indexed, report.num_examined, report.num_usable) == (125, 10, 10)
    assert report.exit_code == 0
    assert [round(report.num_examined * part.num_pairs / report.num_indexed) for part in report.parts] == [2] * 5
    assert check(tmp_path, sample=1000).num_examined == 125
    assert counts(check(tmp_path, sample=124)) == {}
    assert counts(check(tmp_path)) == {"damaged image": 1}


def test_a_changed_shard_is_indexed_anew(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", pairs(0, 3))
    check(shard)
    write_shard(shard, pairs(0, 5))
    report = check(shard)
    assert counts(report) == {"stale index": 1}
    assert report.num_usable == 5
    assert counts(check(shard)) == {}
    (tmp_path / "a.tar.index").write_bytes(b"nonsense")
    assert counts(check(shard)) == {"damaged index": 1}


def digest_of(shard: Path) -> str:
    with shard.open("rb") as file:
        return file_digest(file, shard.stat().st_size)


@pytest.mark.parametrize("index", [True, False])
def test_captions_that_were_mended_in_their_place_are_indexed_anew(tmp_path: Path, index: bool) -> None:
    """The digest, which holds the size, looks at other places."""
    shard = write_shard(tmp_path / "a.tar", pairs(0, 60))
    check(shard)
    before = digest_of(shard)
    caption = pair(30, caption=b"now a longer text about number 30")
    write_shard(shard, [*pairs(0, 30), *caption, *pairs(31, 29)])
    assert digest_of(shard) == before
    sampled = check(shard, sample=30)
    assert counts(sampled) == {"unreadable shard": 1}
    assert "a.tar changed after it was indexed" in sampled.findings[0].examples[0].detail
    report = check(shard, index=index)
    assert counts(report) == {"stale index": 1}
    assert report.parts[0].index == ("written" if index else "none")
    assert report.num_usable == 60
    assert counts(check(shard)) == ({} if index else {"stale index": 1})


def test_indexes_in_a_folder_of_their_own(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "data" / "a.tar", pairs(0, 3))
    settings = {"index_dir": str(tmp_path / "indexes")}
    assert check(shard, **settings).parts[0].index == "written"
    assert check(shard, **settings).parts[0].index == "fresh"
    assert check(shard, index=False).parts[0].index == "none"
    assert [file.name for file in shard.parent.iterdir()] == ["a.tar"]
    (tmp_path / "file").touch()
    with pytest.raises(MixreorgError, match="name a folder for the indexes"):
        check(shard, index_dir=str(tmp_path / "file"))


def test_captions_files_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(photo(1))
    (tmp_path / "2.jpg").write_bytes(photo(2)[:600])
    lines = ["image,caption", "1.jpg,a red box", "2.jpg,a blue box", "3.jpg,gone", "1.jpg,IMG_0001", "1.jpg,"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    report = check(tmp_path)
    expected = {"no image": 1, "no caption": 1, "damaged image": 1, "duplicate image": 1, "caption is a file name": 1}
    assert counts(report) == expected
    assert report.num_usable == 2


def test_shards_behind_urls(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "00000.tar", pairs(0, 3))
    write_shard(tmp_path / "data" / "00002.tar", [*pairs(20, 3), *pair(30, b"damaged")])
    report = check(f"file://{tmp_path}/data/{{00000,00002}}.tar", cache_dir=str(tmp_path / "cache"))
    assert counts(report) == {"missing shard": 1, "damaged image": 1}
    assert report.findings[0].examples[0].shard == f"file://{tmp_path}/data/00001.tar"
    assert {part.index for part in report.parts} == {"cached"}
    assert not list((tmp_path / "data").glob("*.index"))
    gone = check(f"file://{tmp_path}/data/00009.tar", cache_dir=str(tmp_path / "cache"))
    assert counts(gone) == {"unreadable shard": 1, "no usable pair": 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [("{root}/x.txt", "neither a shard"), ("{root}", "holds neither shards"), ("pipe:cat x", "commands are not run")],
)
def test_what_is_no_set_of_pairs_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "x.txt").touch()
    with pytest.raises(MixreorgError, match=message):
        check(spec.format(root=tmp_path))


def test_real_pairs(shared: Path, tmp_path: Path) -> None:
    report = check(shared / "data" / "pairs", index_dir=str(tmp_path))
    assert counts(report) == {"duplicate image": 195 - 39}
    assert report.num_usable == 195
    assert report.num_distinct_images == 39
    assert {repeat.count for repeat in report.frequent_images} == {5}
    assert json.loads(json.dumps(report.to_dict()))["images"]["formats"] == {"JPEG": 195}


def test_a_killed_process_is_one_clear_error() -> None:
    with work.Crew(CheckConfig(), num_processes=2) as crew, pytest.raises(MixreorgError, match="fewer --workers"):
        list(crew._share(os._exit, [1, 1]))

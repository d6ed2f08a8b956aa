"""Which shards should be there."""

import json
from pathlib import Path

import pytest

from mixreorg.data.doctor.inventory import (
    Statistics,
    display_name,
    find_parts,
    numbering_gaps,
    orphaned_statistics,
    read_statistics,
)
from mixreorg.errors import MixreorgError


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["00000.tar", "00001.tar", "00003.tar"], ["00002.tar"]),
        (["a/x-08.tar", "a/x-11.tar", "b/x-10.tar"], ["a/x-09.tar", "a/x-10.tar"]),
        (["9.tar", "12.tar"], ["10.tar", "11.tar"]),
        (["99.tar", "101.tar"], ["100.tar"]),
        (["cc-2021-001.tar", "cc-2022-003.tar"], []),
        (["1-of-9.tar", "4-of-9.tar"], ["2-of-9.tar", "3-of-9.tar"]),
        (["s3://bucket/a/0.tar", "s3://bucket/a/2.tar"], ["s3://bucket/a/1.tar"]),
        (["1.tar", "20210101.tar"], []),
        (["b.tar", "a.tar", "captions.csv"], []),
        (["5.tar"], []),
        ([], []),
    ],
)
def test_gaps_in_numbers(names: list[str], missing: list[str]) -> None:
    assert numbering_gaps(names) == missing


def test_statistics_files(tmp_path: Path) -> None:
    shard = str(tmp_path / "00000.tar")
    file = tmp_path / "00000_stats.json"
    assert read_statistics(shard) is None
    file.write_text(json.dumps({"count": 10, "successes": 8, "status_dict": {}}))
    assert read_statistics(shard) == Statistics(10, 8)
    for content in ("[]", "{}", '{"count": 10}', '{"count": "10", "successes": 8}', "{", "\udcff"):
        file.write_text(content, errors="surrogateescape")
        with pytest.raises(ValueError):
            read_statistics(shard)


def test_statistics_without_their_shard(tmp_path: Path) -> None:
    for name in ("0.tar", "0_stats.json", "1_stats.json", "2.tar", "2_stats.json", "notes.json"):
        (tmp_path / name).touch()
    assert orphaned_statistics([str(tmp_path / "0.tar")]) == [str(tmp_path / "1.tar")]
    assert orphaned_statistics(["s3://bucket/0.tar"]) == []


def test_parts_are_named_once_and_missing_ones_kept_apart(tmp_path: Path) -> None:
    for name in ("0.tar", "2.tar", "{3}.tar"):
        (tmp_path / name).touch()
    root = str(tmp_path)
    found = find_parts([f"{root}/0.tar", f"{root}/{{0..2}}.tar", f"{root}/x*.tar", f"{root}/{{3}}.tar"])
    assert found.present == [f"{root}/0.tar", f"{root}/2.tar", f"{root}/{{3}}.tar"]
    assert found.missing == [f"{root}/1.tar", f"{root}/x*.tar"]
    assert found.listed == []
    assert find_parts([root]).listed == [f"{root}/{name}" for name in ("0.tar", "2.tar", "{3}.tar")]


def test_a_list_of_parts_may_be_longer_than_a_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "000.tar").touch()
    names = [f"{number:03d}" for number in range(100)]
    found = find_parts([f"{tmp_path}/{{{','.join(names)}}}.tar"])
    assert found.present == [f"{tmp_path}/000.tar"]
    assert len(found.missing) == 99


@pytest.mark.parametrize("spec", ["", "  "])
def test_a_name_of_nothing_is_an_error(spec: str) -> None:
    with pytest.raises(MixreorgError, match="names no data"):
        find_parts([spec])


def test_secrets_in_urls_are_not_shown() -> None:
    assert display_name("https://me:secret@a.example/b.tar?key=secret") == "https://a.example/b.tar"
    assert display_name("/data/what?/#1.tar") == "/data/what?/#1.tar"

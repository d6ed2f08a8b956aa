"""Indexes on disk: the same source with and without, never used when stale or damaged."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from shard_kit import good_members, image_bytes, write_shard

from mixreorg.data import parts, shards
from mixreorg.data.pairs import PairSource, open_pairs
from mixreorg.data.problems import Problems
from mixreorg.data.shard_index import index_path, load_headers, read_index, write_index
from mixreorg.errors import MixreorgError


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A shard with an awkward key and everything an index can find wrong."""
    members = [
        *good_members(0, 3).items(),
        ("folder/\udcff\u00e4.jpg", image_bytes(suffix="JPEG", size=(30, 20))),
        ("folder/\udcff\u00e4.txt", b"awkward"),
        ("8.txt", b"no image"),
        ("9.png", image_bytes()),
        ("00002.txt", b"twice"),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50),
        ("cut.txt", b"unreadable header"),
    ]
    shard = write_shard(tmp_path / "data" / "a.tar", members)
    shard.write_bytes(shard.read_bytes().rstrip(b"\0"))
    return shard


def content(source: PairSource) -> list[object]:
    pairs = [source.read(index) for index in range(len(source))]
    return [pair and (pair.key, pair.shard, pair.caption, pair.image.tobytes()) for pair in pairs]


def forbid_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(path: Path) -> None:
        raise AssertionError(f"{path} was scanned")

    monkeypatch.setattr(parts, "scan_shard", scan)


@pytest.mark.parametrize("beside", [True, False])
def test_an_index_gives_the_same_source(damaged: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    folder = None if beside else damaged.parent.parent / "indexes"
    plain = open_pairs(damaged)
    found = Problems()
    shard = write_index(damaged, found, folder)
    assert set(found.counts) == {"no image", "no caption", "duplicate member", "damaged shard", "truncated shard"}
    assert len(shard) == 5
    assert index_path(damaged, folder).is_file()
    assert (damaged.parent / "a.tar.index").is_file() == beside
    forbid_scans(monkeypatch)
    indexed = open_pairs(damaged, index_dir=folder)
    assert indexed.problems.counts == plain.problems.counts
    assert indexed.problems.examples == plain.problems.examples
    assert content(indexed) == content(plain)
    assert content(indexed)[3][0] == "folder/\udcff\u00e4"
    assert indexed.fingerprint() == plain.fingerprint()


def test_an_index_tells_the_headers_of_images(damaged: Path) -> None:
    assert load_headers(damaged) is None
    write_index(damaged, Problems())
    headers = load_headers(damaged)
    assert headers is not None
    assert headers.sizes.tolist() == [[12, 8], [12, 8], [12, 8], [30, 20], [0, 0]]
    assert [headers.format(index) for index in range(5)] == ["PNG", "PNG", "PNG", "JPEG", None]


def test_a_header_behind_a_long_profile_is_read(tmp_path: Path) -> None:
    photo = image_bytes(suffix="JPEG", icc_profile=os.urandom(100_000))
    write_index(write_shard(tmp_path / "a.tar", {"1.jpg": photo, "1.txt": b"one"}), Problems())
    headers = load_headers(tmp_path / "a.tar")
    assert headers is not None
    assert headers.sizes.tolist() == [[12, 8]]


def test_a_stale_index_is_noticed_and_not_used(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 4))
    write_index(shard, Problems())
    old = shard.stat()
    write_shard(shard, good_members(4, 4))
    os.utime(shard, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert shard.stat().st_size == old.st_size
    source = open_pairs(shard)
    assert list(source.captions()) == [f"caption {number}" for number in range(4, 8)]
    assert source.problems.counts == {"stale index": 1}
    assert str(shard) in source.problems.summary()
    write_index(shard, Problems())
    assert open_pairs(shard).problems.counts == {}
    write_shard(shard, good_members(4, 9))
    assert len(open_pairs(shard)) == 9


def write_mended(path: Path, texts: dict[int, bytes]) -> Path:
    members = []
    for number in range(40):
        members.append((f"{number:02}.png", bytes([number]) * 5000))
        members.append((f"{number:02}.txt", texts.get(number, b"a photo of a cat")))
    return write_shard(path, members)


def test_captions_that_were_mended_in_their_place_are_noticed(tmp_path: Path) -> None:
    """Neither size nor digest tell: one caption has another length, and of two others the second one moved."""
    shard = write_mended(tmp_path / "a.tar", {20: b"x" * 600})
    write_index(shard, Problems())
    with shard.open("rb") as file:
        old = shards.file_digest(file, shard.stat().st_size)
    write_mended(shard, {1: b"a cat", 3: b"a photo of a cot", 19: b"a dog " * 100})
    with shard.open("rb") as file:
        assert shards.file_digest(file, shard.stat().st_size) == old
    source = open_pairs(shard)
    part = source._parts[0]
    assert source.problems.counts == {}
    assert part.read(0)[1] == "a photo of a cat"
    assert part.read(3)[1] == "a photo of a cot"
    changed = r"a\.tar changed after it was indexed; mixreorg data check, .* writes its index again$"
    for index in (1, 19, 20):
        for read in (part.read, part.caption):
            with pytest.raises(MixreorgError, match=changed):
                read(index)
    assert not part.fits()
    write_index(shard, Problems())
    renewed = open_pairs(shard)._parts[0]
    assert renewed.fits()
    assert [renewed.read(index)[1] for index in (0, 1, 19)] == ["a photo of a cat", "a cat", ("a dog " * 100).strip()]


@pytest.mark.parametrize("kind", ["base-256", "v7", "pax"])
def test_every_kind_of_header_belongs_to_its_member(tmp_path: Path, kind: str) -> None:
    content = bytearray()
    for name, data in good_members(0, 2).items():
        header = shards.tarfile.TarInfo(name)
        header.size, header.mtime = len(data), 0.5
        block = bytearray(header.tobuf(shards.tarfile.PAX_FORMAT if kind == "pax" else shards.tarfile.GNU_FORMAT))
        if kind == "base-256":
            block[124:136] = b"\x80" + len(data).to_bytes(11, "big")
        if kind == "v7":
            block[257:512] = bytes(255)
        if kind != "pax":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        content += block + data + bytes(-len(data) % 512)
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    write_index(tmp_path / "a.tar", Problems())
    source = open_pairs(tmp_path / "a.tar")
    assert source._parts[0].fits()
    assert [pair and pair.caption for pair in map(source.read, range(2))] == ["caption 0", "caption 1"]


def test_a_stale_index_in_one_place_does_not_hide_a_fresh_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 4))
    write_index(shard, Problems(), tmp_path / "indexes")
    write_shard(shard, good_members(4, 4))
    write_index(shard, Problems())
    forbid_scans(monkeypatch)
    source = open_pairs(shard, index_dir=tmp_path / "indexes")
    assert next(iter(source.captions())) == "caption 4"
    assert source.problems.counts == {"stale index": 1}


def test_indexes_of_namesakes_share_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        write_index(
            write_shard(tmp_path / str(number) / "0.tar", good_members(number, 1)), Problems(), tmp_path / "indexes"
        )
    source = open_pairs([tmp_path / "0", tmp_path / "1"], index_dir=tmp_path / "indexes")
    assert list(source.captions()) == ["caption 0", "caption 1"]
    assert source.problems.counts == {}


def test_a_damaged_index_is_noticed_and_not_used(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 4))
    write_index(shard, Problems())
    index = index_path(shard)
    whole = index.read_bytes()
    arrays = safetensors.numpy.load(whole)
    with safetensors.safe_open(index, "numpy") as file:
        metadata = file.metadata()
    outside = arrays | {"extents": arrays["extents"] + np.uint32(1000)}
    unsorted = arrays | {"key_ends": arrays["key_ends"][[1, 0, 2, 3]]}
    short = arrays | {"key_ends": arrays["key_ends"][:-1]}
    for broken in (
        b"",
        whole[:100],
        whole[:-4],
        b"x" * 500,
        safetensors.numpy.save(arrays),
        safetensors.numpy.save(arrays, metadata | {"problems": "["}),
        safetensors.numpy.save(arrays, metadata | {"format": "another"}),
        safetensors.numpy.save(outside, metadata),
        safetensors.numpy.save(unsorted, metadata),
        safetensors.numpy.save(short, metadata),
    ):
        index.write_bytes(broken)
        source = open_pairs(shard)
        assert source.problems.counts == {"damaged index": 1}
        assert len(list(source.captions())) == 4


def test_an_index_of_no_samples(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"1.txt": b"no image"})
    write_index(shard, Problems())
    found = Problems()
    indexed = read_index(shard, found)
    assert indexed is not None
    assert len(indexed) == 0
    assert found.counts == {"no image": 1}


def test_an_index_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 1))
    (tmp_path / "file").touch()
    with pytest.raises(MixreorgError, match=r"cannot write .*; name a folder for the indexes"):
        write_index(shard, Problems(), tmp_path / "file" / "indexes")
    assert read_index(shard, Problems()) is None


def test_the_fingerprint_is_of_the_files_and_not_of_their_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for number in range(3):
            write_shard(tmp_path / folder / f"{number}.tar", good_members(number * 2, 2))
    whole = open_pairs(tmp_path / "a").fingerprint()
    assert whole == open_pairs(tmp_path / "b").fingerprint()
    names = [str(tmp_path / "a" / f"{number}.tar") for number in range(3)]
    others = [
        open_pairs(names[:2]),
        open_pairs(f"{tmp_path}/a/{{2,1,0}}.tar"),
        open_pairs(names),  # three sources, to which weights would apply
    ]
    content = bytearray((tmp_path / "b" / "1.tar").read_bytes())
    content[600] ^= 1
    (tmp_path / "b" / "1.tar").write_bytes(content)
    others.append(open_pairs(tmp_path / "b"))
    (tmp_path / "b" / "1.tar").rename(tmp_path / "b" / "1x.tar")
    others.append(open_pairs(tmp_path / "b"))
    assert len({whole, *(source.fingerprint() for source in others)}) == 6


def test_the_fingerprint_of_a_captions_file(tmp_path: Path) -> None:
    fingerprints = []
    for folder, caption in [("a", "a dog"), ("b", "a dog"), ("c", "a cat")]:
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
        (tmp_path / folder / "captions.csv").write_text(f"image,caption\n1.png,{caption}\n")
        fingerprints.append(open_pairs(tmp_path / folder).fingerprint())
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_many_shards_are_indexed_in_processes_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        write_shard(tmp_path / f"{number}.tar", good_members(number, 1) | {f"{number}x.txt": b"no image"})
    monkeypatch.setattr(parts.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(parts, "scan_shard", shards.scan_shard)
    started = []
    pool = parts.WorkerPool
    monkeypatch.setattr(parts, "WorkerPool", lambda *options: started.append(options) or pool(*options))
    source = open_pairs(tmp_path)
    assert len(started) == 1
    assert list(source.captions()) == [f"caption {number}" for number in range(9)]
    assert [problem.key for problem in source.problems.examples["no image"]] == [f"{number}x" for number in range(5)]
    (tmp_path / "5.tar").write_bytes(b"no tar at all")
    with pytest.raises(MixreorgError, match=r"^[^\n]*5\.tar is not an uncompressed tar file[^\n]*$"):
        open_pairs(tmp_path)


def test_a_gigantic_member_is_left_out(tmp_path: Path) -> None:
    """Sizes are kept in 32 bits; the file has a hole, so that it takes no space."""
    shard = write_shard(tmp_path / "a.tar", {"1.png": image_bytes(), "1.txt": b"one"})
    with shard.open("r+b") as file:
        header = shards.tarfile.TarInfo("0.png")
        header.size = 1 << 32
        whole = file.read()
        file.seek(0)
        file.write(header.tobuf(shards.tarfile.GNU_FORMAT))
        file.seek((1 << 32) + 512)
        file.write(whole)
    source = open_pairs(shard)
    assert source.problems.counts == {"image too large": 1, "no image": 1}
    assert list(source.captions()) == ["one"]

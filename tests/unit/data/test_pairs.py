"""Caption pairs: layouts, patterns, damaged input, order."""

import errno
import pickle
import random
import tarfile
from pathlib import Path

import pytest
from shard_kit import good_members, image_bytes, write_shard

from mixreorg.data.decode import decode_image
from mixreorg.data.pairs import open_pairs
from mixreorg.data.problems import Problem, Problems
from mixreorg.data.specs import expand
from mixreorg.errors import MixreorgError

REAL_SHARDS = Path(__file__).parents[3].parent / "shared" / "data" / "pairs"


def captions(spec: str | list[str]) -> list[str]:
    source = open_pairs(spec)
    return [pair.caption for pair in map(source.read, range(len(source))) if pair]


def test_reads_image_and_caption_of_each_sample(tmp_path: Path) -> None:
    source = open_pairs(write_shard(tmp_path / "a.tar", good_members(3, 4)))
    assert len(source) == 4
    for index in (2, 0, 3, 1):
        pair = source.read(index)
        assert pair is not None
        assert (pair.key, pair.caption) == (f"{index + 3:05}", f"caption {index + 3}")
        assert pair.shard == str(tmp_path / "a.tar")
        assert (pair.image.mode, pair.image.size) == ("RGB", (12, 8))
        assert pair.image.getpixel((0, 0)) == (index + 3,) * 3
    assert list(source.captions()) == [f"caption {number}" for number in range(3, 7)]
    assert len(source.problems) == 0
    with pytest.raises(IndexError):
        source.read(4)
    with pytest.raises(IndexError):
        source.read(-1)


def test_layouts_of_members(tmp_path: Path) -> None:
    members = [
        ("train/sub.dir/1.jpg", image_bytes(suffix="JPEG")),
        ("train/sub.dir/1.txt", b"  folder with a dot\n"),
        ("2.JPEG", image_bytes(suffix="JPEG")),
        ("2.json", b'{"caption": "only json"}'),
        ("3.webp", image_bytes(suffix="WEBP")),
        ("3.txt", b" \n"),
        ("3.json", b'{"caption": "blank text file"}'),
        ("4.txt", "\ufefföre änd".encode()),
        ("4.seg.png", image_bytes()),
        ("4.png", image_bytes()),
        ("README", b"not a sample"),
        ("__MACOSX/._4.png", b"not a sample"),
        (f"{'long' * 60}.png", image_bytes()),
        (f"{'long' * 60}.txt", b"long name"),
    ]
    shard = write_shard(tmp_path / "a.tar", members)
    assert captions(str(shard)) == [
        "folder with a dot",
        "only json",
        "blank text file",
        "öre änd",
        "long name",
    ]
    assert open_pairs(shard).problems.summary() == ""


def test_several_shards_are_concatenated_in_the_order_of_the_specs(tmp_path: Path) -> None:
    for number in range(3):
        write_shard(tmp_path / f"{number:03}.tar", good_members(number * 2, 2))
    write_shard(tmp_path / ".001-half-written.tar", good_members(50, 2))
    everything = [f"caption {number}" for number in range(6)]
    assert captions(f"{tmp_path}/{{000..002}}.tar") == everything
    assert captions(f"{tmp_path}/*.tar") == everything
    assert captions(str(tmp_path)) == everything
    assert captions(f"{tmp_path}/00{{0,1}}*.tar") == everything[:4]
    assert captions([f"{tmp_path}/002.tar", f"{tmp_path}/000.tar"]) == everything[4:] + everything[:2]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{root}/{{000..003}}.tar", r"missing: .*002\.tar, .*003\.tar; "),
        ("{root}/{{000..900}}.tar", r"002\.tar.* and 896 more"),
        ("{root}/x*.tar", r"missing: .*x\*\.tar"),
        ("{root}/none.tar", r"missing: .*none\.tar"),
        ("{root}/" + "n" * 300 + ".tar", r"missing: .*nnn\.tar"),
        ("{root}/{{000..001.tar", "braces do not match"),
        ("{root}/empty", r"neither shards .* nor captions"),
        ("{root}/note.md", "neither a shard"),
        ("{root}/fake.tar", "not an uncompressed tar"),
        ("{root}/packed.tar", "not an uncompressed tar"),
        ("{root}/zero.tar", "not an uncompressed tar"),
        ("{root}/nothing.tar", "no caption pairs"),
        ("pipe:cat 000.tar", "commands are not run"),
        ("", r"^'' names no data; name shards, a folder or a captions file$"),
        (" \t", r"names no data"),
    ],
)
def test_what_cannot_be_opened_is_one_clear_error(tmp_path: Path, spec: str, message: str) -> None:
    write_shard(tmp_path / "000.tar", good_members(0, 1))
    write_shard(tmp_path / "001.tar", good_members(1, 1))
    write_shard(tmp_path / "nothing.tar", {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.md").write_text("no")
    (tmp_path / "fake.tar").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "zero.tar").write_bytes(b"")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.txt"))
    with pytest.raises(MixreorgError, match=message):
        open_pairs(spec.format(root=tmp_path))


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a fault of the listing: to an administrator, who may run the tests, no folder is closed."""

    def refuse(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    message = r"cannot list the folder /.*: Permission denied; make it readable or name"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.raises(MixreorgError, match=message):
            open_pairs(tmp_path)


def test_a_list_of_shards_may_be_longer_than_a_name_of_a_file(tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(0, 120, 2)]
    shards = [tmp_path / f"{name}.tar" for name in names]
    for shard in shards:
        shard.touch()
    assert expand(f"{tmp_path}/{{{','.join(names)}}}.tar") == shards


def test_samples_without_image_or_caption_are_left_out_and_counted(tmp_path: Path) -> None:
    members = good_members(0, 2) | {
        "7.png": image_bytes(),
        "8.txt": b"no image",
        "9.png": b"",
        "9.txt": b"empty image file",
        "10.png": image_bytes(),
        "10.txt": b"",
    }
    source = open_pairs(write_shard(tmp_path / "a.tar", members))
    assert len(source) == 2
    assert source.problems.counts == {"no image": 2, "no caption": 2}
    shard = str(tmp_path / "a.tar")
    assert source.problems.examples["no image"] == [
        Problem("no image", shard, "8"),
        Problem("no image", shard, "9"),
    ]
    assert f"no caption: 2 ({shard} 7, {shard} 10)" in source.problems.summary()


def test_damaged_samples_give_none_and_are_counted_once(tmp_path: Path) -> None:
    members = good_members(0, 1)
    photo = image_bytes(200, (64, 64), "JPEG")
    unusable = {
        "cut": ("damaged image", photo[: len(photo) // 2], b"a caption"),
        "noise": ("damaged image", b"\x89PNG\r\n\x1a\n" + b"x" * 50, b"a caption"),
        "text": ("damaged image", b"<html>not found</html>", b"a caption"),
        "eps": ("damaged image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"a caption"),
        "format": ("damaged image", b"P6 2 1 255 abcdef", b"a caption"),
        "blank": ("no caption", photo, b"   "),
        "latin": ("damaged caption", photo, "caf\xe9".encode("latin-1")),
    }
    for key, (_, image, text) in unusable.items():
        members |= {f"{key}.jpg": image, f"{key}.txt": text}
    members |= {"null.jpg": photo, "null.json": b'{"caption": null}'}
    members |= {"broken.jpg": photo, "broken.json": b'{"caption": "x'}
    members |= {"deep.jpg": photo, "deep.json": b"[" * 100_000}
    source = open_pairs(write_shard(tmp_path / "a.tar", members))
    for _ in range(2):
        read = [source.read(index) for index in range(len(source))]
        assert [pair is None for pair in read] == [False, *[True] * 10]
    assert source.problems.counts == {"damaged image": 5, "no caption": 2, "damaged caption": 3}
    for key, (kind, _, _) in unusable.items():
        assert Problem(kind, str(tmp_path / "a.tar"), key) in source.problems.examples[kind]


def test_read_or_next_replaces_by_the_next_usable_pair(tmp_path: Path) -> None:
    for number in range(2):
        members = good_members(number * 4, 4)
        members[f"{number * 4 + 2:05}.png"] = b"damaged"
        members[f"{number * 4 + 3:05}.png"] = b"damaged"
        write_shard(tmp_path / f"{number}.tar", members)
    source = open_pairs(str(tmp_path))
    other = pickle.loads(pickle.dumps(open_pairs(str(tmp_path))))
    pair, problems = source.read_or_next(2, decode_image)
    assert pair.key == "00004"
    assert [problem[2] for problem in problems] == ["00002", "00003"]
    assert source.read_or_next(3, decode_image)[0].key == "00004"
    assert source.read_or_next(3, decode_image)[1] == []
    assert source.read_or_next(7, decode_image)[0].key == "00000"
    assert [other.read_or_next(index, decode_image)[0].key for index in (7, 3, 2)] == ["00000", "00004", "00004"]
    assert source.problems.counts == {"damaged image": 3}


def test_nothing_usable_is_an_error_not_an_endless_search(tmp_path: Path) -> None:
    members = good_members(0, 3)
    members |= {name: b"damaged" for name in members if name.endswith("png")}
    source = open_pairs(write_shard(tmp_path / "a.tar", members))
    with pytest.raises(MixreorgError, match="none of the 3 pairs"):
        source.read_or_next(1, decode_image)


def test_a_truncated_shard_keeps_its_whole_samples(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 6))
    with tarfile.open(shard) as archive:
        fourth = archive.getmember("00003.txt")
    content = shard.read_bytes()
    for cut in (fourth.offset_data + 2, fourth.offset + 100, fourth.offset, fourth.offset_data + 512):
        shard.write_bytes(content[:cut])
        source = open_pairs(shard)
        kept = 4 if cut > fourth.offset_data + 500 else 3
        assert [source.read(index).caption for index in range(len(source))] == [f"caption {n}" for n in range(kept)]
        assert source.problems.counts["truncated shard"] == 1, cut
        assert source.problems.counts["no caption"] == 4 - kept


def test_bytes_after_the_readable_part_are_reported(tmp_path: Path) -> None:
    """tarfile ends without a word at a damaged header, and before a second archive that was appended."""
    shard = write_shard(tmp_path / "a.tar", good_members(0, 6))
    content = shard.read_bytes()
    with tarfile.open(shard) as archive:
        header = archive.getmember("00003.png").offset
    shard.write_bytes(content[:header] + b"\xff" * 512 + content[header + 512 :])
    source = open_pairs(shard)
    assert len(source) == 3
    assert source.problems.counts == {"damaged shard": 1}
    shard.write_bytes(content + content)
    assert open_pairs(shard).problems.counts == {"damaged shard": 1}


def test_random_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    content = write_shard(tmp_path / "a.tar", good_members(0, 4)).read_bytes()[: 512 * 26]
    choose = random.Random(0)
    opened = 0
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(choose.randint(1, 40)):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        (tmp_path / "a.tar").write_bytes(damaged[: choose.randint(1, len(damaged))])
        try:
            source = open_pairs(tmp_path / "a.tar")
        except MixreorgError:
            continue
        opened += 1
        for index in range(len(source)):
            source.read(index)
        list(source.captions())
    assert opened > 100


def test_a_shard_that_goes_away_is_an_error(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", good_members(0, 4))
    source = open_pairs(shard)
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(MixreorgError, match=r"a\.tar became shorter"):
        source.read_or_next(3, decode_image)
    shard.unlink()
    with pytest.raises(MixreorgError, match=r"cannot read the shard .*a\.tar"):
        source.read_or_next(0, decode_image)


def test_duplicate_members_are_counted_and_the_last_one_counts(tmp_path: Path) -> None:
    members = [*good_members(0, 1).items(), ("00000.txt", b"corrected")]
    source = open_pairs(write_shard(tmp_path / "a.tar", members))
    assert [source.read(index).caption for index in range(len(source))] == ["corrected"]
    assert source.problems.counts == {"duplicate member": 1}


def write_links(path: Path, links: list[tuple[bytes, str, str]]) -> Path:
    """Whole pair ``a`` and captions of ``b`` to ``e``, then links of a kind: name and target."""
    members = {"sub/a.png": image_bytes(7), "sub/a.txt": b"caption a"} | {
        f"sub/{key}.txt": key.encode() for key in "bcde"
    }
    write_shard(path, members)
    with tarfile.open(path, "a") as archive:
        for kind, name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    return path


def test_hard_links_stand_for_earlier_members(tmp_path: Path) -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    links = [
        (hard, "sub/b.png", "sub/a.png"),
        (hard, "sub/c.png", "sub/b.png"),
        (hard, "sub/d.png", "sub/not there.png"),
        (soft, "sub/e.png", "a.png"),
        (soft, "sub/f.png", "a.png"),
        (soft, "sub/f.txt", "a.txt"),
        (hard, "sub/g.png", "sub/not there.png"),
        (soft, "sub/notes", "a.txt"),
        (tarfile.DIRTYPE, "sub/folder.png", ""),
    ]
    source = open_pairs(write_links(tmp_path / "a.tar", links))
    pairs = [source.read(index) for index in range(len(source))]
    assert [pair and (pair.key, pair.caption) for pair in pairs] == [
        ("sub/a", "caption a"),
        ("sub/b", "b"),
        ("sub/c", "c"),
    ]
    assert [pair.image.getpixel((0, 0)) for pair in pairs if pair] == [(7, 7, 7)] * 3
    assert source.problems.counts == {"no image": 4}
    assert [problem.key for problem in source.problems.examples["no image"]] == ["sub/d", "sub/e", "sub/f", "sub/g"]


def test_sparse_members_are_left_out_and_counted(tmp_path: Path) -> None:
    """Their bytes do not lie in one piece."""
    image = image_bytes(7)
    sparse = tarfile.TarInfo("0.png")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, len(image)
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(image))  # where the one piece lies
    header[483:495] = b"%011o\0" % (len(image) + 512)  # and a hole behind it
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    others = write_shard(tmp_path / "a.tar", {"0.txt": b"sparse", **good_members(1, 1)})
    others.write_bytes(header + image + bytes(-len(image) % 512) + others.read_bytes())
    with tarfile.open(others) as archive:
        assert archive.getmembers()[0].issparse()
    source = open_pairs(others)
    assert list(source.captions()) == ["caption 1"]
    assert source.problems.counts == {"no image": 1}


def test_images_that_dots_hide_are_counted(tmp_path: Path) -> None:
    image = image_bytes()
    members = {"shot.10.32.png": image, "shot.10.32.txt": b"hidden", "shot.10.33.PNG": image, "cut.2.png": image}
    # A further image of a whole pair is nothing that is missing.
    members |= {"cut.txt": b"hidden", "a.png": image, "a.txt": b"whole", "a.mask.png": image}
    source = open_pairs(write_shard(tmp_path / "a.tar", members))
    assert list(source.captions()) == ["whole"]
    assert source.problems.counts == {"dots in name": 3}
    hidden = [problem.key for problem in source.problems.examples["dots in name"]]
    assert hidden == ["shot.10.32.png", "shot.10.33.PNG", "cut.2.png"]


def test_a_folder_with_two_sources_is_ambiguous(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", good_members(0, 1))
    (tmp_path / "captions.csv").write_text("image,caption\n")
    with pytest.raises(MixreorgError, match=r"more than one source .*captions\.csv, .*0\.tar"):
        open_pairs(tmp_path)


def test_problems_keep_few_examples_and_count_all() -> None:
    problems = Problems()
    problems.extend([Problem("no image", "a.tar", str(number)) for number in range(1000)] * 2)
    assert len(problems) == 1000
    assert problems.summary() == "no image: 1,000 (a.tar 0, a.tar 1, a.tar 2, a.tar 3, a.tar 4, ...)"


@pytest.mark.skipif(not REAL_SHARDS.is_dir(), reason="the real shards are not there")
def test_real_shards() -> None:
    source = open_pairs(str(REAL_SHARDS / "coco-captions-{000000..000003}.tar"))
    assert len(source) == 195
    pairs = [source.read(index) for index in range(0, 195, 7)]
    assert all(pair.image.mode == "RGB" and min(pair.image.size) > 100 for pair in pairs)
    assert len(list(source.captions())) == 195
    assert source.problems.summary() == ""

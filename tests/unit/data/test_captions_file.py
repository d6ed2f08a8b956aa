"""Captions files: csv, tsv and jsonl, with the names people give their columns, and with mistakes."""

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from mixreorg.data.decode import decode_image
from mixreorg.data.pairs import open_pairs
from mixreorg.data.problems import Problem
from mixreorg.errors import MixreorgError


def write_image(path: Path, level: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (12, 8), (level, level, level)).save(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'image,caption\nx/1.png,"one, two"\n2.png,two\n'),
        ("captions.tsv", "\ufeffid\tTitle\tfilepath\n7\tone, two\tx/1.png\n8\ttwo\t2.png\n"),
        (
            "captions.jsonl",
            '{"file_name": "x/1.png", "text": "one, two"}\n\n{"file_name": "2.png", "text": "two"}\n',
        ),
    ],
)
def test_captions_files(tmp_path: Path, name: str, content: str) -> None:
    write_image(tmp_path / "x" / "1.png", 1)
    write_image(tmp_path / "2.png", 2)
    (tmp_path / name).write_text(content, encoding="utf-8")
    for spec in (tmp_path, tmp_path / name):
        source = open_pairs(spec)
        pairs = [source.read(index) for index in range(len(source))]
        assert [(pair.key, pair.caption) for pair in pairs] == [("x/1.png", "one, two"), ("2.png", "two")]
        assert [pair.image.getpixel((0, 0))[0] for pair in pairs] == [1, 2]
        assert list(source.captions()) == ["one, two", "two"]
        assert source.problems.summary() == ""


def test_long_captions_in_tables(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    caption = "a dog, " * 30_000
    (tmp_path / "captions.csv").write_text(f'image,caption\n1.png,"{caption}"\n1.png,short\n')
    source = open_pairs(tmp_path)
    assert list(source.captions()) == [caption.strip(), "short"]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"image": ' + "9" * 5000 + "}"], ids=["brackets", "digits"])
def test_lines_that_break_the_parser_are_damaged_lines(tmp_path: Path, line: str) -> None:
    write_image(tmp_path / "1.png")
    (tmp_path / "captions.jsonl").write_text(f'{line}\n{{"image": "1.png", "caption": "good"}}\n')
    source = open_pairs(tmp_path)
    assert len(source) == 1
    assert source.problems.counts == {"damaged line": 1}


def test_half_an_emoji_is_a_caption_as_any_other(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    fingerprints = set()
    for caption in (r"a dog \ud83d", r"a dog \ud83c", "a dog"):
        (tmp_path / "captions.jsonl").write_text(f'{{"image": "1.png", "caption": "{caption}"}}')
        fingerprints.add(open_pairs(tmp_path).fingerprint())
    assert len(fingerprints) == 3


def test_unusable_lines_of_captions_files_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    table = "image,caption\n1.png,good\n1.png,\n2.png,missing file\n,no name\n1.png,cut, here\n1.png\n"
    (tmp_path / "a.csv").write_text(table + f"{'long' * 99},swapped columns\n")
    source = open_pairs(tmp_path / "a.csv")
    assert len(source) == 1
    assert source.problems.counts == {"no caption": 2, "no image": 3, "damaged line": 1}
    assert source.problems.examples["damaged line"] == [Problem("damaged line", str(tmp_path / "a.csv"), "line 6")]
    (tmp_path / "a.jsonl").write_text('{"image": "1.png", "caption": "good"}\n{"image"\n[1]\n{"image": 3}\n')
    assert open_pairs(tmp_path / "a.jsonl").problems.counts == {"damaged line": 2, "no image": 1}
    (tmp_path / "1.png").unlink()
    assert source.read(0) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"photo,caption\n1.png,x\n", "it has: photo, caption"),
        ("a.csv", b"", "it has: nothing"),
        ("a.csv", b'image,caption\n1.png,"x\n2.png,y\n', "line 3.*mend the quoting"),
        ("a.tsv", b"image\tcaption\n1.png\tcaf\xe9\n", "not UTF-8"),
        ("a.jsonl", b"", "no caption pairs"),
        ("a.csv", b"image,caption\nnone.png,x\n", r"no image: 1 \(.*line 2 none\.png\)"),
    ],
)
def test_broken_captions_files_are_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MixreorgError, match=message) as caught:
        open_pairs(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_storage_that_cannot_be_read_for_a_while_replaces_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_image(tmp_path / "1.png")
    write_image(tmp_path / "2.png")
    (tmp_path / "captions.csv").write_text("image,caption\n1.png,one\n2.png,two\n")
    source = open_pairs(tmp_path)

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(MixreorgError, match=f"cannot read .*1.png: {os.strerror(number)}"):
            source.read_or_next(0, decode_image)
    pair, problems = source.read_or_next(0, decode_image)
    assert (pair.caption, problems) == ("one", [])


def test_a_missing_image_is_replaced_and_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    for number in (1, 2):
        write_image(tmp_path / "mount" / f"{number}.png")
    (tmp_path / "mount" / "captions.csv").write_text("image,caption\n1.png,one\n2.png,two\n")
    source = open_pairs(tmp_path / "mount")
    (tmp_path / "mount").rename(tmp_path / "lost")
    with pytest.raises(MixreorgError, match=r"cannot read .*1\.png.* captions file .*captions\.csv is missing too"):
        source.read_or_next(0, decode_image)
    (tmp_path / "lost").rename(tmp_path / "mount")
    (tmp_path / "mount" / "1.png").unlink()
    pair, problems = source.read_or_next(0, decode_image)
    assert (pair.caption, [problem.kind for problem in problems]) == ("two", ["no image"])

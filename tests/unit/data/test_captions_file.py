"""Captions files: csv, tsv and jsonl, with the names people give their columns, and with mistakes."""

from pathlib import Path

import pytest
from PIL import Image

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

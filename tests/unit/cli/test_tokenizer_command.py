"""``mixreorg data tokenizer`` from captions to a file."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mixreorg.cli.tokenizer_command import tokenizer
from mixreorg.errors import MixreorgError
from mixreorg.text.tokenizer import Tokenizer

app = typer.Typer()
app.command()(tokenizer)


def write_captions(folder: Path, name: str, captions: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "1.png").touch()
    file = folder / name
    file.write_text("image,caption\n" + "".join(f"1.png,{caption}\n" for caption in captions), encoding="utf-8")
    return file


def test_trains_on_all_sources_and_reports_what_was_left_out(tmp_path: Path) -> None:
    first = write_captions(tmp_path / "a", "captions.csv", ["ein roter hund", "ein roter ball", ""])
    second = write_captions(tmp_path / "b", "x.csv", ["赤い犬", "赤い花"])
    out = tmp_path / "new" / "tokenizer.json"
    arguments = ["--data", str(first.parent), "--data", str(second), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--vocab-size", "600", "--context-length", "16"])
    assert result.exit_code == 0, result.output
    assert "4 pairs" in result.output
    assert "no caption: 1" in result.output
    trained = Tokenizer.from_file(out)
    assert trained.context_length == 16
    assert f"{trained.vocab_size} token ids" in result.output
    assert [len(ids) for ids in trained.encode_ids(["roter", "赤い"])] == [3, 5]


def test_a_missing_source_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match=r"missing: .*none\.tar"):
        tokenizer([str(tmp_path / "none.tar")], tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []

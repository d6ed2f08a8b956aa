"""``mixreorg convert`` as a user meets it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mixreorg.cli.main import app, main
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.text.tokenizer import Tokenizer


def test_there_and_back_with_a_card(tiny_model: DualEncoder, tmp_path: Path) -> None:
    save_model(tiny_model, tmp_path / "model")
    arguments = ["convert", str(tmp_path / "model"), str(tmp_path / "hf"), "--to", "hf"]
    result = CliRunner().invoke(app, [*arguments, "--license", "mit", "--name", "me/tiny", "--data", "Made up."])
    assert result.exit_code == 0, result.output
    assert f"-> {tmp_path / 'hf'} (hf)" in result.output
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "license: mit" in card
    assert "# me/tiny" in card
    assert "Made up." in card
    assert load_model(tmp_path / "hf").config == tiny_model.config
    out = tmp_path / "groupvit.pth"
    assert CliRunner().invoke(app, ["convert", str(tmp_path / "hf"), str(out), "--to", "original"]).exit_code == 0
    assert load_model(out).config == tiny_model.config


def test_what_cannot_be_converted_is_one_message(
    tiny_config: DualEncoderConfig,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny_config.updated(image=tiny_config.image.updated(assignment="soft"))
    save_model(DualEncoder(config, tokenizer), tmp_path / "model")
    monkeypatch.setattr(
        "sys.argv", ["mixreorg", "convert", str(tmp_path / "model"), str(tmp_path / "hf"), "--to", "hf"]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "does not have: soft assignment (model.image.assignment=soft)" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "hf").exists()

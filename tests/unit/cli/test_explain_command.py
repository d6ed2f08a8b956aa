"""``mixreorg explain`` as a user meets it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model


@pytest.fixture
def arguments(varied_model: DualEncoder, tmp_path: Path) -> list[str]:
    save_model(varied_model, tmp_path / "model")
    Image.radial_gradient("L").resize((90, 60)).convert("RGB").save(tmp_path / "photo.png")
    classes = "dog, cat=cat|kitten, car, grass, sand, photo, cow"
    return ["explain", str(tmp_path / "photo.png"), "--model", str(tmp_path / "model"), "--classes", classes]


def test_a_picture_and_json_are_written_and_summed_up(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "why")])
    assert result.exit_code == 0, result.output
    assert "the whole photo, resized to 96 x 64 pixels" in result.output
    assert "removed by the shortlist: " in result.output
    content = json.loads((tmp_path / "why" / "photo_explain.json").read_text())
    for group in content["second_stage"]:
        assert f"{group['name']}, margin {group['margin']:.3f}" in result.output
    assert (tmp_path / "why" / "photo_explain.png").is_file()


def test_options_reach_the_protocol(arguments: list[str], tmp_path: Path) -> None:
    options = ["--background", "0.4", "--short-side", "128", "--windows", "--window", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "photo_explain.json").read_text())
    assert content["background_threshold"]["protocol"] == 0.4
    assert content["window"]["number"] == 3
    assert content["window"]["resized"] == {"width": 192, "height": 128}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "9"], "no window 9"),
        (["--whole", "--window", "2"], "1 is its only window"),
        (["--background", "7"], "must lie between 0 and 1"),
        (["--short-side", "4"], "thinner than one patch"),
        (["--classes", "dog, Dog"], "listed twice"),
    ],
)
def test_what_cannot_be_explained_is_one_message(
    arguments: list[str], options: list[str], message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "why"), *options])
    assert isinstance(result.exception, MixreorgError)
    assert message in str(result.exception)
    assert not (tmp_path / "why").exists()


def test_an_exported_model_is_refused_with_the_remedy(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixreorg.export.runtime.find_export", lambda path: path)
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert "give the model it was made from" in str(result.exception)

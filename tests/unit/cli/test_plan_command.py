"""``mixreorg plan`` from a command line to JSON and to one clear error."""

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.plan_command import plan
from mixreorg.errors import MixreorgError
from mixreorg.train.planning.calibration import ReadingSpeed

app = typer.Typer()
app.command()(plan)

# Nothing is measured when all of it is said.
SAID = ["--pictures-per-core", "800", "--bytes-per-pair", "40000", "--pairs", "1000000", "--text-length", "32"]


def test_json_of_a_known_kind() -> None:
    arguments = ["groupvit_vits_cc12m", "--devices", "8", "--kind", "h100", "--json", *SAID]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(result.output)
    assert values["pairs_per_process"] == 512
    assert values["data"]["bytes_per_epoch"] == 40e9
    assert values["memory"]["fits"] is True
    assert values["data"]["notes"] == []


def test_settings_reach_the_plan() -> None:
    arguments = ["mixreorg_vits_cc12m", "--kind", "4090", "--set", "engine.chunk=64", *SAID]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "fits:" in result.output
    assert "computed a second time" in result.output


def test_a_batch_that_groups_do_not_divide_is_planned() -> None:
    arguments = ["scenes_mixreorg", "--kind", "a100-80", "--set", "batch_size=66", "--json", *SAID]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["memory"]["fits"] is True


def test_this_machine_tries_some_steps() -> None:
    arguments = ["scenes_groupvit", "--set", "batch_size=8", "--json", "--bytes-per-pair", "2000"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(result.output)
    assert values["mfu_assumed"] is None
    assert values["seconds_per_step"]["likely"] > 0
    assert values["machine"]["peak"]["flops"] > 1e9


@pytest.mark.parametrize(("waiting", "words"), [(1.4, 0), (3.24, 1)])
def test_a_reading_speed_that_waiting_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: float, words: int
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text("image,caption\n0.png,a dog\n")
    speed = ReadingSpeed(50.0, waiting)
    monkeypatch.setattr("mixreorg.train.planning.calibration.measure_reading", lambda *_: speed)
    arguments = ["scenes_groupvit", "--set", "batch_size=8", "--kind", "h100", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path / "captions.csv")])
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)["data"]
    assert data["pictures_per_core"] == 50
    assert sum("took 3.2 times its processor time" in note for note in data["notes"]) == words
    # The synthetic picture is counted in processor time: nothing to say.
    result = CliRunner().invoke(app, arguments)
    assert not any("processor time" in note for note in json.loads(result.output)["data"]["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": None}, "name a recipe"),
        ({"recipe": "mixreorg_vit"}, "no recipe is called 'mixreorg_vit'"),
        ({"recipe": "scenes_mixreorg", "kind": "tpu"}, "--kind tpu"),
        ({"recipe": "scenes_mixreorg", "kind": "h100", "devices": 7}, "--devices 7"),
        ({"recipe": "scenes_mixreorg", "kind": "h100", "data": ["none/*.tar"]}, "missing: none"),
    ],
)
def test_bad_input_is_one_error(arguments: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"config": None, "assignments": None, "devices": 1, "data": None, "pairs": None}
    defaults |= {"bytes_per_pair": 1.0, "pictures_per_core": 1.0, "text_length": 8, "mfu": None, "as_json": True}
    with pytest.raises(MixreorgError, match=message):
        plan(**{**defaults, **arguments})  # type: ignore[arg-type]

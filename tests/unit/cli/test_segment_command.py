"""``mixreorg segment`` on many photos: folders, lists, going on, summaries, exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.batch import run
from mixreorg.cli.segment_command import segment
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.protocol import Protocol

app = typer.Typer()
app.command()(segment)
SMALL = Protocol(name="small", short_side=32, window=32, stride=32, whole=True)


@pytest.fixture
def trip(tmp_path: Path, tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and a folder of six photos of which one is damaged."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model, tmp_path / "model", SMALL.to_dict())
    random = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "trip" / f"day{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    damaged = tmp_path / "trip" / "day1" / "3.jpg"
    damaged.write_bytes(damaged.read_bytes()[:500])
    return tmp_path


def segmented(*arguments: object, classes: str = "dog, cat", listed: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, output and messages."""
    command = [*map(str, arguments), "--model", "model", "--classes", classes, "--out", "masks"]
    result = CliRunner().invoke(app, command, input=listed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def statuses() -> list[str]:
    return [row["status"] for row in json.loads(Path("masks/summary.json").read_text())["photos"]]


def test_a_folder_with_a_damaged_photo(trip: Path) -> None:
    code, output, messages = segmented("trip")
    assert code == 2
    assert len(output.splitlines()) == 5
    assert "trip/day0/0.jpg: " in output
    assert "masks/day0/0_overlay.png" in output
    assert "1 of 6 photos failed" in messages
    assert messages.rstrip().endswith("trip/day1/3.jpg")
    assert statuses() == ["segmented"] * 4 + ["failed", "segmented"]
    assert (trip / "masks" / "day1" / "5.json").is_file()
    assert (trip / "masks" / "summary.csv").is_file()


def test_the_same_command_again_keeps_what_is_done(trip: Path) -> None:
    segmented("trip")
    before = (trip / "masks" / "day0" / "0_labels.png").stat().st_mtime_ns
    code, output, messages = segmented("trip")
    assert code == 2
    assert output == ""
    assert "5 of 6 photos are done already" in messages
    assert statuses() == ["kept"] * 4 + ["failed", "kept"]
    assert (trip / "masks" / "day0" / "0_labels.png").stat().st_mtime_ns == before
    assert len(segmented("trip", "--redo")[1].splitlines()) == 5
    assert (trip / "masks" / "day0" / "0_labels.png").stat().st_mtime_ns > before


def test_other_classes_options_and_models_are_other_results(trip: Path, tiny_model: DualEncoder) -> None:
    photos = "trip/day0/*.jpg"
    assert segmented(photos)[0] == 0
    assert len(segmented(photos, classes="dog, cat=cat|kitten")[1].splitlines()) == 3
    assert len(segmented(photos, "--short-side", 40)[1].splitlines()) == 3
    assert len(segmented(photos, "--short-side", 40, "--workers", 0)[1].splitlines()) == 0
    tiny_model.logit_scale.data += 0.1
    save_model(tiny_model, trip / "model2", SMALL.to_dict())
    (trip / "model").rename(trip / "model1")
    (trip / "model2").rename(trip / "model")
    assert len(segmented(photos, "--short-side", 40)[1].splitlines()) == 3


def test_a_list_on_standard_input(trip: Path) -> None:
    code, output, _ = segmented("-", listed=b"trip/day0/0.jpg\ntrip/day1/1.jpg\n")
    assert code == 0
    assert "masks/trip/day1/1_overlay.png" in output


def test_an_interruption_ends_with_130_and_goes_on(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    segment_one = run._segment
    calls: list[object] = []

    def third_is_interrupted(*arguments: object) -> object:
        calls.append(arguments)
        return interrupt() if len(calls) == 3 else segment_one(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "_segment", third_is_interrupted)
    code, _, messages = segmented("trip/day0")
    assert code == 130
    assert "2 of 3 photos are done; the same command goes on" in messages
    assert json.loads((trip / "masks" / "summary.json").read_text())["interrupted"]
    code, output, messages = segmented("trip/day0")
    assert code == 0
    assert "2 of 3 photos are done already" in messages
    assert len(output.splitlines()) == 1
    assert not json.loads((trip / "masks" / "summary.json").read_text())["interrupted"]


def test_a_wrong_class_list_is_one_error_not_one_per_photo(trip: Path) -> None:
    with pytest.raises(MixreorgError, match="leave it out"):
        segmented("trip", "--background", 0.5, classes="background, dog")
    assert not (trip / "masks").exists()


def test_a_place_that_cannot_be_written_is_refused_before_any_photo(trip: Path) -> None:
    Path("masks").write_text("a file")
    with pytest.raises(MixreorgError, match=r"cannot write masks/summary.json: Not a directory; name another place"):
        segmented("trip")
    assert Path("masks").read_text() == "a file"

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mixreorg.errors import MixreorgError
from mixreorg.train.card import read_card
from mixreorg.train.config import TrainConfig
from mixreorg.train.reproduce import Reproduction, compare, reproduce
from mixreorg.train.trainer import train


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    """The run that every test gets a copy of, once the first has trained it."""
    return []


@pytest.fixture
def original(
    trained: list[Path], train_config: TrainConfig, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Eight of twelve steps, evaluated and saved at 4 and 8."""
    if not trained:
        run = tmp_path_factory.mktemp("trained") / "run"
        train(train_config, run, device="cpu", console=Console(file=io.StringIO()), until=8)
        trained.append(run)
    return Path(shutil.copytree(trained[0], tmp_path / "original"))


def again(source: Path, out: Path, **options: object) -> tuple[Reproduction, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=400)
    return reproduce(source, out, device="cpu", console=console, **options), stream.getvalue()  # type: ignore[arg-type]


def edit_card(run: Path, change: Callable[[dict[str, object]], None]) -> None:
    card = json.loads((run / "card.json").read_text())
    change(card)
    (run / "card.json").write_text(json.dumps(card))


def test_a_card_is_reproduced_bit_for_bit(original: Path, tmp_path: Path) -> None:
    result, text = again(original, tmp_path / "again")
    assert result.agrees
    assert result.losses is not None
    assert (result.losses.verdict, result.losses.count) == ("bit-equal", 8)
    assert result.metrics is not None
    assert result.metrics.verdict == "bit-equal"
    assert "data: the same 96 pairs" in text
    assert "differs" not in text
    # The learning rate follows all twelve steps of the run, of which the card has eight.
    card = read_card(tmp_path / "again")
    assert (card.step, card.config.steps) == (8, 12)


def test_the_card_of_an_older_checkpoint_and_its_first_steps(original: Path, tmp_path: Path) -> None:
    checkpoint = original / "checkpoints" / "step-00000004"
    result, _ = again(checkpoint, tmp_path / "four")
    assert result.agrees
    assert read_card(tmp_path / "four").step == 4
    result, text = again(checkpoint / "card.json", tmp_path / "two", steps=2)
    assert result.agrees
    assert result.metrics is None
    assert "losses: bit-equal, 2 compared" in text
    # A second call has nothing left to train, and says the same.
    assert again(checkpoint / "card.json", tmp_path / "two", steps=2)[0] == result


def test_a_run_whose_losses_were_logged_at_two_intervals(train_config: TrainConfig, tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    first = train_config.updated(log_every=2)
    train(first, tmp_path / "run", device="cpu", console=quiet, until=4)
    train(first.updated(log_every=5), tmp_path / "run", resume="auto", device="cpu", console=quiet)
    assert list(read_card(tmp_path / "run").losses) == [2, 4, 5, 10, 12]
    result, text = again(tmp_path / "run", tmp_path / "again")
    assert result.agrees, text
    assert "losses: bit-equal, 5 compared" in text


def test_progress_counts_the_steps_that_are_done_again(original: Path, tmp_path: Path) -> None:
    _, text = again(original, tmp_path / "again", steps=3)
    assert " 3/3 " in text
    assert "/12" not in text


def test_charts_of_the_original_get_nothing_of_its_reproduction(original: Path, tmp_path: Path) -> None:
    edit_card(original, lambda card: card["config"].update(wandb_project="theirs"))  # type: ignore[attr-defined]
    assert again(original, tmp_path / "again", steps=1)[0].agrees
    assert read_card(tmp_path / "again").config.wandb_project is None


def test_what_differs_is_said(original: Path, tmp_path: Path) -> None:
    def change(card: dict[str, object]) -> None:
        card["losses"] = {"1": 1.25, **{str(step): loss for step, loss in read_card(original).losses.items()}}
        card["losses"]["3"] = 1.25  # type: ignore[index]
        card["versions"]["torch"] = "1.13.0"  # type: ignore[index]
        card["layout"]["threads"] = 999  # type: ignore[index]

    edit_card(original, change)
    result, text = again(original, tmp_path / "again", steps=3)
    assert not result.agrees
    assert "version differs: torch 1.13.0 then" in text
    assert "layout differs: threads 999 then" in text
    assert "losses: different, 3 compared; largest difference at step 3: 1.25 then" in text


def test_other_data_are_refused_unless_forced(original: Path, tmp_path: Path, world: Path) -> None:
    shards = tmp_path / "elsewhere"
    shutil.copytree(world / "shards", shards)
    result, text = again(original, tmp_path / "moved", data=[str(shards / "*.tar")], steps=1)
    assert result.agrees, text
    (shards / "00001.tar").unlink()
    with pytest.raises(MixreorgError, match=r"other data .* 48 pairs now, 96 then; .*--force"):
        again(original, tmp_path / "fewer", data=[str(shards)], steps=1)
    assert not (tmp_path / "fewer").exists()
    result, text = again(original, tmp_path / "fewer", data=[str(shards)], steps=1, force=True)
    assert not result.agrees
    assert "48 pairs now, 96 then" in text


def test_the_checkpoint_brings_its_own_tokenizer(original: Path, tmp_path: Path) -> None:
    def change(card: dict[str, object]) -> None:
        card["config"]["data"]["tokenizer"] = "/no/such/tokenizer.json"  # type: ignore[index]

    edit_card(original, change)
    assert again(original, tmp_path / "again", steps=1)[0].agrees
    shutil.copy(original / "card.json", tmp_path / "card.json")
    with pytest.raises(MixreorgError, match="put a copy beside the card"):
        again(tmp_path / "card.json", tmp_path / "other", steps=1)


@pytest.mark.parametrize(
    ("source", "out", "steps", "message"),
    [
        ("original", "original", None, "holds the card itself"),
        ("original/checkpoints/step-00000004", "original", None, "holds the card itself"),
        ("original", "again", 9, "the card describes 8 steps"),
        ("original", "again", 0, "the card describes 8 steps"),
        ("original/train_config.json", "again", None, "not a run card"),
        ("nowhere", "again", None, "cannot read"),
    ],
)
def test_what_cannot_be_reproduced(
    original: Path, tmp_path: Path, source: str, out: str, steps: int | None, message: str
) -> None:
    with pytest.raises(MixreorgError, match=message):
        again(tmp_path / source, tmp_path / out, steps=steps)
    assert not (tmp_path / "again").exists()


def test_the_command(original: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mixreorg", "reproduce", str(original), "--device", "cpu", "--steps", "2"]
    result = subprocess.run([*command, "--out", tmp_path / "a"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "reproduced\n"
    edit_card(original, lambda card: card.update(losses={"1": 1.0}))
    result = subprocess.run([*command, "--out", tmp_path / "b"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    assert result.stdout == "not reproduced\n"
    assert "largest difference at step 1: 1.0 then" in result.stderr


def test_comparisons() -> None:
    assert compare({1: 0.1, 2: None}, {1: 0.1, 2: None, 3: 5.0}, "step {}").verdict == "bit-equal"
    near = compare({"a": 2.0, "b": 0.0}, {"a": 2.00001, "b": 0.0}, "{}")
    assert near.verdict == "within 1e-5"
    assert near.detail == "; largest difference at a: 2.0 then, 2.00001 now"
    assert compare({1: 2.0}, {1: 2.0001}, "{}").verdict == "different"
    assert compare({1: 2.0}, {}, "{}").verdict == "different"
    assert compare({1: None}, {1: 1.0}, "{}").verdict == "different"

import json
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import mixreorg
from mixreorg.errors import MixreorgError
from mixreorg.files import write_json
from mixreorg.train.card import (
    NUM_LOSSES,
    RunCard,
    RunFacts,
    _commit,
    earlier_steps,
    logged_losses,
    make_card,
    read_card,
    versions,
)
from mixreorg.train.config import TrainConfig


def card(**changes: object) -> RunCard:
    values: dict[str, object] = {
        "step": 10,
        "seconds": 20.0,
        "metrics": {"foreground_miou": 12.5, "miou": float("nan")},
        "scaler": None,
        "losses": {step: 1.0 / step for step in range(1, 11)},
        **changes,
    }
    config = TrainConfig(recipe="test", batch_size=8, steps=100, seed=7, precision="fp32")
    return make_card(config, RunFacts("abc", 96, torch.device("cpu")), **values)  # type: ignore[arg-type]


def test_a_card_comes_back_from_its_file(tmp_path: Path) -> None:
    made = card(scaler={"scale": 65536.0, "_growth_tracker": 3})
    write_json(tmp_path / "card.json", made.to_dict())
    for source in (tmp_path, tmp_path / "card.json"):
        read = read_card(source)
        assert read.metrics == {"foreground_miou": 12.5, "miou": None}
        assert read.to_dict() == {**made.to_dict(), "metrics": read.metrics}
        assert type(read.scaler["_growth_tracker"]) is int  # type: ignore[index]
    # Bit for bit: losses are compared with those of another run.
    assert read.losses[3] == 1.0 / 3


def test_what_a_card_says() -> None:
    made = card()
    assert made.pairs_per_second == 4.0
    assert (made.seed, made.recipe, made.step) == (7, "test", 10)
    assert made.data.model_dump() == {"fingerprint": "abc", "num_pairs": 96, "nouns": None}
    assert made.layout.world_size == 1
    assert made.layout.threads == torch.get_num_threads()
    assert made.layout.device_name
    assert made.versions["torch"] == torch.__version__
    assert made.versions["mixreorg"] == mixreorg.__version__
    line = made.describe()
    assert all(part in line for part in ("test", "step 10 of 100", "seed 7", "96 pairs", "1 x cpu", "fp32"))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 24, 25, 2000])
def test_a_card_keeps_few_losses_and_always_the_first_and_the_last(count: int) -> None:
    losses = {50 * number: float(number) for number in range(1, count + 1)}
    kept = card(losses=losses).losses
    assert kept.items() <= losses.items()
    assert len(kept) <= NUM_LOSSES
    if count:
        assert min(kept) == 50
        assert max(kept) == 50 * count
    if count == 2000:
        assert len(kept) >= 18
        assert sum(step < 1000 for step in kept) > sum(step >= 50_000 for step in kept)


def test_a_card_says_up_to_which_step_each_earlier_value_of_steps_held() -> None:
    assert earlier_steps(card(step=10), 100) == {}
    assert earlier_steps(card(step=10), 200) == {10: 100}
    assert earlier_steps(card(step=10, earlier_steps={4: 50}), 100) == {4: 50}
    assert earlier_steps(card(step=10, earlier_steps={4: 50}), 200) == {4: 50, 10: 100}
    # No step was trained with 100.
    assert earlier_steps(card(step=10, earlier_steps={10: 50}), 200) == {10: 50}
    assert earlier_steps(card(step=10, earlier_steps={10: 50}), 50) == {}


def test_losses_are_read_from_a_log_that_was_cut(tmp_path: Path) -> None:
    lines = ['{"step": 1, "train/loss": 2.5}', '{"step": 1, "val/miou": 3.0}', '{"step": 2, "train/loss": null}']
    lines += ['{"step": 3, "train/loss": 1.5}', '{"step": 4, "train/lo']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert logged_losses(tmp_path / "log.jsonl", 9) == {1: 2.5, 2: None, 3: 1.5}
    assert logged_losses(tmp_path / "log.jsonl", 2) == {1: 2.5, 2: None}
    assert logged_losses(tmp_path / "none.jsonl", 2) == {}


def test_a_log_that_cannot_be_read_costs_no_checkpoint(tmp_path, monkeypatch):
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "log.jsonl").write_text('{"step": 1, "train/loss": 2.5}\n')
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert logged_losses(tmp_path / "log.jsonl", 9) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not a run card"),
        ({"step": -1}, "step"),
        ({"extra": 1}, "extra is not a field"),
        ({"losses": {"first": 1.0}}, "losses"),
        ({"config": {"stepz": 1}}, "did you mean 'steps'"),
    ],
)
def test_what_is_no_card(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "card.json").write_text(json.dumps({**card(metrics={}).to_dict(), **change}))
    with pytest.raises(MixreorgError, match=message):
        read_card(tmp_path)


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match=r"cannot read .*card\.json"):
        read_card(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(MixreorgError, match="is not a run card"):
        read_card(tmp_path / "list.json")


def test_the_commit_is_that_of_the_package_or_none(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "src" / "mixreorg"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1")
    assert _commit(package) is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    assert _commit(package) == commit
    (package / "a.py").write_text("2")
    assert _commit(package) == f"{commit}-dirty"
    # Installed into an environment that lies in a repository of somebody's own.
    installed = tmp_path / "lib" / "mixreorg"
    installed.mkdir(parents=True)
    assert _commit(installed) is None


def test_nothing_personal_is_on_a_card() -> None:
    text = json.dumps(card().to_dict())
    assert f'"{platform.node()}"' not in text
    assert str(Path.home()) not in text
    assert set(versions()) == {"mixreorg", "commit", "python", "torch", "numpy", "accelerate", "cuda"}

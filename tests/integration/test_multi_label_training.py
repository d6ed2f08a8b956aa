"""Runs with the multi-label loss: what they need, that they learn, stop and go on."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mixreorg.errors import MixreorgError
from mixreorg.interop.initialise import InitConfig, initialise
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import LOGIT_SCALE_INIT, DualEncoder
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.segment.segmenter import Segmenter
from mixreorg.train.card import read_card
from mixreorg.train.config import EvaluationConfig, TrainConfig
from mixreorg.train.reproduce import reproduce
from mixreorg.train.trainer import train


@pytest.fixture
def config(train_config: TrainConfig, world: Path) -> TrainConfig:
    """Twelve steps of GroupViT with the multi-label loss on the world's classes."""
    nouns = MultiLabelConfig(weight=WeightSchedule(), templates="simple", repeated_nouns="positive")
    data = train_config.data.updated(nouns=str(world / "voc"))
    return train_config.updated(objective=GroupViTConfig(multi_label=nouns), data=data, evaluation=EvaluationConfig())


def run(config: TrainConfig, folder: Path, *, resume: bool = False, until: int | None = None) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=400)
    train(config, folder, resume="auto" if resume else "never", device="cpu", console=console, until=until)
    return stream.getvalue()


def logged(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[f"train/{name}"] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int = 12) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_the_loss_falls_and_the_model_serves(config: TrainConfig, tmp_path: Path, world: Path) -> None:
    text = run(config.updated(steps=60, checkpoint_every=60), tmp_path / "run")
    trace = logged(tmp_path / "run", "multi_label")
    assert sum(trace[-6:]) < sum(trace[:6]) - 6 * 0.2
    assert logged(tmp_path / "run", "nouns_per_caption") == [1.0] * 60
    assert " mul " in text
    scale = weights(tmp_path / "run", 60)["multi_label_logit_scale"]
    assert scale.shape == (1,)
    assert float(scale) != pytest.approx(LOGIT_SCALE_INIT, abs=1e-3)
    model = load_model(tmp_path / "run")
    assert Segmenter(model)(world / "voc" / "JPEGImages" / "0.jpg", ["dog", "cat"]).label_map.shape == (32, 32)
    # A run without the loss may start from it, and one with it takes the scale.
    for multi_label in (False, True):
        fresh = DualEncoder(model.config.updated(multi_label=multi_label), model.tokenizer)
        report = initialise(fresh, InitConfig(weights="groupvit", path=str(tmp_path / "run")))
        assert report is not None
        assert (report.ignored, report.missing) == (() if multi_label else ("multi_label_logit_scale",), {})


def test_workers_and_a_stop_change_no_bit(config: TrainConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "whole")
    workers = config.updated(data=config.data.updated(num_workers=2))
    run(workers, tmp_path / "half", until=8)
    run(workers, tmp_path / "half", resume=True)
    assert logged(tmp_path / "half", "loss") == logged(tmp_path / "whole", "loss")
    first, second = weights(tmp_path / "half"), weights(tmp_path / "whole")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_goes_on_with_the_same_words_alone(config: TrainConfig, tmp_path: Path, world: Path) -> None:
    run(config, tmp_path / "run", until=4)
    moved = tmp_path / "words.txt"
    moved.write_text("dog\ncat\n")
    other = config.updated(data=config.data.updated(nouns=str(moved)))
    with pytest.raises(MixreorgError, match=r"started with another word list \(data\.nouns\)"):
        run(other, tmp_path / "run", resume=True)
    with pytest.raises(MixreorgError, match=r"words\.txt is another word list than the card's; say with --nouns"):
        reproduce(tmp_path / "run", tmp_path / "again", nouns=moved, device="cpu")
    moved.write_text((world / "voc" / "classes.txt").read_text())
    assert "resumed at step 4" in run(other, tmp_path / "run", resume=True, until=6)
    assert reproduce(tmp_path / "run", tmp_path / "again", nouns=moved, device="cpu").agrees
    assert read_card(tmp_path / "again").data.nouns is not None


def test_the_loss_asks_for_its_words_before_anything_is_written(config: TrainConfig, tmp_path: Path) -> None:
    without = config.updated(data=config.data.updated(nouns=None))
    with pytest.raises(MixreorgError, match=r"the multi-label loss needs a word list: .* --set data\.nouns=FILE"):
        run(without, tmp_path / "run")
    missing = config.updated(data=config.data.updated(nouns="nowhere.txt"))
    with pytest.raises(MixreorgError, match=r"data\.nouns: cannot read the class list nowhere\.txt"):
        run(missing, tmp_path / "run")
    assert not (tmp_path / "run" / "train_config.json").exists()


def test_a_run_from_before_the_loss_existed_goes_on(train_config: TrainConfig, tmp_path: Path) -> None:
    config = train_config.updated(evaluation=EvaluationConfig())
    run(config, tmp_path / "run", until=4)
    path = tmp_path / "run" / "train_config.json"
    old = json.loads(path.read_text())
    del old["objective"]["multi_label"], old["model"]["multi_label"], old["data"]["nouns"]
    path.write_text(json.dumps(old))
    assert "resumed at step 4" in run(config, tmp_path / "run", resume=True, until=6)
    assert "multi_label_logit_scale" not in weights(tmp_path / "run", 6)

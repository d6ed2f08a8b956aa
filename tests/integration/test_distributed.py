"""A fixed global batch on any number of processes, in chunks, or with sharded parameters: the same run."""

import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.train.config import EngineConfig, TrainConfig
from mixreorg.train.trainer import train

STEPS = 20
LOSSES = {f"train/{name}" for name in ("loss", "contrastive", "mixed", "text_to_patch", "restored", "multi_label")}


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    """Twenty steps of the complete method with well-conditioned weights.

    At the published initialisation of a model this small, BatchNorm divides by next to nothing, and a hard
    assignment turns rounding into other segments: both would compare noise. A large eps keeps AdamW from scaling up
    the rounding of gradients that are zero in theory (key biases, biases before BatchNorm).
    """
    image = train_config.model.image.updated(assignment="soft", init_std=0.15, group_token_std=1.0)
    optim = train_config.optim.updated(lr=2e-4, eps=1e-2)
    model = train_config.model.updated(image=image)
    return train_config.updated(
        model=model,
        optim=optim,
        batch_size=16,
        steps=STEPS,
        checkpoint_every=10,
        evaluation=train_config.evaluation.updated(every=10),
    )


def train_alone(config: TrainConfig, folder: Path) -> int:
    """Train in this process; the number of finished steps."""
    return train(config, folder, resume="auto", device="cpu", console=Console(file=io.StringIO())).step


@pytest.fixture
def alone(config: TrainConfig, tmp_path: Path) -> Path:
    train_alone(config, tmp_path / "one")
    return tmp_path / "one"


def launch(config: TrainConfig, folder: Path, processes: int, program: tuple[str, ...] = ("-m", "mixreorg")) -> None:
    """Train in several processes, as a user would."""
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *program]
    command += ["train", "--config", str(path), "--out", str(folder), "--resume", "auto"]
    # Where there is nothing better, the CPU is what training finds by itself, in every process.
    command += ["--device", "cpu"] if torch.cuda.is_available() or torch.backends.mps.is_available() else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]


def records(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "train/loss" in line}


def assert_same_run(found: Path, expected: Path) -> None:
    """Losses and parameters within 1e-5, and the same evaluation."""
    ours, theirs = records(found), records(expected)
    assert ours.keys() == theirs.keys() == set(range(1, STEPS + 1))
    for step, record in theirs.items():
        assert ours[step].keys() == record.keys()
        for name in record.keys() & LOSSES:
            assert ours[step][name] == pytest.approx(record[name], rel=1e-5)
    first, second = (
        load_file(folder / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors") for folder in (found, expected)
    )
    vectors = [torch.cat([state[name].double().flatten() for name in second]) for state in (first, second)]
    assert (vectors[0] - vectors[1]).norm() <= 1e-5 * vectors[1].norm()


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_equal_one(config: TrainConfig, alone: Path, tmp_path: Path, processes: int) -> None:
    launch(config, tmp_path / "several", processes)
    assert_same_run(tmp_path / "several", alone)


def test_chunks_on_two_processes_equal_one_whole_batch(config: TrainConfig, alone: Path, tmp_path: Path) -> None:
    launch(config.updated(engine=EngineConfig(chunk=4)), tmp_path / "chunks", 2)
    assert_same_run(tmp_path / "chunks", alone)


NOUNS = {
    # Captions of dogs have two nouns, all others one; the loss comes in later.
    "groupvit": (GroupViTConfig, {"num_nouns": 2, "weight": {"start_step": 5}}, "photo\ndog\n", None),
    # Cats have none.
    "mixreorg in chunks": (MixReorgConfig, {"repeated_nouns": "positive"}, "dog\ncar\n", 4),
    # Means over what exists, of which the processes have different numbers.
    "mixreorg among nouns": (partial(MixReorgConfig, candidates="nouns"), {}, "dog\ncar\n", None),
    "mixreorg from the captions' side": (partial(MixReorgConfig, text_to_patch=WeightSchedule()), {}, "dog\n", 4),
    "mixreorg from the nouns' side": (
        partial(MixReorgConfig, text_to_patch=WeightSchedule(), text_to_patch_texts="nouns"),
        {},
        "dog\ncar\n",
        None,
    ),
    "mixreorg by dice": (partial(MixReorgConfig, mixed_form="dice"), {}, "dog\ncar\n", None),
}


@pytest.mark.parametrize("name", NOUNS)
def test_noun_prompts_on_two_processes_equal_one_whole_batch(config: TrainConfig, tmp_path: Path, name: str) -> None:
    objective, options, words, chunk = NOUNS[name]
    (tmp_path / "nouns.txt").write_text(words)
    nouns = MultiLabelConfig.from_dict({"weight": {"weight": 1.0}, **options})
    config = config.updated(
        objective=objective(multi_label=nouns), data=config.data.updated(nouns=str(tmp_path / "nouns.txt"))
    )
    train_alone(config, tmp_path / "one")
    assert "train/multi_label" in records(tmp_path / "one")[STEPS]
    launch(config.updated(engine=EngineConfig(chunk=chunk)), tmp_path / "two", 2)
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_run_goes_on_with_another_number_of_processes(config: TrainConfig, alone: Path, tmp_path: Path) -> None:
    launch(config, tmp_path / "run", 2)
    lose_the_last_checkpoint(tmp_path / "run")
    assert train_alone(config, tmp_path / "run") == STEPS
    assert_same_run(tmp_path / "run", alone)


def test_sharded_parameters_equal_whole_ones(config: TrainConfig, alone: Path, tmp_path: Path) -> None:
    script = (str(Path(__file__).with_name("sharded_training.py")),)
    launch(config, tmp_path / "sharded", 2, script)
    assert_same_run(tmp_path / "sharded", alone)
    # Checkpoints are whole like any other's, and their moments are spread again; now in chunks.
    lose_the_last_checkpoint(tmp_path / "sharded")
    launch(config.updated(engine=EngineConfig(chunk=4)), tmp_path / "sharded", 2, script)
    assert_same_run(tmp_path / "sharded", alone)


def lose_the_last_checkpoint(folder: Path) -> None:
    """As if the run had been killed between its checkpoints."""
    shutil.rmtree(folder / "checkpoints" / f"step-{STEPS:08d}")

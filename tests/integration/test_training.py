import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mixreorg.errors import MixreorgError
from mixreorg.files import write_json
from mixreorg.interop.initialise import InitConfig
from mixreorg.interop.loading import load_model
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.card import read_card
from mixreorg.train.checkpoint import CheckpointStore, Progress
from mixreorg.train.config import EvaluationConfig, TrainConfig
from mixreorg.train.engine import check_shares
from mixreorg.train.reproduce import reproduce
from mixreorg.train.setup import check_run_folder
from mixreorg.train.trainer import TrainOutcome, train


def run(config: TrainConfig, folder: Path, *, resume: bool = False) -> tuple[TrainOutcome, str]:
    stream = io.StringIO()
    outcome = train(
        config, folder, resume="auto" if resume else "never", device="cpu", console=Console(file=stream, width=400)
    )
    return outcome, stream.getvalue()


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["train/loss"] for record in records if "train/loss" in record}


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_leaves_all_that_is_promised(train_config: TrainConfig, tmp_path: Path, world: Path) -> None:
    outcome, console = run(train_config, tmp_path / "run")
    folder = tmp_path / "run"
    assert outcome.step == 12
    assert not outcome.stopped
    assert 0 <= outcome.metrics["foreground_miou"] <= 100
    assert "damaged image: 1" in console
    assert "00007" in console
    assert TrainConfig.from_dict(json.loads((folder / "train_config.json").read_text())).steps == 12
    record = json.loads((folder / "log.jsonl").read_text().splitlines()[-2])
    expected = ("loss", "contrastive", "mixed", "restored", "mixed_mask_accuracy", "segments_in_use", "logit_scale")
    assert all(f"train/{name}" in record for name in (*expected, "gradient_norm", "pairs_per_second", "eta_seconds"))
    assert list((folder / "tensorboard").glob("events*"))
    state = json.loads((folder / "state.json").read_text())
    assert state["latest"] == "step-00000012"
    model = load_model(folder)
    assert not model.training
    result = Segmenter(model)(world / "voc" / "JPEGImages" / "0.jpg", ["dog", "cat"])
    assert result.label_map.shape == (32, 32)
    assert result.protocol.name == "test"


@pytest.mark.parametrize("objective", [GroupViTConfig(), MixReorgConfig()], ids=["groupvit", "mixreorg"])
def test_the_loss_falls(train_config: TrainConfig, tmp_path: Path, objective: GroupViTConfig | MixReorgConfig) -> None:
    config = train_config.updated(objective=objective, steps=60, evaluation=type(train_config.evaluation)())
    run(config, tmp_path / "run")
    trace = losses(tmp_path / "run")
    first, last = [trace[step] for step in range(1, 7)], [trace[step] for step in range(55, 61)]
    assert sum(last) < sum(first) - 6 * 0.2


def test_the_same_seed_gives_the_same_bits(train_config: TrainConfig, tmp_path: Path) -> None:
    run(train_config, tmp_path / "a")
    workers = train_config.updated(data=train_config.data.updated(num_workers=2))
    run(workers, tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert_same(weights(tmp_path / "a", 12), weights(tmp_path / "b", 12))
    run(train_config.updated(seed=1), tmp_path / "c")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize("combine", ["sum", "gate"])
def test_resuming_continues_with_the_very_next_sample(train_config: TrainConfig, tmp_path: Path, combine: str) -> None:
    config = train_config.updated(objective=MixReorgConfig.from_dict({"combine": combine}))
    run(config, tmp_path / "whole")
    # Step 10 lies in the middle of an epoch of 96 pairs and of the batch order.
    half = tmp_path / "half"
    run(config, half)
    state = json.loads((half / "state.json").read_text())
    (half / "state.json").write_text(json.dumps({**state, "latest": "step-00000008"}))
    outcome, console = run(config, half, resume=True)
    assert outcome.step == 12
    assert "resumed at step 8" in console
    assert losses(half) == losses(tmp_path / "whole")
    assert_same(weights(half, 12), weights(tmp_path / "whole", 12))


def test_only_the_newest_and_the_best_checkpoints_stay(train_config: TrainConfig, tmp_path: Path) -> None:
    run(train_config.updated(steps=12, checkpoint_every=2, keep_checkpoints=2), tmp_path / "run")
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    best = json.loads((tmp_path / "run" / "state.json").read_text())["best"]["checkpoint"]
    assert kept == {"step-00000010", "step-00000012", best}


def test_a_run_folder_is_not_overwritten_and_not_resumed_as_another_run(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    run(train_config.updated(steps=2), tmp_path / "run")
    with pytest.raises(MixreorgError, match="holds a run already; continue it with --resume auto"):
        run(train_config, tmp_path / "run")
    with pytest.raises(MixreorgError, match="other values of seed"):
        run(train_config.updated(seed=5), tmp_path / "run", resume=True)


def test_a_run_goes_on_with_other_values_of_what_changes_no_number(train_config: TrainConfig, tmp_path: Path) -> None:
    write_json(tmp_path / "train_config.json", train_config.to_dict())
    others = ["keep_checkpoints=5", "log_every=7", "engine.chunk=4", "data.num_workers=1", "steps=13"]
    assert check_run_folder(tmp_path, train_config.with_overrides(others), "auto")


def test_a_run_goes_on_with_its_own_tokenizer_alone(
    train_config: TrainConfig, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = tmp_path / "words.json"
    tokenizer.save(path)
    config = train_config.updated(steps=1, data=train_config.data.updated(tokenizer=str(path)))
    run(config, tmp_path / "run")
    first, second, *others = tokenizer.merges
    for merges in ([second, first, *others], [first]):
        Tokenizer(merges, tokenizer.context_length).save(path)
        with pytest.raises(MixreorgError, match=r"another tokenizer than data\.tokenizer holds now; put a copy of"):
            run(config.updated(steps=2), tmp_path / "run", resume=True)
    path.write_bytes((tmp_path / "run" / "checkpoints" / "step-00000001" / "tokenizer.json").read_bytes())
    assert run(config.updated(steps=2), tmp_path / "run", resume=True)[0].step == 2


def test_names_with_square_brackets_are_told_as_they_are(train_config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('{"image": "[red] a[/x].png", "caption": "a dog"}')
    data = train_config.data.updated(train=(*train_config.data.train, str(tmp_path)))
    _, console = run(train_config.updated(steps=1, data=data), tmp_path / "run")
    assert console.count(f"no image: 1 ({tmp_path / 'captions.jsonl'} line 1 [red] a[/x].png)") == 2


def test_a_missing_shard_is_an_error(train_config: TrainConfig, tmp_path: Path, world: Path) -> None:
    data = train_config.data.updated(train=(str(world / "shards" / "0000{0..2}.tar"),))
    with pytest.raises(MixreorgError, match=r"00002\.tar"):
        run(train_config.updated(data=data), tmp_path / "run")


def test_a_device_that_is_not_there(train_config: TrainConfig, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(MixreorgError, match="no usable CUDA device"):
        train(train_config, tmp_path / "run", device="cuda", console=Console(file=io.StringIO()))


@pytest.mark.parametrize(("batch_size", "message"), [(9, "does not divide among 2"), (12, "gets 6 images")])
def test_batches_that_processes_cannot_share(
    train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, batch_size: int, message: str
) -> None:
    monkeypatch.setattr("mixreorg.train.engine.world_size", lambda: 2)
    with pytest.raises(MixreorgError, match=message):
        check_shares(train_config.updated(batch_size=batch_size))


def test_a_protocol_with_background_and_bfloat16_train_too(train_config: TrainConfig, tmp_path: Path) -> None:
    protocol = train_config.protocol.updated(background_threshold=0.5)
    outcome, _ = run(train_config.updated(protocol=protocol, precision="bf16", steps=4), tmp_path / "run")
    assert outcome.metrics["step"] == 4
    assert Segmenter(load_model(tmp_path / "run")).protocol.background_threshold == 0.5


def test_an_evaluation_without_result_is_no_best_checkpoint(train_config: TrainConfig, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, train_config)
    for step, score in enumerate([float("nan"), 3.0, float("nan")], start=1):
        store._point_to(f"step-{step:08d}", Progress(step, {"foreground_miou": score}))
    state = json.loads((tmp_path / "state.json").read_text())
    assert state == {
        "latest": "step-00000003",
        "best": {"checkpoint": "step-00000002", "step": 2, "foreground_miou": 3.0},
    }


def test_a_run_can_be_made_longer(train_config: TrainConfig, tmp_path: Path) -> None:
    run(train_config.updated(steps=4), tmp_path / "run")
    outcome, _ = run(train_config.updated(steps=8), tmp_path / "run", resume=True)
    assert outcome.step == 8
    assert json.loads((tmp_path / "run" / "train_config.json").read_text())["steps"] == 8
    assert read_card(tmp_path / "run").earlier_steps == {4: 4}
    with pytest.raises(MixreorgError, match=r"steps was 4 up to step 4, then 8\), .* its first 4 steps"):
        reproduce(tmp_path / "run", tmp_path / "again", console=Console(quiet=True))
    assert not (tmp_path / "again").exists()
    again, console = run(train_config.updated(steps=8), tmp_path / "run", resume=True)
    assert again.step == 8
    assert "is finished" in console
    # Also where it is asked for fewer steps than it has.
    before = (tmp_path / "run" / "train_config.json").read_bytes()
    _, console = run(train_config.updated(steps=4), tmp_path / "run", resume=True)
    assert "is finished" in console
    assert (tmp_path / "run" / "train_config.json").read_bytes() == before


def test_a_run_that_could_not_begin_claims_no_folder(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MixreorgError, match=r"mixreorg\[wandb\]"):
        run(train_config.updated(wandb_project="scenes"), tmp_path / "run")
    outcome, _ = run(train_config.updated(steps=4), tmp_path / "run")
    assert outcome.step == 4


def test_nothing_that_is_not_a_number_is_saved(train_config: TrainConfig, tmp_path: Path) -> None:
    optim = train_config.optim.updated(lr=1e30, warmup_steps=0, clip_norm=1e30)
    config = train_config.updated(optim=optim, log_every=100, checkpoint_every=4)
    with pytest.raises(MixreorgError, match="not a finite number"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_the_run(train_config: TrainConfig, tmp_path: Path) -> None:
    optim = train_config.optim.updated(lr=1e30, warmup_steps=0, clip_norm=1e30)
    stream = io.StringIO()
    with pytest.raises(MixreorgError, match=r"not a finite number at step .*optim\.lr") as error:
        train(train_config.updated(optim=optim), tmp_path / "run", device="cpu", console=Console(file=stream))
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["alarm"] == "not_finite"
    assert str(error.value).startswith(last["message"])
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"alarm/not_finite" in events.read_bytes()
    assert "not a finite number" not in stream.getvalue(), "the error says it"


def test_a_run_starts_from_the_weights_of_another(train_config: TrainConfig, tmp_path: Path) -> None:
    run(train_config.updated(steps=2), tmp_path / "first")
    # The first step's learning rate is zero: what is saved after it are the weights that the run began with.
    optim = train_config.optim.updated(warmup_lr=0.0, warmup_steps=1)
    start = InitConfig(weights="groupvit", path=str(tmp_path / "first"))
    config = train_config.updated(steps=1, seed=7, objective=GroupViTConfig(), optim=optim, initialise=start)
    _, console = run(config, tmp_path / "second")
    assert re.search(r"loaded \d+ of \d+ tensors", console)
    first, second = weights(tmp_path / "first", 2), weights(tmp_path / "second", 1)
    moving = ("running_mean", "running_var", "num_batches_tracked")
    assert all(torch.equal(first[name], second[name]) for name in first if not name.endswith(moving))


def test_weights_that_are_not_there_leave_no_run_behind(train_config: TrainConfig, tmp_path: Path) -> None:
    start = InitConfig(weights="groupvit", path=str(tmp_path / "nothing"))
    with pytest.raises(MixreorgError, match="nothing"):
        run(train_config.updated(initialise=start), tmp_path / "run")
    outcome, _ = run(train_config.updated(steps=1), tmp_path / "run")
    assert outcome.step == 1


def test_a_warm_up_that_never_ends_is_told(train_config: TrainConfig, tmp_path: Path) -> None:
    optim = train_config.optim.updated(warmup_steps=train_config.steps)
    _, console = run(train_config.updated(optim=optim), tmp_path / "run")
    assert f"never reaches its {optim.lr:g}; for a run this short take --set optim.warmup_steps=0" in console
    _, console = run(train_config, tmp_path / "other")
    assert "never reaches" not in console


def test_a_log_record_says_how_the_run_goes(train_config: TrainConfig, tmp_path: Path) -> None:
    run(train_config.updated(steps=4), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[2])
    assert 0 < record["train/mfu"] < 1
    assert 0 <= record["train/data_wait_share"] <= 1
    assert 0.05 < record["train/memory_gib"] < 50


def test_alarms_reach_the_console_and_the_log(train_config: TrainConfig, tmp_path: Path) -> None:
    alarms = train_config.alarms.updated(gradient_factor=1.05)
    config = train_config.updated(steps=40, alarms=alarms, evaluation=EvaluationConfig())
    _, console = run(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    messages = [line["message"] for line in lines if line.get("alarm") == "exploding_gradient"]
    assert messages
    assert messages[0].split()[0] in console
    assert "--set optim." in console

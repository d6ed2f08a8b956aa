"""What happens to real runs: signals, shards that vanish, reading processes that die, disks that fill up."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from torch.utils.data import DataLoader, Dataset

from mixreorg.ablate.collect import is_trained
from mixreorg.data.loader import PairBatch
from mixreorg.errors import MixreorgError
from mixreorg.interop.loading import load_model
from mixreorg.objectives.terms import LossTerms
from mixreorg.train.card import read_card
from mixreorg.train.config import EvaluationConfig, TrainConfig
from mixreorg.train.engine import Engine, StepInputs
from mixreorg.train.reading import BatchReader, DeadReaderError
from mixreorg.train.trainer import TrainOutcome, train


@pytest.fixture
def config(train_config: TrainConfig, world: Path, tmp_path: Path) -> TrainConfig:
    """Thirty steps without evaluation, on shards that a test may damage."""
    shutil.copytree(world / "shards", tmp_path / "shards")
    data = train_config.data.updated(train=(str(tmp_path / "shards" / "*.tar"),))
    return train_config.updated(data=data, steps=30, checkpoint_every=100, evaluation=EvaluationConfig())


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {record["step"]: record["train/loss"] for record in records if "train/loss" in record}


class Watch(io.StringIO):
    """A console that does something when the run reports a step."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        super().__init__()
        self.step, self.action = step, action
        self.done = False

    def write(self, text: str) -> int:
        if not self.done and text.lstrip().startswith("step ") and f" {self.step}/" in text:
            self.done = True
            self.action()
        return super().write(text)


def run(config: TrainConfig, folder: Path, watch: Watch | None = None) -> None:
    console = Console(file=watch or io.StringIO(), width=400)
    train(config, folder, resume="auto", device="cpu", console=console)


def in_two_processes(config: Path, folder: Path) -> list[str]:
    """The command of a run of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mixreorg"]
    return [*command, "train", "--config", str(config), "--out", str(folder), "--device", "cpu"]


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_leaves_a_checkpoint_to_resume_from(
    config: TrainConfig, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    config = config.updated(steps=100_000, checkpoint_every=100_000)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "mixreorg", "train", "--config", str(tmp_path / "config.json")]
    folder = tmp_path / "run"
    process = subprocess.Popen([*command, "--out", str(folder), "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.read_text().count("\n") >= 3):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert word in errors
    assert f"mixreorg train --out {folder} --resume auto" in errors.replace("\n", " ")
    step = int(json.loads((folder / "state.json").read_text())["latest"].removeprefix("step-"))
    assert step >= 3
    assert load_model(folder).config.embed_dim == 16
    assert losses(folder).keys() == set(range(1, step + 1))


def test_terminated_processes_save_together(config: TrainConfig, tmp_path: Path) -> None:
    """What a scheduler does to a job of two processes before it takes the machine away."""
    config = config.updated(steps=100_000, checkpoint_every=100_000)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    folder = tmp_path / "run"
    command = in_two_processes(tmp_path / "config.json", folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert "terminated after step" in errors
    step = int(json.loads((folder / "state.json").read_text())["latest"].removeprefix("step-"))
    assert step >= 2
    assert losses(folder).keys() == set(range(1, step + 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_vanishes_stops_the_run_with_all_it_has_learned(
    config: TrainConfig, tmp_path: Path, workers: int
) -> None:
    config = config.updated(data=config.data.updated(num_workers=workers))
    run(config, tmp_path / "whole")
    shard = tmp_path / "shards" / "00001.tar"
    watch = Watch(3, lambda: shard.rename(tmp_path / "elsewhere.tar") and None)
    with pytest.raises(MixreorgError) as error:
        run(config, tmp_path / "run", watch)
    assert str(error.value).startswith("cannot read the shard")
    assert str(shard) in str(error.value)
    assert "Traceback" not in str(error.value)
    step = max(losses(tmp_path / "run"))
    assert 3 <= step < 30
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").is_dir()
    (tmp_path / "elsewhere.tar").rename(shard)
    run(config, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_an_evaluation_that_fails_costs_no_training(train_config: TrainConfig, world: Path, tmp_path: Path) -> None:
    voc = Path(shutil.copytree(world / "voc", tmp_path / "voc"))
    evaluation = train_config.evaluation.updated(root=str(voc))
    config = train_config.updated(evaluation=evaluation, checkpoint_every=4, steps=6)
    run(config, tmp_path / "whole")
    photo = sorted((voc / "JPEGImages").iterdir())[-1]
    photo.rename(tmp_path / "elsewhere")
    photo.write_bytes(b"no photo")
    for _ in range(2):  # the second time on resuming, in the evaluation that it begins with
        with pytest.raises(MixreorgError, match=photo.name):
            run(config, tmp_path / "run")
        assert (tmp_path / "run" / "checkpoints" / "step-00000004").is_dir()
        assert losses(tmp_path / "run").keys() == {1, 2, 3, 4}
    (tmp_path / "elsewhere").rename(photo)
    run(config, tmp_path / "run")
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("option", ["evaluation", "wandb_project"])
def test_what_one_process_fails_of_is_no_traceback_in_the_other(
    train_config: TrainConfig, world: Path, tmp_path: Path, option: str
) -> None:
    config = train_config.updated(steps=4)
    if option == "evaluation":
        voc = Path(shutil.copytree(world / "voc", tmp_path / "voc"))
        names = (voc / "ImageSets" / "Segmentation" / f"{config.evaluation.split}.txt").read_text().split()
        (voc / "JPEGImages" / f"{names[0]}.jpg").write_bytes(b"no photo")  # in the first process's part
        config = config.updated(evaluation=config.evaluation.updated(root=str(voc)))
    else:
        config = config.updated(wandb_project="none")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "wandb.py").write_text("raise ImportError('not for this test')")
    command = in_two_processes(tmp_path / "config.json", tmp_path / "run")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    errors = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment).stderr
    assert "error: " in errors
    # A traceback of the launcher's own tells that its children failed; theirs would bear the number of a process.
    assert "[rank" not in errors, errors
    assert "gloo" not in errors
    assert (tmp_path / "run" / "checkpoints" / "step-00000004").is_dir() == (option == "evaluation")


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), ConnectionRefusedError(), EOFError()])
def test_a_reading_process_that_dies_while_it_hands_a_batch_over(error: Exception) -> None:
    def broken() -> Iterator[PairBatch]:
        raise error
        yield

    reader = BatchReader.__new__(BatchReader)
    reader._batches, reader._workers = broken(), 2
    with pytest.raises(MixreorgError, match=r"reading process died \(\S.*\), .*data.num_workers"):
        reader.next()


class _Faulty(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        raise ConnectionResetError("the storage hung up")


def test_what_a_living_reading_process_raises_is_no_death() -> None:
    reader = BatchReader.__new__(BatchReader)
    handler = signal.getsignal(signal.SIGCHLD)
    reader._batches, reader._workers = iter(DataLoader(_Faulty(), batch_sampler=[[0]], num_workers=1)), 1
    signal.signal(signal.SIGCHLD, handler)
    with pytest.raises(ConnectionResetError, match="the storage hung up"):
        reader.next()


def test_a_reading_process_that_dies_stops_the_run_with_all_it_has_learned(config: TrainConfig, tmp_path: Path) -> None:
    config = config.updated(data=config.data.updated(num_workers=2))
    run(config, tmp_path / "whole")

    def kill_the_workers() -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(MixreorgError, match=r"reading process died .*--resume auto.*data.num_workers"):
        run(config, tmp_path / "run", Watch(3, kill_the_workers))
    step = max(losses(tmp_path / "run"))
    assert 3 <= step < 30
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").is_dir()
    run(config, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("fault", ["shard", "reader"])
def test_a_command_that_can_read_no_more_ends(config: TrainConfig, tmp_path: Path, fault: str) -> None:
    """At its exit Python waits for the reading processes, which leave the first SIGTERM to others."""
    data = config.data.updated(num_workers=2)
    config = config.updated(steps=100_000, checkpoint_every=100_000, data=data)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    folder, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    command = [sys.executable, "-m", "mixreorg", "train", "--config", str(tmp_path / "config.json")]
    process = subprocess.Popen([*command, "--out", str(folder), "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while not (log.is_file() and log.read_text().count("\n") >= 2):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if fault == "shard":
            for shard in (tmp_path / "shards").glob("*.tar"):
                shard.unlink()
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2
    assert "error: " in errors
    assert "Traceback" not in errors
    step = max(losses(folder))
    assert (folder / "checkpoints" / f"step-{step:08d}").is_dir()


def test_reading_processes_leave_the_first_sigterm_to_the_training_process(config: TrainConfig, tmp_path: Path) -> None:
    """It reaches the whole group, and the next batch is needed to stop; a second one ends them."""
    config = config.updated(steps=8, data=config.data.updated(num_workers=1))

    def terminate_the_workers() -> None:
        for process in multiprocessing.active_children():
            process.terminate()

    run(config, tmp_path / "run", Watch(3, terminate_the_workers))
    assert losses(tmp_path / "run").keys() == set(range(1, 9))

    def terminate_them_twice() -> None:
        for process in multiprocessing.active_children():
            while process.is_alive():
                process.terminate()
                process.join(0.2)

    with pytest.raises(MixreorgError, match="reading process died"):
        run(config.updated(steps=30), tmp_path / "twice", Watch(3, terminate_them_twice))


@pytest.mark.parametrize("message", ["a reading process died", "cannot read the shard"])
def test_the_end_of_the_whole_group_is_no_death_of_its_reading_processes(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def end(reader: BatchReader) -> PairBatch:
        os.kill(os.getpid(), signal.SIGTERM)
        raise (DeadReaderError if "died" in message else MixreorgError)(message)

    watch = Watch(2, lambda: monkeypatch.setattr(BatchReader, "next", end))
    console = Console(file=watch, width=400)
    if "died" in message:
        outcome = train(config, tmp_path / "run", device="cpu", console=console)
        assert (outcome.step, outcome.stopped) == (2, "terminate")
        assert "terminated after step 2" in watch.getvalue()
    else:
        with pytest.raises(MixreorgError, match=message):
            train(config, tmp_path / "run", device="cpu", console=console)
    assert read_card(tmp_path / "run").step == 2


@pytest.mark.parametrize("cause", ["signal", "data"])
def test_what_is_not_a_number_is_not_saved_at_a_stop(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    original = Engine.step

    def fail(reader: BatchReader) -> PairBatch:
        raise MixreorgError("cannot read the shard")

    def step(engine: Engine, inputs: StepInputs, number: int, rate: float) -> LossTerms:
        if number == 2:
            engine.objective.model.logit_scale.data.fill_(float("nan"))
            if cause == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                monkeypatch.setattr(BatchReader, "next", fail)
        return original(engine, inputs, number, rate)

    monkeypatch.setattr(Engine, "step", step)
    config = config.updated(steps=4, checkpoint_every=2, log_every=4)
    with pytest.raises(MixreorgError, match=r"not a finite number at step 3.* newest checkpoint is that of step 2"):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "state.json").read_text())["latest"] == "step-00000002"
    run(config, tmp_path / "run")
    assert is_trained(tmp_path / "run", 4)


def numbers(folder: Path) -> list[dict[str, float]]:
    """Losses and evaluations of a log, without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    names = ("step", "train/loss", "val/")
    return [{name: value for name, value in record.items() if name.startswith(names)} for record in records]


@pytest.mark.parametrize("steps", [4, 6], ids=["after the last step", "at an interval"])
def test_an_evaluation_that_a_signal_ends_is_done_on_resuming(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    from mixreorg.train import evaluation

    config = train_config.updated(steps=steps)
    original = evaluation.evaluate_split

    def terminated(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)  # type: ignore[arg-type]

    def go_on(folder: Path) -> tuple[TrainOutcome, str]:
        stream = io.StringIO()
        outcome = train(config, folder, resume="auto", device="cpu", console=Console(file=stream, width=200))
        return outcome, stream.getvalue()

    for _ in range(2):  # the second time on resuming, in the evaluation that it begins with
        monkeypatch.setattr(evaluation, "evaluate_split", terminated)
        outcome, console = go_on(tmp_path / "run")
        assert (outcome.step, outcome.stopped, outcome.metrics) == (4, "terminate", {})
        assert console.count("evaluation left out") == 1
        assert "is finished" not in console
        monkeypatch.undo()
        state = json.loads((tmp_path / "run" / "state.json").read_text())
        assert state == {"latest": "step-00000004", "best": None}
        assert not is_trained(tmp_path / "run", 4)
    whole, _ = go_on(tmp_path / "whole")
    resumed, _ = go_on(tmp_path / "run")
    assert resumed == whole
    assert is_trained(tmp_path / "run", steps)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    for name in ("state.json", "checkpoints/step-00000004/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cards = [read_card(tmp_path / name / "checkpoints" / "step-00000004") for name in ("run", "whole")]
    assert cards[0].metrics == cards[1].metrics != {}
    again, console = go_on(tmp_path / "run")
    assert again == whole
    assert "is finished" in console


def test_resuming_on_other_pairs_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    run(config.updated(steps=2), tmp_path / "run")
    (tmp_path / "shards" / "00001.tar").unlink()
    with pytest.raises(MixreorgError, match=r"other caption pairs: 96 then, 48 now"):
        run(config, tmp_path / "run")


def test_two_runs_at_once_in_one_folder_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "mixreorg", "train", "--config", str(tmp_path / "config.json")]
    command += ["--out", str(tmp_path / "run"), "--resume", "auto", "--device", "cpu"]
    second: list[subprocess.CompletedProcess[str]] = []
    watch = Watch(2, lambda: second.append(subprocess.run(command, capture_output=True, text=True, timeout=120)))
    run(config, tmp_path / "run", watch)
    assert second[0].returncode == 2
    assert "another process is training in" in " ".join(second[0].stderr.split())
    # Whoever comes after it may go on.
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0

"""A training run that is killed again and again, and must come out as if nothing had happened."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mixreorg.train.config import EvaluationConfig, TrainConfig

STEPS = 180
IMPORTED = ["mixreorg.cli.main", "mixreorg.train.trainer", "accelerate", "torch.utils.tensorboard"]

Process = ForkServerProcess | subprocess.Popen[bytes]


def arguments(folder: Path, run: str, num_workers: int) -> list[str]:
    config = ["--config", str(folder / "config.json"), "--set", f"data.num_workers={num_workers}"]
    return ["train", *config, "--out", str(folder / run), "--device", "cpu", "--resume", "auto"]


def train_here(command: list[str], output: Path) -> None:
    """What a process of the fork server does: the command line, in a process that has imported it already."""
    os.setsid()
    # Reading processes are started as in an interpreter of one's own.
    multiprocessing.set_start_method(None, force=True)
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["mixreorg", *command]
    from mixreorg.cli.main import main

    main()


def start_fresh(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """The command line as a user starts it, with seconds of imports."""
    with output.open("ab") as file:
        whole = [sys.executable, "-m", "mixreorg", *command]
        return subprocess.Popen(whole, stdout=file, stderr=file, start_new_session=True)


def start_forked(command: list[str], output: Path) -> ForkServerProcess:
    process = multiprocessing.get_context("forkserver").Process(target=train_here, args=(command, output))
    process.start()
    return process


def is_alive(process: Process) -> bool:
    return process.is_alive() if isinstance(process, ForkServerProcess) else process.poll() is None


def wait_until(happened: Callable[[], bool], process: Process, output: Path) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert is_alive(process), f"ended by itself:\n{output.read_text()[-3000:]}"
        assert time.monotonic() < deadline, output.read_text()[-3000:]
        time.sleep(0.0005)


def wait_for_end(process: Process, output: Path) -> None:
    if isinstance(process, ForkServerProcess):
        process.join(timeout=120)
        code = process.exitcode
    else:
        code = process.wait(timeout=120)
    assert code == 0, output.read_text()[-3000:]


def num_trained(output: Path) -> int:
    """Steps that a process has printed."""
    return output.read_bytes().count(b"\nstep ") if output.is_file() else 0


def partial_checkpoints(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob(".step-*.partial"))


@contextmanager
def kill_at_the_end(process: Process) -> Iterator[Process]:
    """Nothing may outlive the test, whatever fails."""
    try:
        yield process
    finally:
        process.kill()
        process.join() if isinstance(process, ForkServerProcess) else process.wait()


def remaining(groups: Iterable[int]) -> list[int]:
    """Process groups that still have a process."""
    alive = []
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, 0)
            alive.append(group)
    return alive


def assert_nothing_is_left(groups: list[int]) -> None:
    """Reading processes of a killed training process notice within seconds, and end."""
    deadline = time.monotonic() + 120
    while remaining(groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = remaining(groups)
    for group in left:
        os.killpg(group, signal.SIGKILL)
    assert not left


def wait_for_moment(moment: str, generator: random.Random, process: Process, run: Path, output: Path) -> None:
    """Return when the process is to be killed."""
    match moment:
        case "import":
            time.sleep(generator.uniform(0.2, 5.0))
        case "start":
            end = time.monotonic() + generator.uniform(0.02, 1.5)
            wait_until(lambda: time.monotonic() > end or num_trained(output) > 2, process, output)
        case "step":
            more = generator.randint(1, 10)
            wait_until(lambda: num_trained(output) >= more, process, output)
            time.sleep(generator.uniform(0, 0.05))
        case "save":
            for _ in range(generator.randint(1, 3)):
                # What an earlier kill left goes first.
                wait_until(lambda: not partial_checkpoints(run), process, output)
                wait_until(lambda: bool(partial_checkpoints(run)), process, output)
            time.sleep(generator.choice([0, generator.uniform(0, 0.03)]))


@pytest.fixture
def folder(train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = train_config.updated(steps=STEPS, checkpoint_every=3, evaluation=EvaluationConfig())
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    # The fork server takes its environment from here; more threads would add up numbers in another order.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    return tmp_path


def records(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]


def test_a_run_killed_twenty_times_equals_one_that_was_not(folder: Path) -> None:
    generator = random.Random(20)
    moments = ["import"] * 3 + ["start"] * 5 + ["step"] * 6 + ["save"] * 6
    generator.shuffle(moments)
    whole, killed = folder / "whole", folder / "killed"
    left_partial = 0
    pids: list[int] = []
    with kill_at_the_end(start_forked(arguments(folder, "whole", 0), folder / "whole.txt")) as reference:
        for number, moment in enumerate(moments):
            start = start_fresh if moment == "import" else start_forked
            output = folder / f"killed-{number}.txt"
            with kill_at_the_end(start(arguments(folder, "killed", number % 3), output)) as process:
                pids.append(process.pid)
                wait_for_moment(moment, generator, process, killed, output)
                assert is_alive(process), output.read_text()
            left_partial += bool(partial_checkpoints(killed))
        output = folder / "killed-last.txt"
        with kill_at_the_end(start_fresh(arguments(folder, "killed", 0), output)) as process:
            wait_for_end(process, output)
        wait_for_end(reference, folder / "whole.txt")
    assert_nothing_is_left(pids)
    assert left_partial > 0
    assert not any("is damaged" in path.read_text() for path in folder.glob("killed-*.txt"))
    assert records(whole) == records(killed)
    assert [step for step, _ in records(killed)] == list(range(1, STEPS + 1))
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = (load_file(run / "checkpoints" / f"step-{STEPS:08d}" / name) for run in (whole, killed))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    names = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert names == [f"step-{STEPS - 3:08d}", f"step-{STEPS:08d}"]


def test_reading_processes_with_more_than_a_pipe_holds_end_with_a_killed_run(folder: Path) -> None:
    Image.new("RGB", (32, 32)).save(folder / "photo.png")
    lines = [json.dumps({"image": "photo.png", "caption": f"{number} " + 9_999 * "long "}) for number in range(16)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    output = folder / "killed.txt"
    command = [*arguments(folder, "killed", 2), "--data", str(folder)]
    with kill_at_the_end(start_forked(command, output)) as process:
        wait_until(lambda: num_trained(output) > 0, process, output)
    assert_nothing_is_left([process.pid])

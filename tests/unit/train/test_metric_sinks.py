"""What sinks write, and that no sink that fails ends a run."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from mixreorg.errors import MixreorgError
from mixreorg.train.alarms import Alarm
from mixreorg.train.card import logged_losses
from mixreorg.train.metric_sinks import (
    ConsoleSink,
    GuardedSink,
    JsonlSink,
    MetricSink,
    TensorBoardSink,
    WandbSink,
    open_sinks,
)

ALARM = Alarm("one_segment", "an image uses 1.0 of its 8 segments [grouping]")
RECORD = {
    "train/loss": 6.2134,
    "train/contrastive": 5.1,
    "train/mixed": 1.1134,
    "train/mixed_mask_accuracy": 0.41,
    "train/segments_in_use": 4.83,
    "train/logit_scale": 14.2,
    "train/gradient_norm": 14.138,
    "train/learning_rate": 0.00041,
    "train/pairs_per_second": 1234.4,
    "train/data_wait_share": 0.02,
    "train/mfu": 0.313,
    "train/memory_gib": 18.23,
    "train/eta_seconds": 3 * 3600 + 12 * 60 + 5,
}


@pytest.fixture
def text() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(text: io.StringIO) -> Console:
    return Console(file=text, width=80)


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file grows past a size: the kernel cuts the write that would, then refuses."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def test_jsonl_holds_every_value_under_its_name(tmp_path):
    sink = JsonlSink(tmp_path / "log.jsonl", 0)
    sink.write(50, {**RECORD, "train/mixed": float("nan"), "train/gradient_norm": float("inf")})
    sink.alarm(50, ALARM)
    # Read while the sink is open: an interrupted run keeps its lines.
    first, second = jsonl(tmp_path / "log.jsonl")
    sink.close()
    assert first == {"step": 50, **RECORD, "train/mixed": None, "train/gradient_norm": None}
    assert second == {"step": 50, "alarm": "one_segment", "message": ALARM.message}


def test_jsonl_goes_on_after_the_step_that_is_resumed_and_mends_a_cut_line(tmp_path):
    path = tmp_path / "log.jsonl"
    sink = JsonlSink(path, 0)
    for step in (10, 20, 30):
        sink.write(step, {"train/loss": float(step)})
    sink.close()
    with path.open("a") as file:
        file.write('{"step": 40, "train/lo')
    sink = JsonlSink(path, 20)
    sink.write(30, {"train/loss": 31.0})
    sink.close()
    assert [(record["step"], record["train/loss"]) for record in jsonl(path)] == [(10, 10), (20, 20), (30, 31)]


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"", b"[3]", b'{"step": null}', b'{"step": "4"}', b"\x00" * 9])
def test_jsonl_keeps_what_stands_around_a_damaged_line(tmp_path, damage):
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step, "train/loss": float(step)}).encode() for step in (1, 2, 3)]
    path.write_bytes(b"\n".join([lines[0], damage, *lines[1:], damage]))
    assert logged_losses(path, 3) == {1: 1.0, 2: 2.0, 3: 3.0}
    JsonlSink(path, 2).close()
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines[:2])


def test_tensorboard_reads_what_was_written_and_drops_what_a_resumed_run_repeats(tmp_path):
    sink = TensorBoardSink(tmp_path, 0)
    for step in (10, 20, 30):
        sink.write(step, {"train/loss": step / 8, "val/foreground_miou": 1.0})
    sink.alarm(30, ALARM)
    sink.close()
    sink = TensorBoardSink(tmp_path, 20)
    sink.write(30, {"train/loss": 9.0})
    sink.close()
    assert scalars(tmp_path, "train/loss") == [(10, 1.25), (20, 2.5), (30, 9.0)]


def test_tensorboard_shows_alarms_as_texts(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path, 0)
    sink.alarm(30, ALARM)
    sink.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert list(accumulator.PluginTagToContent("text")) == ["alarm/one_segment"]
    (event,) = accumulator.Tensors("alarm/one_segment")
    assert event.tensor_proto.string_val[0].decode() == ALARM.message


def test_the_console_line_reads_at_a_glance(console, text):
    sink = ConsoleSink(console, 87900)
    sink.write(1250, RECORD)
    assert text.getvalue() == (
        "step  1,250/87,900  loss  6.21 (con  5.10 mix  1.11)  acc  41%  segments 4.8  grad  14.1    1,234 pairs/s  "
        "mfu 31%  wait  2%   18.2 GiB  eta 3 h 12 min\n"
    )


def test_the_console_leaves_out_what_a_record_lacks(console, text):
    sink = ConsoleSink(console, 100)
    sink.write(5, {"train/loss": 4.0, "train/contrastive": 4.0, "train/memory_gib": 0.5})
    sink.write(5, {"val/foreground_miou": 49.753, "val/recognition": 73.7})
    sink.alarm(5, ALARM)
    assert text.getvalue().splitlines() == [
        "step   5/100  loss  4.00   0.50 GiB",
        "step   5/100  val/foreground_miou 49.8  val/recognition 73.7",
        f"step   5/100  {ALARM.message}",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7384, "2 h 3 min"), (2 * 86400 + 5 * 3600 + 60, "2 d 5 h")],
)
def test_time_left_has_sensible_units(console, text, seconds, shown):
    ConsoleSink(console, 10).write(1, {"train/loss": 1.0, "train/eta_seconds": seconds})
    assert text.getvalue().endswith(f"eta {shown}\n")


def test_a_full_disk_is_reported_once_and_logging_goes_on_when_there_is_room_again(tmp_path, console, text):
    sinks = open_sinks(tmp_path, 0, 100, console)
    for step in (1, 2):
        _write(sinks, step)
    with disk_full_at((tmp_path / "log.jsonl").stat().st_size + 20):
        for step in (3, 4, 5):
            _write(sinks, step)
        sinks[0].alarm(5, ALARM)
    during = text.getvalue()
    _write(sinks, 6)
    for sink in sinks:
        sink.close()
    assert during.count("cannot be written") == 2, "one warning each for log.jsonl and tensorboard"
    assert f"{tmp_path / 'log.jsonl'} cannot be written (No space left on device); training goes on" in during
    assert f"{tmp_path / 'log.jsonl'} is written again; 4 records from step 3 on are missing" in text.getvalue()
    assert [record["step"] for record in jsonl(tmp_path / "log.jsonl")] == [1, 2, 6]
    assert [step for step, _ in scalars(tmp_path / "tensorboard", "train/loss")] == [1, 2, 6]
    # The console, which is no file, has missed nothing.
    assert sum("loss" in line for line in text.getvalue().splitlines()) == 6


def test_a_disk_that_is_full_from_the_start_stops_only_tensorboard(tmp_path, console, text):
    with disk_full_at(10):
        sinks = open_sinks(tmp_path, 0, 100, console)
        _write(sinks, 1)
        assert not list((tmp_path / "tensorboard").iterdir()), "no empty event files are left behind"
    _write(sinks, 2)
    for sink in sinks:
        sink.close()
    assert [record["step"] for record in jsonl(tmp_path / "log.jsonl")] == [2]
    assert [step for step, _ in scalars(tmp_path / "tensorboard", "train/loss")] == [2]


def test_a_tensorboard_folder_that_cannot_be_made_costs_one_warning(tmp_path, console, text):
    (tmp_path / "tensorboard").write_text("in the way")
    sinks = open_sinks(tmp_path, 0, 100, console)
    for step in (1, 2):
        _write(sinks, step)
    for sink in sinks:
        sink.close()
    assert text.getvalue().count("cannot be written") == 1
    assert f"{tmp_path / 'tensorboard'} cannot be written (File exists)" in text.getvalue()
    assert [record["step"] for record in jsonl(tmp_path / "log.jsonl")] == [1, 2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a folder that nobody can write to")
def test_a_read_only_tensorboard_folder_costs_one_warning(tmp_path, console, text):
    (tmp_path / "tensorboard").symlink_to("/proc/self/task")
    sinks = open_sinks(tmp_path, 0, 100, console)
    for step in (1, 2):
        _write(sinks, step)
    for sink in sinks:
        sink.close()
    assert text.getvalue().count("tensorboard cannot be written") == 1
    assert [record["step"] for record in jsonl(tmp_path / "log.jsonl")] == [1, 2]


def test_a_console_that_goes_to_a_full_disk_stops_nothing(tmp_path):
    with (tmp_path / "console.txt").open("w", buffering=1) as file:
        sinks = open_sinks(tmp_path, 0, 100, Console(file=file, width=80))
        _write(sinks, 1)
        with disk_full_at(300):
            for step in range(2, 12):
                _write(sinks, step)
        _write(sinks, 12)
        for sink in sinks:
            sink.close()
    assert [record["step"] for record in jsonl(tmp_path / "log.jsonl")][-1] == 12
    assert "the console is written again" in (tmp_path / "console.txt").read_text()


def test_a_run_folder_that_cannot_be_written_at_all_is_an_error(tmp_path, console):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(MixreorgError, match=r"cannot write .*log\.jsonl"):
        open_sinks(tmp_path / "run", 0, 100, console)


def test_only_failures_to_write_are_guarded_against():
    class Broken:
        def write(self, step: int, metrics: object) -> None:
            raise KeyError("a defect")

    guarded = GuardedSink("broken", Broken, lambda message: None)
    with pytest.raises(KeyError):
        guarded.write(1, {})


def test_without_the_package_wandb_one_error_says_what_to_install(tmp_path, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MixreorgError, match=r"pip install 'mixreorg\[wandb\]'"):
        open_sinks(tmp_path, 0, 100, console, wandb_project="scenes")


_WANDB = """
import sys
from pathlib import Path
from rich.console import Console
from mixreorg.errors import MixreorgError
from mixreorg.train.alarms import Alarm
from mixreorg.train.metric_sinks import open_sinks

for first in (0, 20):
    console = Console(stderr=True)
    config = {"optim": {"lr": 0.125}}
    try:
        sinks = open_sinks(Path(sys.argv[1]), first, 100, console, wandb_project="scenes", config=config)
    except MixreorgError as error:
        sys.exit(str(error))
    for sink in sinks:
        sink.write(first + 10, {"train/loss": 1.5 + first})
        sink.alarm(first + 10, Alarm("slow", "half as fast"))
        sink.close()
"""


def _wandb(run: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Log twice, as a run and its resumption, with nobody's login: neither the environment's nor the home folder's."""
    pytest.importorskip("wandb")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", _WANDB, str(run)],
        env={**kept, "HOME": str(run), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_wandb_offline_goes_on_with_the_same_run_after_a_resume(tmp_path):
    done = _wandb(tmp_path, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    identity = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.name for path in files] == [f"run-{identity}.wandb"] * 2
    content = files[1].read_bytes()
    for expected in (b"train/loss", b"21.5", b"optim", b"0.125", b"slow at step 30"):
        assert expected in content


def test_wandb_without_a_login_is_one_error(tmp_path):
    done = _wandb(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Weights & Biases cannot be used (No API key configured")
    assert "set WANDB_MODE=offline to upload later" in done.stderr


def test_a_wandb_that_broke_is_reported_once(console, text):
    class Run:
        def log(self, metrics: object) -> None:
            raise RuntimeError("service is gone")

        def finish(self) -> None:
            raise RuntimeError("service is gone")

    sink = WandbSink.__new__(WandbSink)
    sink._run = Run()
    guarded = GuardedSink("Weights & Biases", lambda: sink, console.print)
    for step in (1, 2):
        guarded.write(step, RECORD)
    guarded.close()
    assert text.getvalue().count("cannot be written") == 1
    assert "RuntimeError: service is gone" in " ".join(text.getvalue().split())


def _write(sinks: list[MetricSink], step: int) -> None:
    for sink in sinks:
        sink.write(step, {"train/loss": 1.0 / step})

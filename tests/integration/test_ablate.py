"""An ablation end to end: stopped in the middle, gone on with, measured, reported; and what is refused."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from mixreorg.ablate.results import read_results
from mixreorg.ablate.run import run_ablation
from mixreorg.config import read_config_file
from mixreorg.errors import MixreorgError

EXAMPLE = Path(__file__).parents[2] / "examples" / "ablate" / "small.yaml"


@pytest.fixture
def spec(tmp_path):
    """The example with fewer scenes, one seed, and two rows of which one cannot be trained."""
    values = read_config_file(EXAMPLE)
    values["worlds"]["tiny"] |= {"train": 48, "val": 6, "test": 6, "set": {"label_stuff": True}}
    values["seeds"] = [0]
    values["set"] |= {"log_every": 1, "checkpoint_every": 6, "evaluation.every": 6, "steps": 12, "batch_size": 16}
    del values["rows"]["unit"]
    values["rows"]["groupvit"]["set"] = {"initialise.weights": "vit", "initialise.path": "nowhere.pth"}
    values["measure"] |= {"splits": [{"name": "test"}], "mixed_scenes": 6}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(values))
    return path


def stop_when(path: Path, text: str) -> threading.Thread:
    """SIGTERM to this process once a file holds a text."""

    def watch():
        deadline = time.monotonic() + 200
        while not (path.is_file() and text in path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_ablation_is_stopped_and_gone_on_with(spec, tmp_path):
    out = tmp_path / "out"
    run = out / "runs" / "mixreorg" / "seed-0"
    stopper = stop_when(run / "log.jsonl", '"step": 7')
    first = run_ablation(spec, out, only=["mixreorg"], device="cpu", console=Console(quiet=True))
    stopper.join()
    assert first.stopped == "terminate"
    assert read_results(out / "results.json").runs[0].state == "unfinished"
    stopped_at = json.loads((run / "card.json").read_text())["step"]
    assert 7 <= stopped_at < 12

    with (tmp_path / "console.txt").open("w") as text:
        second = run_ablation(spec, out, workers=2, device="cpu", console=Console(file=text, width=200))
    assert (second.stopped, second.failed) == (None, ("groupvit, seed 0",))
    said = (tmp_path / "console.txt").read_text()
    assert "groupvit, seed 0: failed" in said
    assert "nowhere.pth" in said
    assert "mixreorg, seed 0: finished" in said

    results = read_results(out / "results.json")
    (result,) = results.finished("mixreorg")
    assert (result.steps, result.cost.parts, result.precision in ("fp32", "bf16")) == (12, 2, True)
    assert 0 < result.cost.train_seconds < result.cost.process_seconds
    assert result.cost.train_cpu_seconds > 0
    assert result.checkpoints["last"].step == 12
    assert result.checkpoints["best"].step in (6, 12)
    assert {"own", "common"} == set(result.checkpoints["best"].mixed_mask_accuracy)
    measured = set(result.checkpoints["best"].splits["test"])
    assert {"foreground_miou", "background_miou", "things_miou", "stuff_miou", "stuff_named_things"} <= measured
    assert [record["step"] for record in result.curve.val] == [6, 12]
    assert len(result.curve.train) == 12
    assert "MixReorg" in (out / "index.html").read_text(encoding="utf-8")
    assert "mixreorg,MixReorg,scenes_mixreorg" in (out / "results.csv").read_text()

    weights = run / "checkpoints" / "step-00000012" / "model.safetensors"
    before = (weights.stat().st_mtime_ns, (run / "ablate_measured.json").stat().st_mtime_ns)
    config = json.loads((run / "ablate_config.json").read_text())
    del config["objective"]["counted_patches"]  # as an earlier version wrote it, which did not know this option
    (run / "ablate_config.json").write_text(json.dumps(config))
    again = run_ablation(spec, out, only=["mixreorg"], device="cpu", console=Console(quiet=True))
    assert (again.failed, again.stopped) == ((), None)
    assert (weights.stat().st_mtime_ns, (run / "ablate_measured.json").stat().st_mtime_ns) == before
    assert read_results(out / "results.json") == results

    values = json.loads(spec.read_text())
    values["set"]["optim.lr"] = 1e-4
    spec.write_text(json.dumps(values))
    with pytest.raises(MixreorgError, match=r"mixreorg, seed 0: .* another optim\.lr; give the row another name"):
        run_ablation(spec, out, device="cpu", console=Console(quiet=True))


def ablate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixreorg", "ablate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200)


def test_mistakes_are_one_line_and_leave_nothing(tmp_path):
    result = ablate(EXAMPLE, EXAMPLE, "--out", tmp_path / "out")
    assert (result.returncode, result.stderr) == (
        2,
        "error: 2 files: give one ablation, or add --report or --join to read result files\n",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_example(tmp_path):
    out = tmp_path / "out"
    result = ablate(EXAMPLE, "--out", out, "--workers", 2, "--device", "cpu")
    assert result.returncode == 0, result.stderr[-3000:]
    results = read_results(out / "results.json")
    assert [(run.row, run.seed) for run in results.runs if run.state == "finished"] == [
        (row, seed) for row in ("groupvit", "mixreorg", "unit-1", "unit-4") for seed in (0, 1)
    ]
    report = ablate("--report", out / "results.json", "--out", tmp_path / "report")
    assert report.returncode == 0, report.stderr
    for name in ("index.html", "results.csv", "results.md"):
        assert (tmp_path / "report" / name).read_bytes() == (out / name).read_bytes()

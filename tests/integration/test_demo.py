"""The main job end to end, in its fast form: scenes, tokenizer, training in processes, evaluation, page."""

import json
import re
import subprocess
import sys
from pathlib import Path


def demo(out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixreorg", "demo", "--fast", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_fast_demo_from_nothing_and_once_more(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = demo(out)
    assert first.returncode == 0, first.stderr[-3000:]
    report = json.loads((out / "report.json").read_text())
    for name in ("foreground_miou", "untrained_foreground_miou", "mixed_mask_accuracy", "seconds", "background_miou"):
        assert report[name] >= 0, name
    assert report["num_test_scenes"] == 100
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    losses = [record["train/contrastive"] for record in log if "train/contrastive" in record]
    assert losses[-1] < losses[0]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 12 * 4 + 8 * 5
    assert not re.search(r"""(src|href)=["']https?://(?!openmoji\.org|creativecommons\.org)""", page)
    weights = (out / "run" / "checkpoints" / "step-00000150" / "model.safetensors").stat().st_mtime_ns

    again = demo(out)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "using the scenes in" in again.stderr
    assert (out / "run" / "checkpoints" / "step-00000150" / "model.safetensors").stat().st_mtime_ns == weights
    repeated = json.loads((out / "report.json").read_text())
    assert {**repeated, "seconds": 0} == {**report, "seconds": 0}


def test_processes_that_do_not_divide_the_batch_are_refused_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mixreorg", "demo", "--processes", "3", "--out", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "must divide" in result.stderr
    assert not (tmp_path / "demo").exists()


def test_another_folder_is_asked_for_when_this_one_holds_other_scenes(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "scenes.json").write_text('{"config": {}, "num_scenes": {"train": 1}}')
    result = demo(tmp_path)
    assert result.returncode == 2
    assert "holds other scenes" in result.stderr
    assert "Traceback" not in result.stderr

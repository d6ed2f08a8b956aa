"""What an interrupted demonstration leaves."""

from pathlib import Path

import pytest

from mixreorg.demo import run as demo_run
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json


def test_the_time_of_interrupted_calls_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_run, "ensure_scenes", lambda *_, **__: tmp_path / "scenes")
    monkeypatch.setattr(demo_run, "ensure_tokenizer", lambda *_, **__: None)
    monkeypatch.setattr(demo_run, "_train", interrupt)
    seconds = [0.0]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo_run.run_demo(tmp_path, fast=True, processes=1)
        seconds.append(read_json(tmp_path / "seconds.json")["seconds"])
    assert seconds[0] < seconds[1] < seconds[2]


@pytest.mark.parametrize("processes", [0, 3, 32])
def test_processes_share_whole_groups(tmp_path: Path, processes: int) -> None:
    with pytest.raises(MixreorgError, match=f"--processes {processes}: the 16 groups of a step must divide by it"):
        demo_run.run_demo(tmp_path / "demo", fast=True, processes=processes)
    assert not (tmp_path / "demo").exists()

"""Commands of all pages are understood; what the page about training names exists; its Slurm script works."""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import get_args

import pytest
import typer
from PIL import Image

from mixreorg.cli.main import app
from mixreorg.data.doctor.kinds import allowed_kinds
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.recipes import RECIPES, recipe
from mixreorg.segment.results import Segmentation
from mixreorg.train.alarms import AlarmKind
from mixreorg.train.config import EngineConfig, TrainConfig
from mixreorg.train.stopping import EXIT_CODES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
WEIGHTS = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
HOW = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "examples" / "slurm" / "train.sbatch"
PARTS = ("data", "engine", "objective", "evaluation", "initialise", "alarms")


def commands() -> list[list[str]]:
    """Arguments of every complete `mixreorg` command in the pages' blocks."""
    pages = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    blocks = [
        block for page in pages for block in re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    ]
    words = [shlex.split(line) for block in blocks for line in block.splitlines() if not line.startswith("pip ")]
    return [line[line.index("mixreorg") + 1 :] for line in words if "mixreorg" in line]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_are_understood(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        name, *arguments = arguments
        command = command.commands[name]
    values = command.make_context("mixreorg", arguments).params
    if values.get("recipe"):
        run = recipe(values["recipe"]).to_dict()
        run["data"]["train"] = values["data"] or []
        TrainConfig.from_dict(run, source="the page").with_overrides(values["assignments"] or [])


def test_settings_exist() -> None:
    fields = re.findall(rf"`((?:{'|'.join(PARTS)})\.[a-z_.]+)(?:=[^`]*)?`", PAGE)
    assert len(set(fields)) >= 15
    known = TrainConfig().to_dict()
    for field in fields:
        values = known
        for name in field.split("."):
            assert name in values, field
            values = values[name]


def test_methods_of_results_exist() -> None:
    names = re.findall(r"segmentation\.(\w+)", WEIGHTS)
    assert len(names) >= 8
    for name in names:
        assert hasattr(Segmentation, name) or name in Segmentation.__dataclass_fields__


def test_the_snippet_about_explanations_runs(
    varied_model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(varied_model, tmp_path / "runs" / "first")
    Image.radial_gradient("L").resize((60, 40)).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"^```python\n(.*?)^```", HOW, re.DOTALL | re.MULTILINE)
    exec(snippet, {})
    assert {path.name for path in (tmp_path / "why").iterdir()} == {"photo_explain.png", "photo_explain.json"}


def test_every_engine_setting_and_every_alarm_is_explained() -> None:
    for name in EngineConfig.model_fields:
        assert f"| `engine.{name}` |" in PAGE
    for kind in get_args(AlarmKind):
        assert f"| `{kind}` |" in PAGE


def test_allowed_findings_exist() -> None:
    names = re.findall(r"--allow (\w+)", PAGE)
    assert len(allowed_kinds(names)) == len(names) > 0


def test_exit_codes() -> None:
    assert set(EXIT_CODES.values()) <= {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}


def test_names_and_links_lead_somewhere() -> None:
    for name in re.findall(r"`((?:groupvit|mixreorg|finetune)_\w+)`", PAGE):
        assert name in RECIPES
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE + WEIGHTS + HOW):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"examples/[\w/.]+", PAGE):
        assert (ROOT / path).is_file()


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Stand-ins for Slurm: one node, whose `srun` runs a script in place of `torchrun`."""

    folder: Path

    def start(self, torchrun: str) -> subprocess.Popen[str]:
        for name, script in {
            "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
            "scontrol": 'if [[ "$1" == show ]]; then echo node1; else echo "$@" $(ls saved) > requeued; fi',
            "torchrun": f'echo "$@" > arguments\n{torchrun}',
        }.items():
            (self.folder / name).write_text(f"#!/bin/bash\n{script}\n")
            (self.folder / name).chmod(0o755)
        environment = {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "node1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "1",
        }
        command = ["bash", str(SCRIPT), "--recipe", "mixreorg_vits_cc12m", "--data", "with space/*.tar", "--out", "run"]
        return subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)

    @property
    def requeued(self) -> bool:
        return (self.folder / "requeued").exists()


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.mark.parametrize("code", [0, 1])
def test_a_job_that_ends_by_itself_does_not_come_back(cluster: Cluster, code: int) -> None:
    job = cluster.start(f"exit {code}")
    _, errors = job.communicate(timeout=120)
    assert (job.returncode, cluster.requeued, errors) == (code, False, "")
    arguments = (cluster.folder / "arguments").read_text().strip()
    assert arguments.endswith(
        "-m mixreorg train --recipe mixreorg_vits_cc12m --data with space/*.tar --out run --resume auto"
    )
    assert "--rdzv-endpoint=node1:20007" in arguments


def test_a_job_whose_time_is_up_saves_and_comes_back(cluster: Cluster) -> None:
    # As torchrun does it: the processes save, and their 143 becomes 1.
    job = cluster.start("trap 'sleep 0.3; touch saved; exit 1' TERM; touch ready; while true; do sleep 0.05; done")
    deadline = time.monotonic() + 120
    while not (cluster.folder / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=120)
    assert job.returncode == 143
    assert (cluster.folder / "requeued").read_text() == "requeue 7 saved\n"

"""The README is executed: its Python as it stands, its commands with small numbers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from video_kit import shades, write_clip

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALLER = (
    (r"--train \d+ --val \d+ --test \d+", "--train 64 --val 4 --test 4"),
    (r"(train --recipe .*)", r"\1 --set steps=4 --set batch_size=16 --set evaluation.max_images=4"),
    (r"--model groupvit-gcc-yfcc", "--model demo/run"),
    # It would wait for requests; tests/unit/serve starts it.
    (r"^mixreorg serve$", "mixreorg serve --help"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_model(tiny_model, tmp_path / "demo" / "run")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "one.jpg")
    (tmp_path / "names.txt").write_text("dog\ncat=cat|kitten\n")
    write_clip(tmp_path / "clip.mp4", shades(3))
    examples = "src/mixreorg/serve/examples"
    shutil.copytree(ROOT / examples, tmp_path / examples)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_snippets(workspace: Path) -> None:
    snippets = blocks("python")
    assert snippets
    for snippet in snippets:
        names: dict[str, object] = {}
        exec(snippet, names)
        assert names["segmentation"].label_map.shape == (40, 60)  # type: ignore[attr-defined]


def test_commands(workspace: Path) -> None:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(("mixreorg ", "torchrun "))]
    assert len(commands) >= 8
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for command in commands:
        for pattern, replacement in SMALLER:
            command = re.sub(pattern, replacement, command)
        result = subprocess.run(
            command, shell=True, capture_output=True, text=True, env={**environment, "PATH": path}, timeout=300
        )
        assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"


def test_set_up_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert shutil.which("python3") is None or "python3 -m venv" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target

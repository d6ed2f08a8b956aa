"""``mixreorg segment``: the options that make masks finer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.protocol import Protocol

PLAIN = Protocol(name="plain", short_side=32, window=32, stride=32, whole=True)


@pytest.fixture
def command(tiny_model: DualEncoder, tmp_path: Path) -> list[str]:
    save_model(tiny_model, tmp_path / "model", protocol=PLAIN.to_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    files = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "masks")]
    return ["segment", str(tmp_path / "photo.png"), *files, "--classes", "dog, cat, car"]


def test_the_options_become_the_protocol_of_the_result(command: list[str], tmp_path: Path) -> None:
    options = ["--tiles", "1.5, 2", "--flip", "--merge", "0.9", "--refine", "guided"]
    assert CliRunner().invoke(app, [*command, *options]).exit_code == 0
    protocol = PLAIN.updated(tile_scales=(1.5, 2), flip=True, segment_similarity=0.9, refine="guided")
    assert read_json(tmp_path / "masks" / "photo.json")["protocol"]["hash"] == protocol.hash()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles", "x"], "separated by commas"),
        (["--tiles", "0.5"], "above 1"),
        (["--merge", "2"], "segment_similarity"),
        (["--refine", "crf"], "'none', 'pamr' or 'guided'"),
    ],
)
def test_values_that_mean_nothing_are_refused(command: list[str], options: list[str], message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        CliRunner().invoke(app, [*command, *options], catch_exceptions=False)

"""The command line as a user meets it: results, messages and exit codes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model


def mixreorg(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixreorg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def model_folder(tiny_model: DualEncoder, tmp_path: Path) -> Path:
    save_model(tiny_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_segment_writes_three_files_per_photo(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "photo.jpg"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    classes = "dog, cat=cat|kitten, grass"
    result = mixreorg("segment", photo, other, "--model", model_folder, "--classes", classes, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    for stem in ("photo", "more/photo"):
        with Image.open(tmp_path / "out" / f"{stem}_labels.png") as labels:
            assert labels.mode == "P"
            assert labels.size == (70, 48)
            assert np.array(labels).max() < 3
        assert (tmp_path / "out" / f"{stem}_overlay.png").is_file()
        content = json.loads((tmp_path / "out" / f"{stem}.json").read_text())
        assert [item["name"] for item in content["classes"]] == ["dog", "cat", "grass"]
        assert sum(item["area_share"] for item in content["classes"]) == pytest.approx(1)


def test_background_is_the_first_class_when_asked_for(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("segment", photo, "--model", model_folder, "--classes", "dog, cat", "--out", tmp_path / "out")
    assert mixreorg(*arguments, "--background", "0.99").returncode == 0
    content = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert [item["name"] for item in content["classes"]] == ["background", "dog", "cat"]
    assert content["protocol"]["background_threshold"] == 0.99


def test_a_bad_photo_does_not_stop_the_others(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photo.read_bytes()[:300])
    missing = tmp_path / "missing.jpg"
    arguments = ("--model", model_folder, "--classes", "dog, cat", "--out", tmp_path / "out")
    result = mixreorg("segment", bad, missing, photo, *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "bad.jpg" in result.stderr
    assert "missing.jpg" in result.stderr
    assert "2 of 3 photos failed" in result.stderr
    assert (tmp_path / "out" / "photo.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--classes": ""}, "class list is empty"),
        ({"--classes": "dog, Dog"}, "listed twice"),
        ({"--model": "nowhere"}, "no model at nowhere"),
        ({"--model": "no:cat:here"}, "no:cat:here"),
        ({"--background": "7"}, "give a number from 0 to 1"),
        ({"--short-side": "0"}, "at least 1"),
        ({"--short-side": "100000"}, "at most 8,192"),
        ({"--classes": "background, dog", "--background": "0.5"}, "leave it out"),
        ({"--device": "cuda:99"}, "device"),
        ({"--short-side": "4"}, "thinner than one patch"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    change: dict[str, str], message: str, model_folder: Path, photo: Path, tmp_path: Path
) -> None:
    options = {"--model": str(model_folder), "--classes": "dog, cat", "--out": str(tmp_path / "out"), **change}
    result = mixreorg("segment", photo, *(part for pair in options.items() for part in pair))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_goes_does_not_end_the_batch(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        shutil.copy(photo, tmp_path / "photos" / f"{number}.jpg")
    command = [sys.executable, "-m", "mixreorg", "segment", str(tmp_path / "photos")]
    options = ["--model", str(model_folder), "--classes", "dog, cat", "--out", str(tmp_path / "out")]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["photos_given"] == summary["segmented"] == 12


def test_odd_names_and_shapes_do_not_stop_the_others(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    odd.write_bytes(photo.read_bytes())
    thin = tmp_path / "thin.png"
    Image.new("RGB", (3000, 5)).save(thin)
    result = mixreorg(
        "segment", odd, thin, photo, "--model", model_folder, "--classes", "dog, cat", "--out", tmp_path / "out"
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "thin" in result.stderr
    assert len(list((tmp_path / "out").glob("*_labels.png"))) == 2


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [
        ("<&-", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        pytest.param(
            ">/dev/full",
            2,
            "error: cannot write to the standard output: No space left on device",
            marks=needs_dev_full,
        ),
    ],
)
def test_streams_that_are_closed_or_full(
    redirection: str, code: int, words: str, model_folder: Path, photo: Path, tmp_path: Path
) -> None:
    arguments = ["segment", photo, "--model", model_folder, "--classes", "dog, cat", "--out", tmp_path / "out"]
    command = shlex.join([sys.executable, "-m", "mixreorg", *map(str, arguments)])
    result = subprocess.run(f"{command} {redirection}", shell=True, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr.strip().startswith(words)) == (code, True), result.stderr
    assert len(result.stderr.splitlines()) == bool(words)
    assert (tmp_path / "out" / "photo.json").is_file()


@needs_dev_full
def test_a_full_output_is_told_also_of_what_python_writes_at_its_end() -> None:
    for arguments in ("--version", "--help"):
        command = f"{shlex.quote(sys.executable)} -m mixreorg {arguments} >/dev/full"
        result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
        assert result.returncode == 2
        assert result.stderr.startswith("error: cannot write to the standard output")


FAILING = """
import typer
from mixreorg.cli import main
from mixreorg.errors import MixreorgError
main.app = typer.Typer(pretty_exceptions_enable=False)
@main.app.command()
def fail() -> None:
    print("some results")
    raise {error}
main.main()
"""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("MixreorgError('no report')", 2, "error: no report"),
        ("KeyError('a defect')", 1, "KeyError: 'a defect'"),
        ("ConnectionResetError(104, 'reset')", 1, "ConnectionResetError: [Errno 104] reset"),
    ],
)
def test_an_error_is_told_where_nobody_reads_the_output(error: str, code: int, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # Else the line before the error would be the first to fail.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        result = subprocess.run(
            [sys.executable, "-c", FAILING.format(error=error)],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=buffered,
            text=True,
            timeout=300,
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (code, words), result.stderr


def test_a_list_on_a_closed_input_is_one_message(model_folder: Path, tmp_path: Path) -> None:
    arguments = ["segment", "-", "--model", model_folder, "--classes", "dog", "--out", tmp_path / "out"]
    command = shlex.join([sys.executable, "-m", "mixreorg", *map(str, arguments)])
    result = subprocess.run(f"{command} <&-", shell=True, capture_output=True, text=True, timeout=300)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "standard input is empty" in result.stderr


def test_an_output_without_the_letters_of_a_name(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    out = os.fsencode(tmp_path / "out") + b"\xff"
    arguments = ["segment", photo, "--model", model_folder, "--classes", "\u732b=cat", "--out", out]
    for encoding, words in (("ascii", b"\\u732b 100%"), ("utf-8", "\u732b 100%".encode())):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        command = [sys.executable, "-m", "mixreorg", *arguments, "--redo"]
        result = subprocess.run(command, capture_output=True, env=environment, timeout=300)
        assert result.returncode == 0, result.stderr
        assert words in result.stdout
        assert b"out" in result.stdout


def test_a_thousand_classes(model_folder: Path, photo: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"thing {index}" for index in range(1000)))
    result = mixreorg("segment", photo, "--model", model_folder, "--classes", f"@{names}", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / "out" / "photo.json").read_text())["classes"]) == 1000
    with Image.open(tmp_path / "out" / "photo_labels.png") as labels:
        assert labels.mode == "I;16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "scenes_mixreorgg"), "did you mean 'scenes_mixreorg'"),
        ((), "name a recipe"),
        (("--resume", "auto"), "run holds no run to go on with; correct --out, or name a recipe (--recipe"),
        (("--recipe", "scenes_mixreorg"), "no training data"),
        (("--recipe", "scenes_mixreorg", "--data", "none/*.tar"), "none/*.tar"),
        (("--recipe", "scenes_mixreorg", "--data", "x", "--set", "optim.lrr=1"), "did you mean 'lr'"),
        (("--config", "none.yaml"), "cannot read none.yaml"),
        (("--recipe", "scenes_mixreorg", "--data", "x", "--set", "batch_size=1"), "greater than 1"),
    ],
)
def test_train_explains_what_is_wrong(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = mixreorg("train", "--out", "run", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_help_and_version_are_quick_to_load() -> None:
    code = "import sys, mixreorg.cli.main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    assert mixreorg("--version").stdout.strip() == "0.1.0"
    assert "segment" in mixreorg("--help").stdout

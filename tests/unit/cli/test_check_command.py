"""``mixreorg data check``: options, exit codes, interruption."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.check_command import check
from mixreorg.data.pairs import open_pairs
from mixreorg.data.problems import Problems
from mixreorg.data.shard_index import read_index
from mixreorg.errors import MixreorgError

app = typer.Typer()
app.command()(check)


def write_shard(path: Path, count: int, size: tuple[int, int] = (40, 40)) -> Path:
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", size, (number % 256, number // 256, 0)).save(buffer, "PNG")
            for suffix, content in (("png", buffer.getvalue()), ("txt", f"a plain square {number}".encode())):
                info = tarfile.TarInfo(f"{number:06}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_exit_codes(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", 3)
    code, output = run(shard, "--expect", "3")
    assert code == 0
    assert "3 usable" in output
    assert "nothing worth naming" in output
    code, output = run(shard, "--min-side", "41")
    assert (code, "tiny image" in output) == (1, True)
    assert run(shard, "--min-side", "41", "--allow", "tiny image")[0] == 0
    code, output = run(shard, tmp_path / "{1..2}.tar")
    assert code == 2
    assert "missing shard" in output
    assert run(shard, "--expect", "4")[0] == 2
    assert run(shard, "--expect", "4", "--tolerance", "0.3")[0] == 1


def test_options_reach_the_check(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shard = write_shard(tmp_path / "data" / "0.tar", 10, (40, 100))
    out = tmp_path / "new" / "report"
    arguments = [shard, "--out", out, "--sample", "4", "--max-aspect", "2", "--no-index", "--workers", "1"]
    code, output = run(*arguments)
    assert code == 1
    assert str(out / "report.html") in output
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [item["kind"] for item in report["findings"]] == ["extreme aspect ratio"]
    assert report["pairs"]["examined"] == report["findings"][0]["count"] == 4
    assert (out / "report.html").is_file()
    assert [file.name for file in shard.parent.iterdir()] == ["0.tar"]
    assert run(shard, "--index-dir", tmp_path / "indexes")[0] == 0
    assert len(list((tmp_path / "indexes").iterdir())) == 1


def test_bad_options_are_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", 1)
    for arguments, message in (
        (("--sample", "0"), "sample"),
        (("--workers", "0"), "workers"),
        (("--tokenizer", "none.json"), "cannot read none.json"),
        (("--allow", "tiny"), "no kind of finding"),
    ):
        with pytest.raises(MixreorgError, match=message):
            run(shard, *arguments)


def test_a_report_that_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixreorg.data.doctor.check.check_pairs", None)
    (tmp_path / "file").touch()
    with pytest.raises(MixreorgError, match=r"cannot write .*file/report\.json: .*; name another place"):
        run(write_shard(tmp_path / "0.tar", 1), "--out", tmp_path / "file")


def test_help_tells_the_exit_codes() -> None:
    _, output = run("--help")
    for code in range(3):
        assert f"Exit code {code}:" in output


def test_an_interrupt_keeps_the_finished_indexes(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "00.tar", 2000)
    for number in range(1, 40):
        (tmp_path / f"{number:02}.tar").hardlink_to(first)
    process = subprocess.Popen(
        [sys.executable, "-m", "mixreorg", "data", "check", str(tmp_path), "--workers", "2"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    # Not a temporary file, whose name begins with a dot.
    while not list(tmp_path.glob("[!.]*.index")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"finished shards keep their indexes" in errors
    assert b"Traceback" not in errors
    indexes = list(tmp_path.glob("*.index"))
    assert 1 <= len(indexes) <= 40
    for index in indexes:
        problems = Problems()
        shard = read_index(index.with_suffix(""), problems)
        assert shard is not None
        assert len(shard) == 2000
        assert not len(problems)
    assert len(open_pairs(indexes[0].with_suffix(""))) == 2000

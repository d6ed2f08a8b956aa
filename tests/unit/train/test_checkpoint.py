import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkpoint_kit import Kit, kit_store

from mixreorg.errors import MixreorgError
from mixreorg.train.card import read_card
from mixreorg.train.integrity import CHECKSUMS, damage, seal

KIT_FILE = Path(__file__).with_name("checkpoint_kit.py")


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="module")
def saved(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 1, 2 and 3, of which the second is the best."""
    run = tmp_path_factory.mktemp("saved") / "run"
    for step, score in ((1, 20.0), (2, 40.0), (3, 30.0)):
        kit.save(kit_store(run, keep=3), step, step, foreground_miou=score)
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def state(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "state.json").read_text())
    return content


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def test_all_comes_back(kit: Kit, run: Path) -> None:
    store = kit_store(run, keep=3)
    newest = store.latest()
    assert newest == checkpoint(run, 3)
    assert kit.restore(store, newest) == (3, 3.0)
    assert kit.restore(store, checkpoint(run, 1)) == (1, 1.0)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux, to see what is mapped")
def test_nothing_restored_holds_on_to_the_files(kit: Kit, run: Path) -> None:
    kit.restore(kit_store(run, keep=3), checkpoint(run, 3))
    assert str(run) not in Path("/proc/self/maps").read_text()


def test_a_fresh_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert kit_store(tmp_path / "run", keep=1).latest() is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "card.json", "tokenizer.json"])
@pytest.mark.parametrize("harm", [flip_a_bit, cut, Path.unlink])
def test_any_damaged_file_is_noticed(saved: Path, tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(checkpoint(saved, 3), tmp_path / "folder"))
    assert damage(folder) is None
    harm(folder / name)
    reason = damage(folder)
    assert reason is not None
    assert reason.startswith(name)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"files": {}}', '{"files": {"a": 1}}', "\xff"])
def test_damaged_checksums_are_damage(saved: Path, tmp_path: Path, content: str | None) -> None:
    folder = Path(shutil.copytree(checkpoint(saved, 3), tmp_path / "folder"))
    if content is None:
        (folder / CHECKSUMS).unlink()
    else:
        (folder / CHECKSUMS).write_text(content, encoding="latin-1")
    assert str(damage(folder)).startswith(CHECKSUMS)


def test_a_sealed_folder_may_get_more_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    seal(tmp_path)
    (tmp_path / "b").write_text("mine")
    assert damage(tmp_path) is None


def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_taken(kit: Kit, run: Path) -> None:
    flip_a_bit(checkpoint(run, 3) / "optimizer.safetensors")
    store = kit_store(run, keep=3)
    warnings: list[str] = []
    found = store.latest(warnings.append)
    assert found == checkpoint(run, 2)
    (warning,) = warnings
    assert "step-00000003 is damaged (optimizer.safetensors has another checksum)" in warning
    assert names(run) == ["step-00000001", "step-00000002", "step-00000003.damaged"]
    assert state(run)["latest"] == "step-00000002"
    assert read_card(run).step == 2
    assert kit.restore(store, found) == (2, 2.0)
    # The run comes to step 3 again; that this too is damaged later must not touch the first.
    kit.save(store, 3, 3.5)
    cut(checkpoint(run, 3) / "model.safetensors")
    assert store.latest(warnings.append) == checkpoint(run, 2)
    assert {"step-00000003.damaged", "step-00000003.damaged-2"} < set(names(run))


def test_when_all_are_damaged_the_run_does_not_start_again_in_silence(run: Path) -> None:
    for step in (1, 2, 3):
        (checkpoint(run, step) / CHECKSUMS).unlink()
    warnings: list[str] = []
    with pytest.raises(MixreorgError, match=r"no checkpoint in .* is intact .*restore one from a copy"):
        kit_store(run, keep=3).latest(warnings.append)
    assert len(warnings) == 3
    with pytest.raises(MixreorgError, match="new run folder"):
        kit_store(run, keep=3).latest()


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        '{"latest": "step-000',
        "[]",
        '{"latest": "../../other", "best": null}',
        '{"latest": "step-00000009", "best": {"checkpoint": "step-00000009", "step": 9, "foreground_miou": 99.0}}',
    ],
)
def test_a_lost_state_is_told_by_the_checkpoints(run: Path, content: str | None) -> None:
    (run / "state.json").unlink()
    if content is not None:
        (run / "state.json").write_text(content)
    assert kit_store(run, keep=3).latest() == checkpoint(run, 3)
    best = {"checkpoint": "step-00000002", "step": 2, "foreground_miou": 40.0}
    assert state(run) == {"latest": "step-00000003", "best": best}


def test_a_lost_state_does_not_lose_the_best_while_saving(kit: Kit, run: Path) -> None:
    (run / "state.json").write_text("")
    kit.save(kit_store(run, keep=1), 4, 4, foreground_miou=35.0)
    assert names(run) == ["step-00000002", "step-00000004"]
    assert state(run)["latest"] == "step-00000004"


def test_a_run_that_is_set_back_goes_on_from_there(kit: Kit, run: Path) -> None:
    (run / "state.json").write_text(json.dumps({**state(run), "latest": "step-00000001", "best": None}))
    store = kit_store(run, keep=2)
    assert store.latest() == checkpoint(run, 1)
    # What it left ahead is the first to go, and the last to be taken.
    kit.save(store, 2, 2.5)
    assert names(run) == ["step-00000001", "step-00000002"]
    assert kit.restore(store, checkpoint(run, 2)) == (2, 2.5)


def test_damage_after_setting_back_leads_further_back(run: Path) -> None:
    (run / "state.json").write_text(json.dumps({**state(run), "latest": "step-00000002"}))
    cut(checkpoint(run, 2) / "model.safetensors")
    assert kit_store(run, keep=3).latest() == checkpoint(run, 1)


def test_what_killed_processes_leave_is_removed(run: Path) -> None:
    shutil.copytree(checkpoint(run, 3), run / "checkpoints" / ".step-00000004.partial")
    shutil.copytree(checkpoint(run, 3), run / "checkpoints" / ".step-00000000.removed")
    for name in (".state-abc.json", ".card-abc.json", ".log-abc.jsonl", ".train_config-abc.json"):
        (run / name).write_text("half")
    kit_store(run, keep=3).latest()
    assert names(run) == ["step-00000001", "step-00000002", "step-00000003"]
    assert sorted(path.name for path in run.iterdir()) == ["card.json", "checkpoints", "state.json"]


def test_a_card_lies_in_every_checkpoint_and_in_the_run(run: Path) -> None:
    assert read_card(checkpoint(run, 1)).step == 1
    assert read_card(run) == read_card(checkpoint(run, 3))
    assert read_card(run).metrics == {"foreground_miou": 30.0}


def test_seconds_go_on_over_sessions(kit: Kit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = json.loads((checkpoint(run, 3) / "card.json").read_text())
    (checkpoint(run, 3) / "card.json").write_text(json.dumps({**card, "seconds": 1000.0}))
    monkeypatch.setattr("mixreorg.train.checkpoint.time.monotonic", iter([50.0, 57.0]).__next__)
    store = kit_store(run, keep=3)
    kit.restore(store, checkpoint(run, 3))
    assert read_card(kit.save(store, 4, 4)).seconds == 1007.0


def run_kit(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_all_processes_are_told_the_same(run: Path) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    cut(checkpoint(run, 3) / "model.safetensors")
    lines = sorted(run_kit(*launch, KIT_FILE, "latest", run).splitlines())
    assert lines[:2] == [f"process {number}: {checkpoint(run, 2)}" for number in range(2)]
    assert len(lines) == 3
    assert lines[2].startswith("warning checkpoint step-00000003")
    for step in (1, 2):
        cut(checkpoint(run, step) / "model.safetensors")
    lines = sorted(run_kit(*launch, KIT_FILE, "latest", run).splitlines())
    assert all(f"process {number}: no checkpoint in" in lines[number] for number in range(2))


def test_dying_at_any_moment_of_a_save_leaves_a_checkpoint(tmp_path: Path) -> None:
    report = json.loads(run_kit(KIT_FILE, "deaths", tmp_path))
    for outcomes in report.values():
        assert len(outcomes) > 40
        assert all(outcome["warnings"] == [] for outcome in outcomes)
        assert all(not name.startswith(".") for outcome in outcomes for name in outcome["left"])
    # First the checkpoint before, and from some moment on the new one.
    for name, old, new in (("next", [2, 2.0], [3, 3.0]), ("again", [2, 2.0], [2, 2.5])):
        restored = [outcome["restored"] for outcome in report[name]]
        moment = restored.index(new)
        assert restored == [old] * moment + [new] * (len(restored) - moment)


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let a file grow further; CPython ignores the signal that this would send."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Smaller than the weights, and smaller than every file.
@pytest.mark.parametrize("num_bytes", [20_000, 10])
def test_a_file_that_cannot_be_written_whole(kit: Kit, run: Path, num_bytes: int) -> None:
    before = state(run)
    store = kit_store(run, keep=3)
    with (
        files_limited_to(num_bytes),
        pytest.raises(MixreorgError, match=r"cannot write checkpoint .*step-00000004: .*File too large.*; earlier"),
    ):
        kit.save(store, 4, 4)
    assert names(run) == ["step-00000001", "step-00000002", "step-00000003"]
    assert state(run) == before
    assert kit.restore(store, checkpoint(run, 3)) == (3, 3.0)
    assert store.latest() == checkpoint(run, 3)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk(kit: Kit, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    try:
        store = kit_store(disk / "run", keep=99)
        size = sum(path.stat().st_size for path in kit.save(store, 1, 1).iterdir())
        step = 2
        while shutil.disk_usage(disk).free > size:
            kit.save(store, step, step)
            step += 1
        with pytest.raises(MixreorgError, match="No space left on device"):
            kit.save(store, step, step)
        assert not list(store.folder.glob(".*"))
        found = store.latest()
        assert found is not None
        assert kit.restore(store, found) == (step - 1, step - 1)
        # Room again: the very save that failed succeeds.
        shutil.rmtree(store.folder / "step-00000001")
        kit.save(store, step, step)
        assert store.latest() == store.folder / f"step-{step:08d}"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_open = Path.open

    def refuse(path: Path, mode: str = "r", **options: object) -> object:
        if path.name == "model.safetensors":
            raise PermissionError(errno.EACCES, "Permission denied")
        return true_open(path, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MixreorgError, match=r"cannot read .*model\.safetensors: Permission denied"):
        kit_store(run, keep=3).latest()
    assert names(run) == ["step-00000001", "step-00000002", "step-00000003"]


def test_another_objective_is_refused(kit: Kit, run: Path) -> None:
    store = kit_store(run, keep=3)
    with pytest.raises(MixreorgError, match="another objective"):
        store.restore(checkpoint(run, 3), Kit(own="other").objective, kit.model, kit.optimizer)

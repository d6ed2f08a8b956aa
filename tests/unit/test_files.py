import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.files import (
    folder_in_one_step,
    read_json,
    require_replaceable,
    require_writable,
    write_atomically,
    write_json,
    write_text,
    write_together,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MixreorgError, match=r"cannot write .*a\.txt: No space left on device"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_whether_a_file_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deeper" / "a.txt")
    assert not list(tmp_path.iterdir())
    write_text(tmp_path / "a.txt", "old")
    require_writable(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    with pytest.raises(MixreorgError, match=r"a\.txt.b: Not a directory"):
        require_writable(tmp_path / "a.txt" / "b")
    with pytest.raises(MixreorgError, match="Is a directory; name another place"):
        require_writable(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MixreorgError("no"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    def fail(_: Path) -> None:
        raise error

    with pytest.raises((MixreorgError, KeyboardInterrupt)):
        write_atomically(tmp_path / "new" / "deeper" / "a.txt", fail)
    assert not list(tmp_path.iterdir())

    def fail_late(_: Path) -> None:
        write_text(tmp_path / "new" / "b.txt", "somebody's")
        raise error

    with pytest.raises((MixreorgError, KeyboardInterrupt)):
        write_atomically(tmp_path / "new" / "deeper" / "a.txt", fail_late)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.txt"]


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(MixreorgError, match=r"cannot write .*a\.txt: Permission denied"):
        write_text(tmp_path / "closed" / "a.txt", "new")


def test_errors_name_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MixreorgError) as caught, folder_in_one_step(out) as folder:
        raise MixreorgError(f"cannot write {folder / 'a.txt'}: No space left on device")
    assert str(caught.value) == f"cannot write {out / 'a.txt'}: No space left on device"
    assert not list(tmp_path.iterdir())


def test_files_that_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = tmp_path / "a", tmp_path / "b"
    write_together({first: b"1", last: b"2"})
    assert (first.read_bytes(), last.read_bytes()) == (b"1", b"2")
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if content == b"3":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    for contents in ({first: b"3", last: b"4"}, {first: b"4", last: b"3"}):
        with pytest.raises(MixreorgError, match=r"cannot write .*: No space left on device"):
            write_together(contents)
        assert (first.read_bytes(), last.read_bytes()) == (b"1", b"2")
    assert sorted(tmp_path.iterdir()) == [first, last]


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"miou": float("nan"), "list": [1.0, float("nan")], "name": "ß"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"miou": None, "list": [1.0, None], "name": "ß"}
    assert read_json(path)["name"] == "ß"


def test_reading_problems_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(MixreorgError, match=r"cannot read .*a\.json"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(MixreorgError, match="not valid JSON"):
        read_json(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MixreorgError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_threads_leave_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, umask = os.umask(0o027), os.umask

    def slow_umask(mask: int) -> int:
        old = umask(mask)
        time.sleep(0.001)  # lets another thread in between setting and restoring
        return old

    monkeypatch.setattr(os, "umask", slow_umask)
    try:
        paths = [tmp_path / f"{number}.txt" for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: write_text(path, "x"), paths))
        assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}
    finally:
        after = umask(before)
    assert after == 0o027


def test_folders_made_for_a_folder_go_with_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_in_one_step(tmp_path / "new" / "deep" / "folder"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_folder_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path):
        message = r"the folder that you are in\); name a new folder inside it"
        with pytest.raises(MixreorgError, match=message), folder_in_one_step(folder):
            pytest.fail("was filled")
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(MixreorgError, match=r"disk cannot be replaced as a whole \(it is a mount point\)"):
        require_replaceable(tmp_path / "disk")
    require_replaceable(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    with folder_in_one_step(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["a"]
    with folder_in_one_step(out) as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in out.iterdir()] == ["b"]
    with pytest.raises(MixreorgError, match=r"cannot write .*folder: No space left"), folder_in_one_step(out):
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), folder_in_one_step(out):
        raise KeyError
    assert [path.name for path in out.iterdir()] == ["b"]
    assert list(out.parent.iterdir()) == [out]
    (tmp_path / "file").write_text("")
    with pytest.raises(MixreorgError, match="cannot write"), folder_in_one_step(tmp_path / "file" / "folder"):
        pass


def test_an_earlier_folder_stays_where_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "folder", Path.rename
    with folder_in_one_step(out) as folder:
        (folder / "a").write_text("1")

    def full(path: Path, target: Path) -> Path:
        if path.name == "finished":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(MixreorgError, match=r"cannot write .*folder: No space left"), folder_in_one_step(out) as folder:
        (folder / "b").write_text("2")
    assert (out / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]

"""The bounded folder of downloaded shards: least recently used first, shared by processes, safe to die in."""

import multiprocessing
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixreorg.data import shard_cache
from mixreorg.data.shard_cache import ShardCache, default_cache_dir
from mixreorg.errors import MixreorgError


def name_of(number: int) -> str:
    return f"{number:016x}-{number}.tar"


class Store:
    """Gives shard ``n`` as bytes of value ``n``, and counts."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def read(self, cache: ShardCache, number: int, size: int = 100) -> bytes:
        def download(path: Path) -> None:
            self.fetched.append(number)
            path.write_bytes(bytes([number]) * size)

        with cache.open(name_of(number), size, download) as file:
            return file.read()


class HeldDownload:
    """Of shard 1, as another process's: ``begun`` is set when it has written a part, and ``go_on`` ends it."""

    def __init__(self, cache: ShardCache, size: int) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.size = size
        self.thread = threading.Thread(target=lambda: cache.open(name_of(1), size, self.write).close())
        self.thread.start()
        assert self.begun.wait(10)

    def write(self, path: Path) -> None:
        path.write_bytes(b"\1" * 10)
        self.begun.set()
        self.go_on.wait(10)
        path.write_bytes(b"\1" * self.size)

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(10)


def held(cache: ShardCache) -> list[str]:
    return sorted(path.name[-5:-4] for path in cache.folder.glob("*.tar"))


def test_a_shard_is_fetched_once(tmp_path: Path) -> None:
    cache, store = ShardCache(tmp_path / "cache", 1000), Store()
    assert store.read(cache, 1) == store.read(cache, 1) == b"\1" * 100
    assert store.fetched == [1]


def test_the_longest_unused_makes_room(tmp_path: Path) -> None:
    cache, store = ShardCache(tmp_path, 300), Store()
    for number in (1, 2, 3, 1, 4):
        store.read(cache, number)
        time.sleep(0.02)
    assert held(cache) == ["1", "3", "4"]
    assert store.fetched == [1, 2, 3, 4]
    store.read(cache, 5, size=150)
    assert held(cache) == ["4", "5"]


def test_a_shard_that_is_evicted_while_it_is_read_keeps_its_bytes(tmp_path: Path) -> None:
    cache, store = ShardCache(tmp_path, 100), Store()
    store.read(cache, 1)
    with cache.open(name_of(1), 100, lambda path: None) as file:
        store.read(cache, 2)
        assert held(cache) == ["2"]
        assert file.read() == b"\1" * 100


def test_files_of_the_user_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    for name in ("00000.tar", "notes.part", f"{name_of(1)}.x.part"):
        (tmp_path / name).write_bytes(b"x" * 500)
    cache, store = ShardCache(tmp_path, 150), Store()
    for number in (1, 2):
        store.read(cache, number)
    assert held(cache) == ["0", "2"]
    assert (tmp_path / "notes.part").exists()


def test_a_shard_larger_than_the_cache_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match=r"does not fit .* raise data\.cache_gb"):
        Store().read(ShardCache(tmp_path, 99), 1)


def test_a_failed_download_leaves_nothing(tmp_path: Path) -> None:
    def download(path: Path) -> None:
        path.write_bytes(b"half")
        raise MixreorgError("no connection")

    cache, store = ShardCache(tmp_path, 100), Store()
    with pytest.raises(MixreorgError, match="no connection"):
        cache.open(name_of(1), 100, download)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert store.read(cache, 2) == b"\2" * 100


def test_what_a_dead_process_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{name_of(1)}.100.part").write_bytes(b"half")
    cache, store = ShardCache(tmp_path, 100), Store()
    assert store.read(cache, 2) == b"\2" * 100
    assert store.read(cache, 1) == b"\1" * 100
    assert not list(tmp_path.glob("*.part"))


def test_what_a_dead_process_left_of_the_same_shard_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError("waits for itself")

    monkeypatch.setattr(shard_cache, "time", SimpleNamespace(sleep=wait))
    (tmp_path / f"{name_of(1)}.100.part").write_bytes(b"half")
    assert Store().read(ShardCache(tmp_path, 100), 1) == b"\1" * 100


def test_who_waits_for_a_download_takes_what_it_brought(tmp_path: Path) -> None:
    cache, store = ShardCache(tmp_path, 300), Store()
    first = HeldDownload(cache, 100)
    second = threading.Thread(target=lambda: store.read(cache, 1))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    first.end()
    second.join(10)
    assert not second.is_alive()
    assert store.fetched == []
    assert held(cache) == ["1"]


@pytest.mark.parametrize("damaged", [b"", b"\1" * 99, b"\1" * 101])
def test_a_copy_of_another_size_is_fetched_again(tmp_path: Path, damaged: bytes) -> None:
    cache, store = ShardCache(tmp_path, 100), Store()
    store.read(cache, 1)
    (tmp_path / name_of(1)).write_bytes(damaged)
    assert store.read(cache, 1) == store.read(cache, 1) == b"\1" * 100
    assert store.fetched == [1, 1]


def test_a_download_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(
        shard_cache.os,
        "fsync",
        lambda file: synced.append((os.fstat(file).st_size, (tmp_path / name_of(1)).exists())),
    )
    Store().read(ShardCache(tmp_path, 100), 1)
    assert synced == [(100, False)]


def test_downloads_under_way_count_and_are_waited_for(tmp_path: Path) -> None:
    cache, store = ShardCache(tmp_path, 250), Store()
    first = HeldDownload(cache, 200)
    second = threading.Thread(target=lambda: store.read(cache, 2))
    second.start()
    second.join(3 * shard_cache._POLL_SECONDS)
    assert second.is_alive()
    assert store.fetched == []
    first.end()
    second.join(10)
    assert held(cache) == ["2"]


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MixreorgError, match=r"cannot use the shard cache .*file/cache: .*; set data\.cache_dir"):
        Store().read(ShardCache(tmp_path / "file" / "cache", 1000), 1)


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "mixreorg" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "mixreorg" / "shards"


def read_under_pressure(folder: Path, process: int, results: "multiprocessing.Queue[tuple[int, int]]") -> None:
    cache, store = ShardCache(folder, 300), Store()
    largest = 0
    for step in range(120):
        number = (step * (3 + 2 * process) + step // 7) % 8
        assert store.read(cache, number) == bytes([number]) * 100
        with cache._lock("cache"):
            largest = max(largest, sum(size for _, size, _ in cache._shards()))
    results.put((largest, len(store.fetched)))


def test_processes_share_a_cache_under_pressure(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    processes = [context.Process(target=read_under_pressure, args=(tmp_path, number, results)) for number in range(2)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=180) for _ in processes]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    assert all(largest <= 300 for largest, _ in outcomes)
    assert sum(fetched for _, fetched in outcomes) > 16
    assert not list(tmp_path.glob("*.part"))

"""Shards behind URLs, from a server that fails, cuts and changes its answers."""

import http.server
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from shard_kit import good_members, write_shard
from torch.utils.data import DataLoader

from mixreorg.data import remote, specs
from mixreorg.data.loader import PairDataset, collate, original_error, step_visits
from mixreorg.data.pairs import PairSource, open_pairs
from mixreorg.data.problems import Problems
from mixreorg.data.shard_cache import ShardCache
from mixreorg.data.shard_index import write_index
from mixreorg.data.specs import expand
from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.errors import MixreorgError
from mixreorg.text.tokenizer import Tokenizer


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; the server's ``faults`` say what to do to the next requests of a path."""

    server: "Server"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests[path] += 1
        faults = self.server.faults.get(path, [])
        fault = faults.pop(0) if faults else ""
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault:
            content = (Path(self.directory) / path[1:]).read_bytes()
            self.send_response(200)
            sent = content[: len(content) // 2]
            self.send_header("Content-Length", str(len(content if fault == "cut" else sent)))
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        self.faults: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        super().__init__(
            ("127.0.0.1", 0), lambda *arguments, **options: Handler(*arguments, directory=str(folder), **options)
        )
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BACKOFF_SECONDS", 0.0)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Four shards of three pairs."""
    for number in range(4):
        write_shard(tmp_path / "served" / f"{number}.tar", good_members(3 * number, 3))
    return tmp_path / "served"


@pytest.fixture
def server(served: Path) -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with Server(served) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def captions(source: PairSource) -> list[str]:
    pairs = [source.read(index) for index in range(len(source))]
    return [pair.caption for pair in pairs if pair]


EVERYTHING = [f"caption {number}" for number in range(12)]


def test_shards_are_read_over_http(server: Server, served: Path, cache: Path) -> None:
    url = server.url + "/{0..3}.tar"
    source = open_pairs(url, cache_dir=cache)
    assert captions(source) == EVERYTHING
    assert source.fingerprint() == open_pairs(f"{served}/{{0..3}}.tar").fingerprint()
    assert source.problems.counts == {}
    shutil.rmtree(served)
    pair = source.read(5)
    assert pair is not None
    assert pair.shard == f"{server.url}/1.tar"


def test_a_second_run_fetches_nothing(server: Server, cache: Path) -> None:
    open_pairs(server.url + "/{0..3}.tar", cache_dir=cache)
    server.requests.clear()
    assert captions(open_pairs(server.url + "/{0..3}.tar", cache_dir=cache)) == EVERYTHING
    assert server.requests == {}


def test_failures_that_pass_are_waited_out(server: Server, cache: Path) -> None:
    server.faults = {"/0.tar": ["503", "cut", "short", "500"], "/1.tar": ["cut"]}
    source = open_pairs(server.url + "/{0..3}.tar", cache_dir=cache)
    assert captions(source) == EVERYTHING
    assert server.requests["/0.tar"] == 5


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("503", r"cannot fetch http.*/0\.tar \(503.*\); check the connection and try again$"),
        ("cut", r"cannot fetch http.*/0\.tar \(.*\); check the connection"),
        ("short", r"cannot fetch http.*/0\.tar \([\d,]+ of [\d,]+ bytes came\); check the connection"),
        ("403", r"cannot fetch http.*/0\.tar \(403.*\); log in"),
    ],
)
def test_failures_that_stay_are_one_clear_error(server: Server, cache: Path, fault: str, message: str) -> None:
    server.faults = {"/0.tar": [fault] * 9}
    with pytest.raises(MixreorgError, match=message) as caught:
        open_pairs(server.url + "/0.tar?signature=secret", cache_dir=cache)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(cache.glob("*.part"))


def test_a_missing_shard_is_an_error_at_once(server: Server, cache: Path) -> None:
    with pytest.raises(MixreorgError, match=r"cannot find http.*/4\.tar .*must exist, so correct the URL"):
        open_pairs(server.url + "/{0..4}.tar", cache_dir=cache)
    assert server.requests["/4.tar"] == 1


def test_a_server_that_is_not_there_is_an_error(served: Path, cache: Path) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(MixreorgError, match=r"cannot find http://127\.0\.0\.1:9/0\.tar .*check the connection"):
        open_pairs("http://127.0.0.1:9/0.tar", cache_dir=cache)


def test_an_index_beside_a_remote_shard_saves_fetching_it(server: Server, served: Path, cache: Path) -> None:
    write_index(served / "0.tar", Problems())
    source = open_pairs(server.url + "/{0,1}.tar", cache_dir=cache)
    assert server.requests["/0.tar"] == 0
    assert server.requests["/1.tar"] == 1
    assert captions(source) == EVERYTHING[:6]
    assert server.requests["/0.tar"] == 1


def test_a_shard_that_differs_from_its_index_is_an_error(server: Server, served: Path, cache: Path) -> None:
    write_index(served / "0.tar", Problems())
    write_shard(served / "0.tar", good_members(5, 3))
    source = open_pairs(server.url + "/0.tar", cache_dir=cache)
    with pytest.raises(MixreorgError, match="is not the file that was indexed"):
        source.read(0)
    (served / "0.tar.index").unlink()
    assert captions(open_pairs(server.url + "/0.tar", cache_dir=cache)) == [f"caption {n}" for n in (5, 6, 7)]


def test_a_shard_that_changed_between_runs_is_fetched_again(served: Path, cache: Path) -> None:
    for first in (0, 7):
        write_shard(served / "0.tar", good_members(first, 3))
        assert captions(open_pairs(f"file://{served}/0.tar", cache_dir=cache))[0] == f"caption {first}"


def test_a_shard_that_changed_on_a_server_without_etags_is_fetched_again(
    server: Server, served: Path, cache: Path
) -> None:
    shard = served / "0.tar"
    for first, second in ((0, 1_000_000_000), (5, 1_000_000_100)):
        write_shard(shard, good_members(first, 3))
        os.utime(shard, (second, second))
        source = open_pairs(server.url + "/0.tar", cache_dir=cache)
        assert captions(source) == [f"caption {number}" for number in range(first, first + 3)]
    assert server.requests["/0.tar"] == 2


def test_what_identified_a_shard_identifies_it_still(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Names in existing caches depend on it."""

    def cached_name(**information: object) -> str:
        monkeypatch.setattr(remote, "_information", lambda url: {"size": 9, **information})
        return remote.locate("http://a.example/0.tar", ShardCache(cache, 9)).cached_name

    for field in ("ETag", "mtime", "updated"):
        others = {"Last-Modified": "later", "blob_id": "2"}
        assert cached_name(**{field: "1"}, **others) == cached_name(**{field: "1"}) != cached_name(**others)
    assert cached_name() != cached_name(**{"Last-Modified": "now"}) != cached_name(**{"Last-Modified": "later"})


def test_a_shard_that_is_evicted_while_it_is_indexed_is_fetched_once(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is small for the threads which open shards; reading comes later."""
    whole = ShardCache.open

    def open_and_evict(self: ShardCache, name: str, *arguments: Any) -> BinaryIO:
        file = whole(self, name, *arguments)
        (self.folder / name).unlink()
        return file

    monkeypatch.setattr(ShardCache, "open", open_and_evict)
    source = open_pairs(server.url + "/{0..3}.tar", cache_dir=cache)
    assert [server.requests[f"/{number}.tar"] for number in range(4)] == [1] * 4
    assert captions(source) == EVERYTHING


def test_a_cached_shard_that_its_index_does_not_fit_is_an_error(server: Server, served: Path, cache: Path) -> None:
    source = open_pairs(server.url + "/0.tar", cache_dir=cache)
    (copy,) = cache.glob("*-0.tar")
    copy.write_bytes(bytes(copy.stat().st_size))
    with pytest.raises(
        MixreorgError, match=r"/0\.tar changed after it was indexed; delete .*-0\.tar and .*-0\.tar\.index"
    ):
        source.read(0)
    copy.write_bytes(b"cut")
    assert captions(source) == EVERYTHING[:3]


def test_the_brackets_of_an_address_are_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "list_shards", lambda url: [f"listed {url}"])
    for host in ("[::1]:8000", "user:word@[fe80::a1]", "[::ffff:127.0.0.1]:80"):
        assert expand(f"http://{host}/{{0,1}}.tar") == [f"http://{host}/0.tar", f"http://{host}/1.tar"]
        assert expand(f"http://{host}/[01].tar") == [f"listed http://{host}/[01].tar"]
    assert expand("memory://[ab].tar") == ["listed memory://[ab].tar"]


def test_patterns_of_urls(served: Path, cache: Path) -> None:
    url = f"file://{served}"
    assert captions(open_pairs(f"{url}/*.tar", cache_dir=cache)) == EVERYTHING
    assert captions(open_pairs(f"{url}/[0-1].tar", cache_dir=cache)) == EVERYTHING[:6]
    assert captions(open_pairs([f"{url}/{{2,0}}.tar"], cache_dir=cache)) == EVERYTHING[6:9] + EVERYTHING[:3]
    for spec, message in [
        (f"{url}/x*.tar", r"missing: file://.*/x\*\.tar"),
        (f"{url}/captions.csv", "only shards can be read from URLs"),
        ("nonsense://bucket/0.tar", "nonsense"),
    ]:
        with pytest.raises(MixreorgError, match=message):
            open_pairs(spec, cache_dir=cache)


def test_shards_in_memory(served: Path, cache: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(served / "0.tar"), "/bucket/0.tar")
    assert captions(open_pairs("memory://bucket/*.tar", cache_dir=cache)) == EVERYTHING[:3]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for module, url in [("aiohttp", "https://example.org/0.tar"), ("s3fs", "s3://bucket/0.tar")]:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MixreorgError, match=r"pip install 'mixreorg\[remote\]'"):
            open_pairs(url, cache_dir=cache)


def test_a_small_cache_is_enough_for_reading_in_windows(served: Path, cache: Path) -> None:
    size = (served / "0.tar").stat().st_size
    source = open_pairs(f"file://{served}/*.tar", cache_dir=cache, cache_gb=2.5 * size / 1e9)
    visits = source.order(seed=0, shuffle_shards=2).visits(0, 24)
    read = [source.read(index) for _, index in visits]
    assert sorted(pair.caption for pair in read if pair) == sorted(EVERYTHING * 2)
    assert len(list(cache.glob("*.tar"))) == 2


def test_reading_processes_fetch_and_their_errors_are_clear(
    server: Server, served: Path, cache: Path, tokenizer: Tokenizer
) -> None:
    for number in range(4):
        write_index(served / f"{number}.tar", Problems())
    source = open_pairs(server.url + "/{0..3}.tar", cache_dir=cache)
    dataset = PairDataset(source, tokenizer, ImageTransformConfig(image_size=16), seed=0)

    def read() -> list[str]:
        visits = step_visits(source.order(0), batch_size=4, start_step=0, num_steps=3)
        loader = DataLoader(dataset, batch_sampler=visits, num_workers=2, collate_fn=collate)
        return [caption for batch in loader for caption in batch.captions]

    assert sorted(read()) == sorted(EVERYTHING)
    for shard in cache.glob("*.tar"):
        shard.unlink()
    server.faults = {f"/{number}.tar": ["403"] for number in range(4)}
    with pytest.raises(MixreorgError) as caught:
        read()
    message = str(original_error(caught.value))
    assert message.startswith(f"cannot fetch {server.url}/")
    assert message.endswith("; log in to where it lies, or correct the URL")
    assert str(original_error(MixreorgError("said here"))) == "said here"

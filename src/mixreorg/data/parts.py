"""Opening shards and captions files by the hundred: from their indexes, else by reading them, several at once."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from mixreorg.data.captions_file import CAPTIONS_SUFFIXES, CaptionsFile, index_captions_file
from mixreorg.data.problems import Problem, Problems
from mixreorg.data.remote import open_remote
from mixreorg.data.shard_cache import ShardCache
from mixreorg.data.shard_index import find_index
from mixreorg.data.shards import Shard, scan_shard
from mixreorg.distributed import rank
from mixreorg.processes import WorkerPool

# Reading an index and fetching a shard wait for a disk or a network, not for the processor.
_READING_THREADS = 16
_FETCHING_THREADS = 8
# Below so many shards, starting processes takes longer than they save.
_MIN_SHARDS_FOR_PROCESSES = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Indexed = tuple[Shard, list[Problem]]


def open_parts(
    files: Sequence[Path | str], problems: Problems, index_dir: Path | None, cache: ShardCache
) -> list[CaptionsFile | Shard]:
    """Open files in their order.

    Args:
        files: shards and captions files as paths, remote shards as URLs; :func:`~mixreorg.data.specs.expand` gives
            them.
        problems: receives what was left out.
        index_dir: a second place to look for the indexes of local shards; None for beside them alone.
        cache: for the remote shards.

    Raises:
        MixreorgError: a file cannot be read.
    """
    shards = [file for file in files if isinstance(file, Path) and file.suffix not in CAPTIONS_SUFFIXES]
    opened: dict[Path | str, _Indexed] = {}
    from_disk = _in_threads(lambda path: find_index(path, index_dir), shards, _READING_THREADS)
    for path, (shard, found) in zip(shards, from_disk, strict=True):
        if shard is None:
            problems.extend(found)
        else:
            opened[path] = (shard, found)
    unindexed = [path for path in shards if path not in opened]
    opened.update(zip(unindexed, _tracked(_scan_all(unindexed), "Indexing shards", len(unindexed)), strict=True))
    urls = [file for file in files if isinstance(file, str)]
    located = _in_threads(lambda url: open_remote(url, cache), urls, _FETCHING_THREADS)
    opened.update(zip(urls, _tracked(located, "Locating shards", len(urls)), strict=True))
    parts: list[CaptionsFile | Shard] = []
    for file in files:
        if file in opened:
            shard, found = opened[file]
            problems.extend(found)
            parts.append(shard)
        else:
            parts.append(index_captions_file(Path(file), problems))
    return parts


def _in_threads(run: Callable[[_Item], _Result], items: Sequence[_Item], num_threads: int) -> Iterator[_Result]:
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            yield from pool.map(run, items)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be tried


def _scan_all(paths: list[Path]) -> Iterator[_Indexed]:
    """Scan shards in order. Threads would take turns at it: parsing headers is Python's work."""
    # The processes of one machine that train together all index at the same time.
    num_processes = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    done = 0
    if num_processes > 1 and len(paths) >= _MIN_SHARDS_FOR_PROCESSES:
        try:
            for indexed in _scan_in_processes(paths, num_processes):
                yield indexed
                done += 1
        except BrokenProcessPool:
            pass  # killed, or the script that calls this cannot be imported again: go on alone
    yield from map(scan_shard, paths[done:])


def _scan_in_processes(paths: list[Path], num_processes: int) -> Iterator[_Indexed]:
    with WorkerPool(num_processes) as pool:
        try:
            yield from pool.map(scan_shard, paths)
        finally:
            pool.shutdown(cancel_futures=True)


def _tracked(items: Iterable[_Item], description: str, total: int) -> Iterator[_Item]:
    """Show progress where there is much to do, somebody to watch, and no other process that shows the same."""
    from rich.progress import track

    from mixreorg.console import plain_console

    console = plain_console(stderr=True)
    hidden = total < _MIN_SHARDS_FOR_PROCESSES or not console.is_terminal or rank() > 0
    yield from track(items, description, total=total, console=console, transient=True, disable=hidden)

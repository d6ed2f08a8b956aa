"""The work of a check, in any number of processes: index a part, look into a run of its pairs."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from mixreorg.data.captions_file import CAPTIONS_SUFFIXES, CaptionsFile, index_captions_file
from mixreorg.data.doctor.examine import Findings, Limits, Suspect, examine
from mixreorg.data.doctor.inventory import read_statistics, statistics_file
from mixreorg.data.doctor.kinds import KINDS
from mixreorg.data.doctor.report import CheckConfig, PartFacts
from mixreorg.data.pairs import Part
from mixreorg.data.problems import Problem, Problems
from mixreorg.data.remote import open_remote
from mixreorg.data.shard_cache import ShardCache, default_cache_dir
from mixreorg.data.shard_index import find_index, index_path, save_index
from mixreorg.data.shards import Shard, scan_shard
from mixreorg.errors import MixreorgError
from mixreorg.processes import WorkerPool
from mixreorg.text.tokenizer import Tokenizer

Task = TypeVar("Task")
Result = TypeVar("Result")
_Scanned = tuple[Shard, list[Problem]]
# Processes take some seconds to start, because they import torch.
_WORTHWHILE_SECONDS = 10.0


class Indexed(NamedTuple):
    """What indexing a part found."""

    facts: PartFacts
    counts: Counter[str]
    suspects: list[Suspect]


class Run(NamedTuple):
    """Some pairs of one part."""

    part: int
    """Number of the part."""
    name: str
    indices: npt.NDArray[np.int32]


class Worker:
    """What one process does. It keeps the part that it read last: runs of one part follow each other."""

    def __init__(self, config: CheckConfig) -> None:
        """Take the settings of the check."""
        self._config = config
        self._index_dir = Path(config.index_dir).expanduser() if config.index_dir else None
        self._tokenizer: Tokenizer | None = None
        folder = Path(config.cache_dir).expanduser() if config.cache_dir else default_cache_dir()
        self._cache = ShardCache(folder, int(config.cache_gb * 10**9))
        self._opened: tuple[str, Part] | None = None

    def index(self, name: str) -> Indexed:
        """Index a part, write the index of a shard that has none, and compare it with its statistics file.

        Raises:
            MixreorgError: the index cannot be written.
        """
        problems = Problems()
        try:
            part, state, scanned = self._open(name, problems)
        except MixreorgError as error:
            return _unreadable(name, str(error))
        if scanned is not None and self._config.index:
            save_index(*scanned, index_path(Path(name), self._index_dir))
            state = "written"
        if problems.counts["truncated shard"]:
            # The cut itself, met inside a member. Damage before it would have ended the scan there.
            del problems.counts["damaged shard"]
            problems.examples.pop("damaged shard", None)
        num_samples = len(part) + problems.counts["no image"] + problems.counts["no caption"]
        num_bytes = part.num_bytes if isinstance(part, Shard) else Path(name).stat().st_size
        facts = PartFacts(name, num_bytes, num_samples, len(part), state, *_compare(name, num_samples, problems))
        suspects = [_suspect(name, problem) for found in problems.examples.values() for problem in found]
        return Indexed(facts, problems.counts, suspects)

    def examine(self, run: Run) -> Findings:
        """Look into some pairs of a part; a part that can no longer be read is a finding."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._config.tokenizer)
        try:
            limits = Limits(self._config.min_side, self._config.max_aspect)
            return examine(run.name, self.part(run.name), run.indices.tolist(), self._tokenizer, limits)
        except MixreorgError as error:
            findings = Findings()
            findings.add(Suspect("unreadable shard", run.name, detail=str(error)))
            return findings

    def part(self, name: str) -> Part:
        """A part by its path or URL, from its index where it has one.

        Raises:
            MixreorgError: it cannot be read.
        """
        if self._opened is None or self._opened[0] != name:
            self._opened = name, self._open(name, Problems())[0]
        return self._opened[1]

    def _open(self, name: str, problems: Problems) -> tuple[CaptionsFile | Shard, str, _Scanned | None]:
        """A part, the state of its index, and what is to be written where there is no index."""
        if "://" in name:
            shard, found = open_remote(name, self._cache)
            problems.extend(found)
            return shard, "cached", None
        path = Path(name)
        if path.suffix in CAPTIONS_SUFFIXES:
            return index_captions_file(path, problems), "none", None
        indexed, found = find_index(path, self._index_dir)
        # A sample is for a quick look; whoever reads every pair has the time to look at every header.
        if indexed is not None and self._config.sample is None and not indexed.fits():
            indexed, found = None, [Problem("stale index", name, "members lie at other places")]
        problems.extend(found)
        if indexed is not None:
            return indexed, "fresh", None
        shard, found = scan_shard(path)
        problems.extend(found)
        return shard, "none", (shard, found)


class Crew:
    """This process, and others where there is much to do."""

    def __init__(self, config: CheckConfig, num_processes: int) -> None:
        """Describe the processes; the others start when they are needed.

        Args:
            config: settings of the check.
            num_processes: 1 for this process alone.
        """
        self._alone = Worker(config)
        self._pool = WorkerPool(num_processes, _start, (config,))
        self._num_processes = num_processes
        self.num_used = 1
        """Processes that did the work last asked for."""

    def __enter__(self) -> Self:
        """Nothing starts yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop work that has not begun, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    def index(self, names: Sequence[str]) -> Iterator[Indexed]:
        """Index parts; results in their order."""
        return self._map(self._alone.index, _index, names)

    def examine(self, runs: Sequence[Run]) -> Iterator[Findings]:
        """Look into pairs; results in the order of the runs."""
        return self._map(self._alone.examine, _examine, runs)

    def _map(
        self, alone: Callable[[Task], Result], shared: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Begin alone, and share what is left as soon as it proves to be more than processes take to start."""
        self.num_used = 1
        start = time.monotonic()
        for done, task in enumerate(tasks):
            left = len(tasks) - done
            if done and self._num_processes > 1 and (time.monotonic() - start) / done * left > _WORTHWHILE_SECONDS:
                self.num_used = self._num_processes
                yield from self._share(shared, tasks[done:])
                return
            yield alone(task)

    def _share(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        try:
            yield from self._pool.map(work, tasks)
        except BrokenProcessPool as error:
            raise MixreorgError(
                "a worker process was killed, perhaps for lack of memory; try again with fewer --workers"
            ) from error


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a configuration; CLIP's is built once.

    Raises:
        MixreorgError: as :meth:`~mixreorg.text.tokenizer.Tokenizer.named`.
    """
    return _clip() if name == "clip" else Tokenizer.named(name)


@cache
def _clip() -> Tokenizer:
    return Tokenizer.clip()


def _unreadable(name: str, reason: str) -> Indexed:
    suspect = Suspect("unreadable shard", name, detail=reason)
    # The statistics say how much is lost; that the shard is short of it goes without saying.
    facts = PartFacts(name, 0, 0, 0, "none", *_compare(name, 0, Problems()))
    return Indexed(facts, Counter([suspect.kind]), [suspect])


def _compare(name: str, num_samples: int, problems: Problems) -> tuple[int | None, int | None]:
    """Compare a part with the statistics file beside it; returns its numbers of pairs asked for and stored."""
    try:
        statistics = read_statistics(name)
    except (OSError, ValueError) as error:
        problems.add(Problem("damaged statistics", name, f"{statistics_file(name).name}: {error}"))
        return None, None
    if statistics is None:
        return None, None
    if num_samples < statistics.stored:
        problems.add(Problem("short shard", name, f"{num_samples:,} of {statistics.stored:,} pairs"))
    return statistics.asked, statistics.stored


def _suspect(name: str, problem: Problem) -> Suspect:
    """A problem of indexing as a suspect; where a whole shard is meant, the key of the problem is a detail."""
    if KINDS[problem.kind].subject == "shard":
        return Suspect(problem.kind, name, detail=problem.key)
    return Suspect(problem.kind, name, problem.key)


_worker: Worker | None = None


def _start(config: CheckConfig) -> None:
    global _worker
    _worker = Worker(config)


def _index(name: str) -> Indexed:
    return _this_worker().index(name)


def _examine(run: Run) -> Findings:
    return _this_worker().examine(run)


def _this_worker() -> Worker:
    if _worker is None:
        raise RuntimeError("the pool was made without _start")
    return _worker

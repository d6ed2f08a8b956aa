"""A long evaluation in parts: each is a file of counts, so that processes share them and a stopped run goes on."""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import Arrays, read_arrays, write_arrays
from mixreorg.eval.evaluators import Evaluator, Measure
from mixreorg.eval.photo_counts import PhotoCounts
from mixreorg.eval.result import Details, SplitResult
from mixreorg.eval.split import EvalSplit
from mixreorg.files import read_json, write_json
from mixreorg.processes import WorkerPool

PHOTOS_PER_PART = 16
"""The same whatever the number of processes, so that batches, and with them all counts, are the same."""


@dataclass(frozen=True)
class PartsJob:
    """What is to be counted, and where the parts go."""

    split: EvalSplit
    measure: Measure
    folder: Path
    """Of the parts."""
    fingerprint: dict[str, Any]
    """Plain values that decide the counts: parts of other values are never mixed in."""
    make_evaluator: Callable[[], Evaluator]
    """Called once per process; picklable where there are several."""
    num_threads: int = 0
    """Threads of each process; 0 leaves them as they are."""
    photos_per_part: int = PHOTOS_PER_PART
    """Photos of each part but the last."""

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return -(-len(self.split.stems) // self.photos_per_part)

    def stems(self, index: int) -> tuple[str, ...]:
        """Photos of a part."""
        return self.split.stems[index * self.photos_per_part : (index + 1) * self.photos_per_part]

    def path(self, index: int) -> Path:
        """File of a part."""
        return self.folder / f"part-{index:05d}.npz"


@dataclass
class Counted:
    """All parts so far."""

    result: SplitResult
    seconds: float = 0.0
    """Wall time, a part's own divided by the processes that ran beside each other."""
    peak_bytes: int = 0
    """Largest memory of a process: its resident size, or that of the tensors on a CUDA device."""


def run_parts(
    job: PartsJob,
    *,
    evaluator: Evaluator | None = None,
    workers: int = 1,
    resume: bool = False,
    advance: Callable[[int, Counted], None] | None = None,
) -> Counted:
    """Count the whole split.

    Args:
        job: what to count.
        evaluator: a finished one for a single process.
        workers: processes.
        resume: go on where an earlier run of the same job stopped.
        advance: called after every part, with its number of photos and what is counted so far.

    Returns:
        The sum of all parts, in the order of the split.

    Raises:
        MixreorgError: the folder holds parts and ``resume`` is off, or parts of another job; anything that an
            evaluator raises.
    """
    done = _claim(job, resume)
    counted = Counted(_empty(job))
    for index in done:
        _add(counted, job, index)
        if advance is not None:
            advance(len(job.stems(index)), counted)
    missing = [index for index in range(job.num_parts) if index not in done]
    run = _one_process(job, evaluator, missing) if workers == 1 else _many_processes(job, missing, workers)
    for index in run:
        _add(counted, job, index)
        if advance is not None:
            advance(len(job.stems(index)), counted)
    # Processes finish in any order; the photos keep that of the split.
    total = Counted(_empty(job))
    for index in range(job.num_parts):
        _add(total, job, index)
    return total


def require_unused(folder: Path) -> None:
    """Refuse a folder of parts with an evaluation in it.

    Raises:
        MixreorgError: it holds finished parts.
    """
    if (folder / "job.json").is_file() and next(folder.glob("part-*.npz"), None) is not None:
        raise MixreorgError(f"{folder} holds an evaluation already; go on with it by --resume, or name another --out")


def _claim(job: PartsJob, resume: bool) -> list[int]:
    """Write what the folder is for, or check it; returns the parts that are there."""
    marker = job.folder / "job.json"
    done = [index for index in range(job.num_parts) if job.path(index).is_file()]
    # A run that stopped before its first part left nothing to go on with or to lose.
    if marker.is_file() and done:
        if not resume:
            require_unused(job.folder)
        written = read_json(marker)
        if written != job.fingerprint:
            raise MixreorgError(
                f"{job.folder} holds parts of another evaluation ({_difference(written, job.fingerprint)}); "
                "name another --out"
            )
        return done
    write_json(marker, job.fingerprint)
    return []


def _difference(old: Any, new: dict[str, Any]) -> str:
    if not isinstance(old, dict):
        return "its job.json is damaged"
    for name in new:
        if old.get(name) != new[name]:
            return f"{name} was {old.get(name)!r}, now {new[name]!r}"
    return "of another version"


def _one_process(job: PartsJob, evaluator: Evaluator | None, missing: list[int]) -> Iterator[int]:
    if missing and evaluator is None:
        evaluator = job.make_evaluator()
    for index in missing:
        assert evaluator is not None
        _count(job, evaluator, index, 1)
        yield index


def _many_processes(job: PartsJob, missing: list[int], workers: int) -> Iterator[int]:
    if not missing:
        return
    workers = min(workers, len(missing))
    with WorkerPool(workers, _start_worker, (job, workers)) as pool:
        waiting: dict[Future[int], None] = {pool.submit(_work, index): None for index in missing}
        try:
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    del waiting[future]
                    yield future.result()
        except BrokenProcessPool as error:
            raise MixreorgError(
                "a process of the evaluation was killed, most often for want of memory; go on by --resume with fewer "
                "--workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


_worker: dict[str, Any] = {}


def _start_worker(job: PartsJob, workers: int) -> None:
    if job.num_threads:
        torch.set_num_threads(job.num_threads)
    _worker.update(job=job, workers=workers)


def _work(index: int) -> int:
    if "evaluator" not in _worker:
        _worker["evaluator"] = _worker["job"].make_evaluator()
    _count(_worker["job"], _worker["evaluator"], index, _worker["workers"])
    return index


def _empty(job: PartsJob) -> SplitResult:
    measure, split = job.measure, job.split
    with_background = split.has_background and measure.threshold is not None
    details = None
    if measure.detail:
        details = Details(len(split.classes) + with_background, with_background, measure.threshold)
    return SplitResult.empty(tuple(item.name for item in split.classes), measure.thresholds, details)


def _count(job: PartsJob, evaluator: Evaluator, index: int, processes: int) -> None:
    start = time.perf_counter()
    result = evaluator.evaluate(job.split, job.stems(index), job.measure)
    arrays: Arrays = result.details.photos.to_arrays() if result.details is not None else {}
    arrays |= {
        "counts": result.counts(),
        "seconds": np.array((time.perf_counter() - start) / processes),
        "peak_bytes": np.array(peak_bytes()),
    }
    write_arrays(job.path(index), arrays)


def _add(counted: Counted, job: PartsJob, index: int) -> None:
    path = job.path(index)
    try:
        arrays = read_arrays(path)
    except MixreorgError as error:
        raise MixreorgError(f"{error}; delete it and go on by --resume") from error
    part = _empty(job)
    part.set_counts(arrays["counts"])
    if part.details is not None:
        try:
            part.details.photos = PhotoCounts.from_arrays(part.details.num_labels, arrays)
        except MixreorgError as error:
            raise MixreorgError(f"{path}: {error}; delete it and go on by --resume") from error
    counted.result.add(part)
    counted.seconds += float(arrays["seconds"])
    counted.peak_bytes = max(counted.peak_bytes, int(arrays["peak_bytes"]))


def peak_bytes() -> int:
    """Largest memory of this process so far: on the CUDA device it uses, else resident; 0 where nothing tells."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

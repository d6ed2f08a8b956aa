"""Writing masks of another form: in parallel, one file at a time, so that an interrupted run goes on where it was."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from mixreorg.data.progress import progress_bars
from mixreorg.files import write_atomically


@dataclass(frozen=True)
class Task:
    """One mask to write."""

    source: Path
    """File that it is made from; a target older than that is made again."""
    target: Path
    """File to write."""
    key: str
    """Which part of the source, where that holds several."""


@dataclass(frozen=True)
class Converted:
    """What a conversion did."""

    written: int
    """Masks written."""
    kept: int
    """Masks that were there already."""


def convert_all(
    tasks: Sequence[Task],
    convert: Callable[[Task], npt.NDArray[np.uint8]],
    description: str,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Converted:
    """Write the masks that are not there yet.

    Every file appears whole or not at all, so after an interrupt or an error the next call writes only the rest.

    Args:
        tasks: masks to write.
        convert: makes the ``[H, W]`` uint8 values of a mask; called from several threads.
        description: what the progress bar says.
        workers: threads; one per core by default. Decoding and encoding run outside Python's lock.
        overwrite: write those that are there as well.
        console: shows the progress; none is shown without it.

    Raises:
        MixreorgError: of ``convert``, or a file that cannot be written; files written before it stay.
    """
    todo = [task for task in tasks if overwrite or not _is_fresh(task)]

    def write(task: Task) -> None:
        image = Image.fromarray(convert(task))
        write_atomically(task.target, lambda temporary: image.save(temporary, format="PNG"))

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        with progress_bars(console) as progress:
            bar = progress.add_task(description, total=len(tasks), completed=len(tasks) - len(todo))
            for _ in pool.map(write, todo):
                progress.advance(bar)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interrupt the rest need not be tried
    return Converted(len(todo), len(tasks) - len(todo))


def _is_fresh(task: Task) -> bool:
    try:
        return task.target.stat().st_mtime_ns >= task.source.stat().st_mtime_ns
    except FileNotFoundError:
        return False

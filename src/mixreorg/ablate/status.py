"""What the terminal shows while an ablation runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mixreorg.ablate.queue import Job, State
from mixreorg.train.metric_sinks import duration

_TAIL_BYTES = 65536
_REFRESH_PER_SECOND = 1


@dataclass(frozen=True)
class Watched:
    """A run that is shown."""

    job: Job
    folder: Path
    steps: int
    """Of the whole run."""


class StatusDisplay:
    """A live table on a terminal; elsewhere one line per change of state."""

    def __init__(self, console: Console, runs: Sequence[Watched]) -> None:
        self._console = console
        self._runs = runs
        self._states: dict[str, State] = {item.job.name: item.job.state for item in runs}
        # The table is drawn when it is shown, by the thread of Live: files are read once a second, not ten times.
        self._live = Live(
            console=console, get_renderable=self.table, refresh_per_second=_REFRESH_PER_SECOND, transient=True
        )

    def __enter__(self) -> "StatusDisplay":
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the table."""
        self._live.stop()

    def update(self) -> None:
        """Print changes of state since the last call."""
        for item in self._runs:
            job = item.job
            if self._states[job.name] == job.state:
                continue
            self._states[job.name] = job.state
            ended = sum(state in ("finished", "failed") for state in self._states.values())
            style = "red" if job.state == "failed" else None
            line = f"{job.name}: {job.state} ({ended} of {len(self._runs)} ended)"
            self._print(line, style)
            if job.failure:
                self._print(job.failure)

    def table(self) -> Table:
        """Runs that are not waiting, with the newest records of their logs."""
        table = Table("run", "state", "step", "pairs/s", "time left", "val mIoU")
        for item in self._runs:
            if item.job.state != "waiting":
                table.add_row(*status_row(item))
        waiting = sum(item.job.state == "waiting" for item in self._runs)
        if waiting:
            table.caption = f"{waiting} waiting"
        return table

    def _print(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def status_row(item: Watched) -> tuple[str, ...]:
    """Name, state, step, rate, time left and newest validation mIoU of a run."""
    newest = newest_values(item.folder / "log.jsonl")
    step = int(newest.get("step", 0))
    rate, left = newest.get("train/pairs_per_second"), newest.get("train/eta_seconds")
    miou = newest.get("val/foreground_miou")
    return (
        item.job.name,
        item.job.state,
        f"{step:,}/{item.steps:,}",
        "" if rate is None else f"{rate:,.0f}",
        duration(left) if left is not None and item.job.state == "train" else "",
        "" if miou is None else f"{miou:.1f}",
    )


def newest_values(log: Path) -> dict[str, Any]:
    """The newest value of each name near the end of a log; empty without one."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, 2) - _TAIL_BYTES, 0))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    values: dict[str, Any] = {}
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # half a line: at the beginning of what was read, or being written
        if isinstance(record, dict):
            values |= record
    return values

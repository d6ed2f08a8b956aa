"""Progress bars of long work on data."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def progress_bars(console: Console | None, decimals: int = 0) -> Progress:
    """Bars with rate, elapsed and remaining time; none without a console.

    Args:
        console: where they go.
        decimals: of the rate.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(decimals),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )


class _RateColumn(ProgressColumn):
    """Completed per second since the start."""

    def __init__(self, decimals: int) -> None:
        super().__init__()
        self._decimals = decimals

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:,.{self._decimals}f}/s" if task.elapsed else "")

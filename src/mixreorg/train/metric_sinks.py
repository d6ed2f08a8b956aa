"""Where training metrics go: a JSONL file, TensorBoard, and one line on the console."""

import json
import math
from pathlib import Path
from typing import Protocol

from rich.console import Console

from mixreorg.files import write_text


class MetricSink(Protocol):
    """Receives scalars by name at a step."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Record metrics."""

    def close(self) -> None:
        """Finish."""


class JsonlSink:
    """One JSON object per line in ``log.jsonl``, null for what is not a number.

    Lines after the step that a run is resumed from are dropped first.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= first_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line at once, so that an interrupted run keeps it."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoardSink:
    """Scalars for ``tensorboard --logdir RUN``."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class ConsoleSink:
    """One line per record: step, losses, rate, time left."""

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._total = total_steps

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Print the metrics in the order given."""
        parts = [f"{name.removeprefix('train/')} {_format(name, value)}" for name, value in metrics.items()]
        self._console.print(f"step {step}/{self._total}  " + "  ".join(parts), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is held open."""


def _format(name: str, value: float) -> str:
    if name.endswith("eta_seconds"):
        return f"{int(value) // 60}:{int(value) % 60:02d}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _lines(path: Path) -> list[str]:
    """Whole lines of a log; the last one may have been cut when the process was killed."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            break
        lines.append(line)
    return lines

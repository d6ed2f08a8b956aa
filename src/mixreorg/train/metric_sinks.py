"""Where metrics go: a JSONL file, TensorBoard, Weights & Biases, and one line on the console.

The files hold every value under its full name; the console shows what tells at a glance how a run goes.
"""

import contextlib
import errno
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_json, write_text
from mixreorg.train.alarms import LOSS_TERMS, Alarm
from mixreorg.train.run_log import whole_records


class MetricSink(Protocol):
    """Receives scalars by name at a step, and alarms. An ``OSError`` means that a record was not written."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics."""

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Record an alarm."""

    def close(self) -> None:
        """Finish."""


def open_sinks(
    run: Path,
    first_step: int,
    total_steps: int,
    console: Console,
    *,
    wandb_project: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[MetricSink]:
    """Open all sinks of a run. Later failures to write are reported once on the console and stop nothing.

    Args:
        run: the run folder.
        first_step: step that the run starts or resumes at; later records of an earlier start are dropped.
        total_steps: of the whole run.
        console: where lines, alarms and failures go.
        wandb_project: project on Weights & Biases to log to, or None.
        config: the run's configuration, for Weights & Biases.

    Raises:
        MixreorgError: ``log.jsonl`` cannot be written at all, or Weights & Biases was asked for and cannot be used.
    """
    openers: dict[str, Callable[[], MetricSink]] = {
        str(run / "log.jsonl"): partial(JsonlSink, run / "log.jsonl", first_step),
        str(run / "tensorboard"): partial(TensorBoardSink, run / "tensorboard", first_step),
    }
    if wandb_project is not None:
        openers["Weights & Biases"] = partial(WandbSink, wandb_project, run.resolve().name, config or {}, run)

    openers["the console"] = partial(ConsoleSink, console, total_steps)

    def warn(message: str) -> None:
        # Where the console goes to a file, that may be what cannot be written.
        with contextlib.suppress(OSError):
            console.print(message, style="yellow", highlight=False, markup=False, soft_wrap=True)

    sinks: list[MetricSink] = []
    try:
        for name, opener in openers.items():
            sinks.append(GuardedSink(name, opener, warn))
    except MixreorgError:
        for sink in sinks:
            sink.close()
        raise
    return sinks


class GuardedSink:
    """A sink whose failures never stop a run: the first is reported, and every later record is tried again."""

    def __init__(self, name: str, opener: Callable[[], MetricSink], warn: Callable[[str], None]) -> None:
        self._name = name
        self._opener = opener
        self._warn = warn
        self._sink: MetricSink | None = None
        self._is_failing = False
        self._missing: list[int] = []
        self._attempt(None, lambda sink: None)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics if that is possible."""
        self._attempt(step, lambda sink: sink.write(step, metrics))

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Record an alarm if that is possible."""
        self._attempt(step, lambda sink: sink.alarm(step, alarm))

    def close(self) -> None:
        """Finish if it was ever open."""
        if self._sink is not None:
            self._attempt(None, lambda sink: sink.close())

    def _attempt(self, step: int | None, action: Callable[[MetricSink], None]) -> None:
        try:
            if self._sink is None:
                self._sink = self._opener()
            action(self._sink)
        except OSError as error:
            if step is not None:
                self._missing.append(step)
            if not self._is_failing:
                self._is_failing = True
                self._warn(
                    f"{self._name} cannot be written ({error.strerror or error}); training goes on and tries again "
                    "with every record"
                )
            return
        if step is None:
            return
        if self._missing:
            count, first = len(self._missing), self._missing[0]
            self._warn(f"{self._name} is written again; {count} records from step {first:,} on are missing")
        self._is_failing = False
        self._missing.clear()


class JsonlSink:
    """One JSON object per line in ``log.jsonl``, null for what is not a number.

    Lines after the step that a run is resumed from are dropped first. An alarm is a line with its kind under
    ``alarm`` and its text under ``message``.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [_line(record) for record in whole_records(path) if record["step"] <= first_step]
        write_text(path, "".join(kept))
        self._file = _RecordFile(path)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line at once, so that an interrupted run keeps it."""
        self._append(
            {"step": step, **{name: value if math.isfinite(value) else None for name, value in metrics.items()}}
        )

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Append a line."""
        self._append({"step": step, "alarm": alarm.kind, "message": alarm.message})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, record: dict[str, Any]) -> None:
        self._file.write(_line(record).encode())


class TensorBoardSink:
    """Scalars for ``tensorboard --logdir RUN``, alarms under its tab Text.

    Written here and now rather than by the library's own thread, which a full disk ends with a traceback.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{first_step}"
        self._event = Event
        self._file = _RecordFile(folder / name)
        self._writer = RecordWriter(self._file)
        # Records of an earlier start after this step are void.
        start = SessionLog(status=SessionLog.START)
        try:
            self._add(file_version="brain.Event:2")
            self._add(step=first_step + 1, session_log=start)
        except OSError:
            self._file.close()
            (folder / name).unlink()
            raise

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(step=step, summary=Summary(value=values))

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Add a text."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        text = TensorProto(dtype=DT_STRING, string_val=[alarm.message.encode()])
        value = Summary.Value(tag=f"alarm/{alarm.kind}", metadata=metadata, tensor=text)
        self._add(step=step, summary=Summary(value=[value]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())


class WandbSink:
    """Scalars and alarms for Weights & Biases; needs the extra ``wandb``.

    The run's id is kept in ``RUN/wandb.json``, so a resumed run goes on in the same charts. ``WANDB_MODE=offline``
    writes to ``RUN/wandb/`` for a later ``wandb sync``.

    Raises:
        MixreorgError: the package is missing, or nobody is logged in.
    """

    def __init__(self, project: str, run_name: str, config: Mapping[str, Any], folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MixreorgError(
                "wandb_project needs the package wandb: pip install 'mixreorg[wandb]', or leave wandb_project out"
            ) from error
        path = folder / "wandb.json"
        identity = str(read_json(path)["id"]) if path.is_file() else secrets.token_hex(4)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                name=run_name,
                id=identity,
                resume="allow",
                dir=str(folder.resolve()),
                config=dict(config),
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise MixreorgError(
                f"Weights & Biases cannot be used ({error}); log in with `wandb login`, set WANDB_MODE=offline to "
                "upload later, or leave wandb_project out"
            ) from error
        write_json(path, {"project": project, "id": identity})
        # The steps of Weights & Biases only rise, but a resumed run repeats those after its checkpoint.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log all metrics of a step."""
        with _as_os_error():
            self._run.log({"step": step, **metrics})

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Send an alert, which its owner can have mailed."""
        with _as_os_error():
            self._run.alert(title=f"{alarm.kind} at step {step}", text=alarm.message)

    def close(self) -> None:
        """Upload what is left."""
        with _as_os_error():
            self._run.finish()


class ConsoleSink:
    """One line per record: step, losses, mixed-mask accuracy, segments in use, speed, memory, time left."""

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._total = total_steps

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a line."""
        if "train/loss" in metrics:
            parts = _train_parts({name.removeprefix("train/"): value for name, value in metrics.items()})
        else:
            parts = [f"{name} {value:.3g}" for name, value in metrics.items()]
        self._print(f"{self._at(step)}  " + "  ".join(parts))

    def alarm(self, step: int, alarm: Alarm) -> None:
        """Print the alarm in yellow, unless the error that it stops the run with says the same."""
        if alarm.kind != "not_finite":
            self._print(f"{self._at(step)}  {alarm.message}", style="yellow")

    def close(self) -> None:
        """Nothing is held open."""

    def _at(self, step: int) -> str:
        total = f"{self._total:,}"
        return f"step {step:>{len(total)},}/{total}"

    def _print(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _train_parts(metrics: Mapping[str, float]) -> list[str]:
    terms = [f"{name[:3]} {metrics[name]:5.2f}" for name in LOSS_TERMS if name in metrics]
    parts = [f"loss {metrics['loss']:5.2f}" + (f" ({' '.join(terms)})" if len(terms) > 1 else "")]
    layout: dict[str, Callable[[float], str]] = {
        "mixed_mask_accuracy": lambda share: f"acc {share:4.0%}",
        "segments_in_use": lambda count: f"segments {count:.1f}",
        "gradient_norm": lambda norm: f"grad {norm:5.3g}",
        "pairs_per_second": lambda rate: f"{rate:7,.0f} pairs/s",
        "mfu": lambda share: f"mfu {share:3.0%}",
        "data_wait_share": lambda share: f"wait {share:3.0%}",
        "memory_gib": lambda size: f"{size:5.2f} GiB" if size < 10 else f"{size:5.1f} GiB",
        "eta_seconds": lambda seconds: f"eta {duration(seconds)}",
    }
    return parts + [write(metrics[name]) for name, write in layout.items() if name in metrics]


def duration(seconds: float) -> str:
    """A time left, for people: seconds, minutes, hours or days."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if minutes == 0:
        return f"{int(seconds)} s"
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class _RecordFile:
    """A file that grows by whole records, straight to the disk: one that does not fit is taken back."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, record: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(size)
            raise

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """A service outside the project may fail in any way, and no chart is worth a run."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"

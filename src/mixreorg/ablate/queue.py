"""Jobs in processes of their own, several at once, each with its share of the machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from mixreorg.errors import MixreorgError
from mixreorg.train.stopping import Stop, StopSignals

POLL_SECONDS = 0.1
TAIL_LINES = 15

State = Literal["waiting", "train", "measure", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Stage:
    """One process of a job."""

    name: Literal["train", "measure"]
    command: tuple[str, ...]
    log: Path
    """Gets its output, after that of earlier calls."""


@dataclass(frozen=True)
class Slot:
    """A share of the machine that one job at a time has."""

    cores: tuple[int, ...] | None
    """Processor cores; None where the system cannot bind a process to some."""
    threads: int
    gpu: str | None
    """The CUDA device; None on others."""

    def environment(self) -> dict[str, str]:
        """Variables of the processes in this slot."""
        limits = {"OMP_NUM_THREADS": str(self.threads)}
        return limits if self.gpu is None else {**limits, "CUDA_VISIBLE_DEVICES": self.gpu}


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    stage: Stage
    exit_code: int
    seconds: float
    cpu_seconds: float | None
    """None where the system does not tell."""


@dataclass
class Job:
    """Processes that follow each other, the next only where the one before succeeded."""

    name: str
    stages: Sequence[Stage]
    state: State = "waiting"
    failure: str = ""
    """What a failed job wrote last."""
    ended: Callable[[Ended, Slot], None] = lambda end, slot: None
    """Called when one of its processes has ended."""


@dataclass(eq=False)
class _Running:
    job: Job
    slot: Slot
    process: "subprocess.Popen[bytes]"
    stage: Stage
    left: "deque[Stage]" = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)


def make_slots(workers: int, device: str) -> list[Slot]:
    """Shares of the machine's cores and, on CUDA, its devices; more workers than there are share them.

    Args:
        workers: processes at once.
        device: type of the device that they use.

    Raises:
        MixreorgError: no worker.
    """
    if workers < 1:
        raise MixreorgError(f"--workers {workers}: give 1 or more")
    bound = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if bound else list(range(os.cpu_count() or 1))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    most = int(limit) if limit.isdigit() and int(limit) > 0 else len(cores)
    gpus = _cuda_devices() if device == "cuda" else []
    slots = []
    for index in range(workers):
        share = cores[index * len(cores) // workers : (index + 1) * len(cores) // workers]
        share = share or [cores[index % len(cores)]]
        gpu = gpus[index % len(gpus)] if gpus else None
        slots.append(Slot(tuple(share) if bound else None, min(len(share), most), gpu))
    return slots


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot], folder: Path, tick: Callable[[], None]) -> Stop | None:
    """Run jobs in order, as many at once as there are slots; a failing one does not stop the others.

    On Ctrl-C or SIGTERM the running processes get SIGTERM, with which training saves; none is started any more.

    Args:
        jobs: their ``state`` and ``failure`` change as they go.
        slots: from :func:`make_slots`.
        folder: where the processes run.
        tick: called several times a second, for a display.

    Returns:
        The signal that stopped the queue, if one did.
    """
    waiting, running = deque(jobs), list[_Running]()
    with StopSignals() as signals:
        told = False
        try:
            while running or (waiting and signals.asked is None):
                if signals.asked is not None and not told:
                    told = True
                    for item in running:
                        _terminate(item)
                free = [slot for slot in slots if all(item.slot is not slot for item in running)]
                while free and waiting and signals.asked is None:
                    job = waiting.popleft()
                    stages = deque(job.stages)
                    running.append(_start(job, free.pop(0), stages.popleft(), stages, folder))
                for item in tuple(running):
                    end = _poll(item)
                    if end is not None:
                        # Before anything can fail: a process that has ended is not ended again below.
                        running.remove(item)
                        running += _go_on(item, end, folder, signals.asked is not None)
                tick()
                time.sleep(POLL_SECONDS)
        finally:
            for item in running:
                _terminate(item)
            for item in running:
                item.process.wait()
    return signals.asked


def _start(job: Job, slot: Slot, stage: Stage, left: "deque[Stage]", folder: Path) -> _Running:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(str(Path(path).absolute()) for path in paths if path)
    environment = {**os.environ, **slot.environment(), **({"PYTHONPATH": absolute} if absolute else {})}
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    with stage.log.open("ab") as log:
        process = subprocess.Popen(
            stage.command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    if slot.cores is not None and sys.platform != "win32":
        # It may have ended already, or the system may forbid it: the threads are limited all the same.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process.pid, slot.cores)
    job.state = stage.name
    return _Running(job, slot, process, stage, left)


def _go_on(item: _Running, end: Ended, folder: Path, stopping: bool) -> list[_Running]:
    """Go on with the job of a process that has ended.

    Returns:
        What runs now; nothing where the job is over.
    """
    job = item.job
    job.ended(end, item.slot)
    if end.exit_code != 0:
        job.state = "stopped" if stopping else "failed"
        job.failure = "" if stopping else _tail(item.stage.log, end)
        return []
    if not item.left:
        job.state = "finished"
        return []
    if stopping:
        job.state = "stopped"
        return []
    stage = item.left.popleft()
    return [_start(job, item.slot, stage, item.left, folder)]


def _terminate(item: _Running) -> None:
    if hasattr(os, "wait4"):
        # Not by Popen, which would first see whether the process has ended, and lose what it used.
        os.kill(item.process.pid, signal.SIGTERM)
    else:
        item.process.terminate()


def _poll(item: _Running) -> Ended | None:
    cpu_seconds = None
    if hasattr(os, "wait4"):
        pid, status, usage = os.wait4(item.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        code = item.process.returncode = os.waitstatus_to_exitcode(status)
        cpu_seconds = round(usage.ru_utime + usage.ru_stime, 2)
    else:
        polled = item.process.poll()
        if polled is None:
            return None
        code = polled
    return Ended(item.stage, code, round(time.monotonic() - item.since, 2), cpu_seconds)


def _tail(log: Path, end: Ended) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"{end.stage.name} ended with exit code {end.exit_code}; the end of {log}:", *lines])


def _cuda_devices() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]

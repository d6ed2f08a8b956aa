"""What a run has cost, all its parts together, and the machine it ran on."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_json
from mixreorg.train.card import device_name
from mixreorg.train.run_log import LogRecord

PARTS = "ablate_parts.json"
"""File in a run folder with one entry per process that worked on it."""


class Machine(StrictConfig):
    """Where a process ran."""

    cpu: str
    """Name of the processor."""
    cores: int
    """Of the machine."""
    cpu_capability: str
    """Instructions that torch uses, for example ``AVX2``."""
    threads: int
    """Threads that the process was given."""
    device: str
    """``cpu``, ``mps``, or the name of the GPU."""


class Part(StrictConfig):
    """One process that worked on a run."""

    stage: str
    """``train`` or ``measure``."""
    seconds: float
    """From start to end."""
    cpu_seconds: float | None
    """Of all its threads and the processes it waited for; None where the system does not tell."""
    exit_code: int
    machine: Machine


class Cost(StrictConfig):
    """What a run has cost."""

    train_seconds: float
    """Wall time of the training steps: no start-up, evaluation, checkpoint, or step that was lost and done again."""
    train_cpu_seconds: float | None
    """Processor time of the same, all threads together; None where the log does not tell."""
    process_seconds: float | None
    """Wall time of the training processes, everything included, of all parts; None where no account was kept, because
    the queue was killed."""
    process_cpu_seconds: float | None
    """Processor time of the same."""
    parts: int
    """Training processes: more than one where the run was stopped and went on."""


def this_machine(device: str, threads: int) -> Machine:
    """Describe the machine.

    Args:
        device: type of the device trained on.
        threads: that each process is given.
    """
    return Machine(
        cpu=device_name(torch.device("cpu")),
        cores=os.cpu_count() or 1,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        device=device,
    )


def read_parts(run: Path) -> list[Part]:
    """The processes that worked on a run so far.

    Raises:
        MixreorgError: the file is damaged.
    """
    path = run / PARTS
    if not path.is_file():
        return []
    content = read_json(path)
    if not isinstance(content, list):
        raise MixreorgError(f"{path} is damaged; remove it, and the run loses the account of its cost")
    return [Part.from_dict(item, source=str(path)) for item in content]


def add_part(run: Path, part: Part) -> None:
    """Add a process to the account of a run."""
    write_json(run / PARTS, [item.to_dict() for item in [*read_parts(run), part]])


def cost_of(parts: Sequence[Part], log: Sequence[LogRecord], batch_size: int) -> Cost:
    """Add up what a run has cost.

    Args:
        parts: from :func:`read_parts`.
        log: of the run.
        batch_size: pairs per step.
    """
    training = [part for part in parts if part.stage == "train"]
    cpu = [part.cpu_seconds for part in training if part.cpu_seconds is not None]
    seconds, cpu_seconds, before, tells = 0.0, 0.0, 0.0, False
    for record in log:
        if "train/pairs_per_second" not in record:
            continue
        # The rate since the last record, or since the start of a part, stands for all steps between two records.
        spent = (record["step"] - before) * batch_size / record["train/pairs_per_second"]
        before = record["step"]
        seconds += spent
        if "train/cpu_cores" in record:
            tells = True
            cpu_seconds += spent * record["train/cpu_cores"]
    return Cost(
        train_seconds=round(seconds, 2),
        train_cpu_seconds=round(cpu_seconds, 2) if tells else None,
        process_seconds=round(sum(part.seconds for part in training), 2) if training else None,
        process_cpu_seconds=round(sum(cpu), 2) if len(cpu) == len(training) and training else None,
        parts=len(training),
    )

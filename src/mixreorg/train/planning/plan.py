"""What a run will take, before anything is rented: memory, reading, time."""

import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from mixreorg.errors import MixreorgError
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.train.config import TrainConfig
from mixreorg.train.planning.calibration import StepTime
from mixreorg.train.planning.flops import PartFlops, flops_per_pair
from mixreorg.train.planning.hardware import Peak, device_memory, kind, peak_flops
from mixreorg.train.planning.memory import MemoryEstimate, ParameterCounts, count_parameters, estimate_memory

ASSUMED_MFU_HALF = 0.12
"""Share of a GPU's peak in half precision that a step uses, where nobody says. A ViT-S is too narrow to keep tensor
cores busy: the authors of DeiT III report 286 images/s per V100 for it, 6 % of the peak; training code of the same size
on A100 cards comes to about twice that."""
ASSUMED_MFU_SINGLE = 0.35
"""The same in float32, whose peak is easier to reach; an estimate."""
MFU_FACTOR = 2.0
"""How far off that assumption may be, either way."""
MEASURED_FACTOR = 1.25
"""The same for steps that were measured."""
USABLE_MEMORY = 0.95
"""Share of a device's memory that a plan fills."""
BYTES_PER_PAIR = 60_000.0
"""Bytes of a JPEG with its caption where nobody says: a photo of 512 x 384 px."""


@dataclass(frozen=True)
class Machine:
    """The devices of a run: one process each."""

    title: str
    device_type: Literal["cpu", "cuda", "mps"]
    devices: int
    memory: int | None
    """Bytes per process; None where unknown."""
    peak: Peak


@dataclass(frozen=True)
class DataFacts:
    """What is known of the pairs."""

    pairs: int | None
    """Pairs per epoch."""
    bytes_per_pair: float
    pictures_per_core: float
    """Pictures that one core reads and decodes per second."""
    text_length: int
    """Tokens of the longest caption of a process's share."""
    notes: tuple[str, ...] = ()
    """Where the figures come from."""


@dataclass(frozen=True)
class MemoryRow:
    """Memory of a process that encodes so many pairs at once."""

    at_once: int
    plain: float
    """Bytes in all."""
    checkpointed: float
    """The same with activation checkpointing."""


@dataclass(frozen=True)
class Choice:
    """One way to compute the recipe's step."""

    chunk: int | None
    activation_checkpointing: bool
    memory: float
    """Bytes in all."""
    flops: float
    """Per pair, recomputation included."""

    @property
    def settings(self) -> str:
        """The command-line options that make it."""
        chunk = "null" if self.chunk is None else self.chunk
        checkpointing = str(self.activation_checkpointing).lower()
        return f"--set engine.chunk={chunk} --set engine.activation_checkpointing={checkpointing}"


@dataclass(frozen=True)
class Span:
    """An estimate between two bounds, in seconds."""

    low: float
    likely: float
    high: float

    def __mul__(self, count: float) -> "Span":
        """So many times as long."""
        return Span(self.low * count, self.likely * count, self.high * count)


@dataclass(frozen=True)
class Plan:
    """All figures of one run on one machine."""

    config: TrainConfig
    machine: Machine
    data: DataFacts
    parameters: ParameterCounts
    flops: PartFlops
    memory: MemoryEstimate
    """Of the configuration as it is."""
    rows: tuple[MemoryRow, ...]
    largest: tuple[int, int]
    """Most pairs per process that fit without a gradient cache: plain, with activation checkpointing."""
    choice: Choice | None
    """The cheapest way to compute the recipe's step that fits; None if there is none or the memory is unknown."""
    step: Span
    """Of the configuration where it fits, else of the choice."""
    reading_per_step: float
    """Seconds that the configured reading processes take for a process's share."""
    mfu: float | None
    """The share of the peak that was assumed; None where steps were measured."""

    @property
    def share(self) -> int:
        """Pairs per process and step."""
        return self.config.batch_size // self.machine.devices

    @property
    def fits(self) -> bool | None:
        """Whether the configuration fits as it is; None if the memory is unknown."""
        return None if self.machine.memory is None else self.memory.total <= USABLE_MEMORY * self.machine.memory

    @property
    def total(self) -> Span:
        """The whole run, without evaluation and checkpoints."""
        return self.step * self.config.steps

    @property
    def epochs(self) -> float | None:
        """Visits to each pair, where their number is known."""
        return None if self.data.pairs is None else self.config.steps * self.config.batch_size / self.data.pairs

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: bytes, seconds, operations."""
        batch, data = self.config.batch_size, asdict(self.data)
        return {
            "recipe": self.config.recipe,
            "machine": asdict(self.machine),
            "batch_size": batch,
            "pairs_per_process": self.share,
            "steps": self.config.steps,
            "epochs": self.epochs,
            "parameters": {**self.parameters.by_part, "total": self.parameters.total},
            "flops_per_pair": {
                "forward": self.flops.forward,
                "forward_total": self.flops.forward_total,
                "model_train": self.flops.model_train,
                "recomputed": self.flops.recomputed,
                "total_train": self.flops.total_train,
            },
            "memory": {**asdict(self.memory), "total": self.memory.total, "fits": self.fits},
            "memory_by_pairs_at_once": [asdict(row) for row in self.rows],
            "largest_pairs_per_process": dict(zip(("plain", "checkpointed"), self.largest, strict=True)),
            "choice": None if self.choice is None else asdict(self.choice),
            "data": {
                **data,
                "bytes_per_epoch": None if self.data.pairs is None else self.data.pairs * self.data.bytes_per_pair,
                "bytes_total": batch * self.config.steps * self.data.bytes_per_pair,
                "pairs_per_second": batch / self.step.likely,
                "bytes_per_second": batch / self.step.likely * self.data.bytes_per_pair,
                "cores": batch / self.step.likely / self.data.pictures_per_core,
                "reading_seconds_per_step": self.reading_per_step,
            },
            "mfu_assumed": self.mfu,
            "seconds_per_step": asdict(self.step),
            "seconds_total": asdict(self.total),
        }


def this_machine(config: TrainConfig, device: torch.device, devices: int) -> Machine:
    """The machine that this runs on. Processes on a CPU share its memory and its cores."""
    memory, peak = device_memory(device), peak_flops(device, config.precision)
    if device.type == "cpu":
        memory = None if memory is None else memory // devices
        peak = replace(peak, flops=peak.flops / devices)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"
    device_type: Any = device.type
    return Machine(f"this machine ({name})", device_type, devices, memory, peak)


def known_machine(config: TrainConfig, name: str, devices: int) -> Machine:
    """Devices of a kind in :data:`~mixreorg.train.planning.hardware.KINDS`.

    Raises:
        MixreorgError: no such kind.
    """
    found = kind(name)
    return Machine(found.title, "cuda", devices, found.memory, found.peak(config.precision))


def make_plan(
    config: TrainConfig,
    machine: Machine,
    data: DataFacts,
    *,
    mfu: float | None = None,
    step_time: StepTime | None = None,
) -> Plan:
    """Reckon a run.

    Args:
        config: the run, its tokenizer resolved.
        machine: where.
        data: what is known of the pairs.
        mfu: share of the peak that the model's own operations use, as a log line of such a run says; None for an
            assumption, with its uncertainty.
        step_time: steps that were measured, in place of peak and share.

    Raises:
        MixreorgError: a batch that the devices cannot share.
    """
    share = share_of(config, machine.devices)
    parameters = count_parameters(config)
    flops = flops_per_pair(config, config.batch_size, devices=machine.devices, text_length=data.text_length)
    memory = _Memory(config, machine, data.text_length, parameters)
    choice = memory.choice(share)
    compute, assumed = _compute_seconds(config, machine, flops, share, mfu, step_time)
    if choice is not None and not memory.fits(memory.of(share)):
        compute *= choice.flops / flops.total_train
    factor = MEASURED_FACTOR if step_time is not None or mfu is not None else MFU_FACTOR
    reading = share / data.pictures_per_core / max(config.data.num_workers, 1)
    return Plan(
        config=config,
        machine=machine,
        data=data,
        parameters=parameters,
        flops=flops,
        memory=memory.of(share),
        rows=tuple(memory.row(size) for size in _sizes(config, share)),
        largest=(memory.largest(False), memory.largest(True)),
        choice=choice,
        step=Span(*(_with_reading(config, machine, seconds, reading) for seconds in _around(compute, factor))),
        reading_per_step=reading,
        mfu=assumed,
    )


def share_of(config: TrainConfig, devices: int) -> int:
    """Pairs per process and step.

    Raises:
        MixreorgError: a batch that the devices cannot share.
    """
    unit = _unit(config)
    share, rest = divmod(config.batch_size, devices)
    if devices < 1 or rest or (devices > 1 and share % unit):
        of = f"{unit} (objective.group_size) per device" if unit > 1 else "the devices"
        raise MixreorgError(
            f"--devices {devices}: the batch of {config.batch_size} cannot be shared equally; "
            f"it must be a multiple of {of}: choose other --devices or --set batch_size=..."
        )
    return share


def _unit(config: TrainConfig) -> int:
    """Pairs that stay together."""
    return config.objective.group_size if isinstance(config.objective, MixReorgConfig) else 1


def _sizes(config: TrainConfig, share: int) -> list[int]:
    """Numbers of pairs worth a row: powers of two up to the share, the share, and a configured chunk."""
    unit = _unit(config)
    sizes = {unit << power for power in range(20) if 8 <= unit << power < share}
    chunk = config.engine.chunk
    return sorted({*sorted(sizes)[-6:], share, *([chunk] if chunk and chunk < share else [])})


def _compute_seconds(
    config: TrainConfig,
    machine: Machine,
    flops: PartFlops,
    share: int,
    mfu: float | None,
    step_time: StepTime | None,
) -> tuple[float, float | None]:
    """Seconds of a step without reading, and the share of the peak that they come from, if they do."""
    if step_time is not None:
        return step_time.seconds(share), None
    if mfu is not None:
        return share * flops.model_train / (machine.peak.flops * mfu), mfu
    assumed = ASSUMED_MFU_HALF if machine.peak.is_half else ASSUMED_MFU_SINGLE
    return share * flops.total_train / (machine.peak.flops * assumed), assumed


def _around(likely: float, factor: float) -> tuple[float, float, float]:
    return likely / factor, likely, likely * factor


def _with_reading(config: TrainConfig, machine: Machine, compute: float, reading: float) -> float:
    """Seconds of a step and its reading: beside it, or, where the same cores do both, after it."""
    if config.data.num_workers == 0:
        return compute + reading
    if machine.device_type == "cpu":
        cores = max((os.cpu_count() or 1) // machine.devices, 1)
        return compute + reading * max(config.data.num_workers / cores, 1)
    return max(compute, reading)


class _Memory:
    """Memory estimates of one run with other chunks and with or without checkpointing."""

    def __init__(self, config: TrainConfig, machine: Machine, text_length: int, parameters: ParameterCounts) -> None:
        self.config, self.machine = config, machine
        self.text_length, self.parameters = text_length, parameters

    def of(self, share: int, config: TrainConfig | None = None) -> MemoryEstimate:
        """Of a configuration, by default the run's, with ``share`` pairs per process."""
        return estimate_memory(
            config or self.config,
            self.machine.device_type,
            share,
            devices=self.machine.devices,
            text_length=self.text_length,
            parameters=self.parameters,
        )

    def row(self, at_once: int) -> MemoryRow:
        """The recipe's step, ``at_once`` pairs at a time."""
        share = self.config.batch_size // self.machine.devices
        # The whole share is no chunk, whose size groups must divide.
        chunk = at_once if at_once < share else None
        plain, checkpointed = (self.of(share, self._with(chunk, flag)).total for flag in (False, True))
        return MemoryRow(at_once, plain, checkpointed)

    def largest(self, checkpointing: bool) -> int:
        """Most pairs per process that fit without a gradient cache; 0 where none or the memory is unknown."""
        unit, config = _unit(self.config), self._with(None, checkpointing)
        low, high = 0, 1 << 20
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(self.of(middle * unit, config)) else (low, middle)
        return low * unit

    def choice(self, share: int) -> Choice | None:
        """The cheapest way that fits, and of equally cheap ones the one with the most room."""
        found: list[Choice] = []
        powers = [_unit(self.config) << power for power in range(20)]
        chunks = [None, *sorted((size for size in powers if size < share), reverse=True)]
        for checkpointing in (False, True):
            for chunk in chunks:
                config = self._with(chunk, checkpointing)
                memory = self.of(share, config)
                if self.fits(memory):
                    flops = flops_per_pair(
                        config, config.batch_size, devices=self.machine.devices, text_length=self.text_length
                    )
                    found.append(Choice(chunk, checkpointing, memory.total, flops.total_train))
                    break
        return min(found, key=lambda choice: (choice.flops, choice.memory), default=None)

    def _with(self, chunk: int | None, checkpointing: bool) -> TrainConfig:
        engine = self.config.engine.updated(chunk=chunk, activation_checkpointing=checkpointing)
        return self.config.updated(engine=engine)

    def fits(self, memory: MemoryEstimate) -> bool:
        """Whether it leaves some room on the device."""
        return self.machine.memory is not None and memory.total <= USABLE_MEMORY * self.machine.memory

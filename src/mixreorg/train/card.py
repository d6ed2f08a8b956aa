"""The run card: what a checkpoint came from, readable by people and by ``mixreorg reproduce``."""

import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

import mixreorg
from mixreorg.config import StrictConfig
from mixreorg.distributed import world_size
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json
from mixreorg.train.config import TrainConfig
from mixreorg.train.run_log import whole_records

CARD = "card.json"
FORMAT: Literal["mixreorg-card-1"] = "mixreorg-card-1"
NUM_LOSSES = 24
"""Most losses that a card keeps."""


@dataclass(frozen=True)
class RunFacts:
    """What a card says beside the configuration and the progress."""

    fingerprint: str | None
    """Identifies the caption pairs wherever they lie; None where it was not taken."""
    num_pairs: int
    device: torch.device
    nouns: str | None = None
    """Identifies the word list of the multi-label loss by what it holds; None where there is none."""


class DataCard(StrictConfig):
    """The caption pairs of a run."""

    fingerprint: str | None
    num_pairs: int
    nouns: str | None = None
    """Identifies the word list of the multi-label loss; None where there is none."""


class LayoutCard(StrictConfig):
    """Where a run was computed; the bits of its results depend on it."""

    world_size: int
    """Training processes."""
    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    device_name: str
    threads: int
    """CPU threads of each process."""
    precision: str


class RunCard(StrictConfig):
    """All that is needed to run the same training again and to tell whether it came out the same."""

    format: Literal["mixreorg-card-1"]
    recipe: str
    seed: int
    """Of everything that is drawn: initial weights, order, augmentation, mixing, noise."""
    step: int = Field(ge=0)
    """Finished steps."""
    data: DataCard
    layout: LayoutCard
    versions: dict[str, str | None]
    """By name; ``commit`` is the package's own where it is a git checkout, None otherwise."""
    seconds: float
    """Wall time so far, all sessions together, with start-up and evaluations."""
    pairs_per_second: float
    """Pairs of all finished steps per second of this time."""
    metrics: dict[str, float | None]
    """Of the evaluation at this very step, percent; empty where there was none."""
    losses: dict[int, float | None]
    """Training loss at some of the logged steps, closer together at the beginning."""
    scaler: dict[str, int | float] | None
    """State of the loss scaling that fp16 needs."""
    earlier_steps: dict[int, int] = Field(default_factory=dict)
    """Values that ``steps`` had before the run was made longer or shorter, by the finished steps up to which each
    held: the learning rate followed them in turn."""
    config: TrainConfig

    def describe(self) -> str:
        """One line for people."""
        layout = self.layout
        return (
            f"{self.recipe}, step {self.step} of {self.config.steps}, seed {self.seed}, {self.data.num_pairs} pairs, "
            f"{layout.world_size} x {layout.device} ({layout.device_name}), {layout.precision}, "
            f"{self.pairs_per_second:.0f} pairs/s"
        )


def make_card(
    config: TrainConfig,
    facts: RunFacts,
    *,
    step: int,
    seconds: float,
    metrics: dict[str, float],
    scaler: dict[str, float] | None,
    losses: dict[int, float | None],
    earlier_steps: Mapping[int, int] | None = None,
) -> RunCard:
    """Describe a run as it stands.

    Args:
        config: of the run.
        facts: its data and device.
        step: finished steps.
        seconds: wall time of all sessions so far.
        metrics: of the evaluation at this step, if there was one.
        scaler: state of the loss scaling, if there is one.
        losses: by step, as :func:`logged_losses` reads them; some are kept.
        earlier_steps: from :func:`earlier_steps`, where the run is a resumed one.
    """
    return RunCard(
        format=FORMAT,
        recipe=config.recipe,
        seed=config.seed,
        step=step,
        data=DataCard(fingerprint=facts.fingerprint, num_pairs=facts.num_pairs, nouns=facts.nouns),
        layout=layout_card(config, facts.device),
        versions=versions(),
        seconds=round(seconds, 1),
        pairs_per_second=round(step * config.batch_size / max(seconds, 1e-3), 1),
        metrics=dict(metrics),
        losses=_thin_out(losses),
        scaler=dict(scaler) if scaler else None,
        earlier_steps=dict(earlier_steps or {}),
        config=config,
    )


def layout_card(config: TrainConfig, device: torch.device) -> LayoutCard:
    """Where this process trains."""
    return LayoutCard(
        world_size=world_size(),
        device=device.type,
        device_name=device_name(device),
        threads=torch.get_num_threads(),
        precision=config.precision,
    )


def read_card(path: Path) -> RunCard:
    """Read a card: the file itself, or that of a checkpoint or run folder.

    Raises:
        MixreorgError: nothing there, or not a card of this format.
    """
    path = path / CARD if path.is_dir() else path
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MixreorgError(f"{path} is not a run card ({FORMAT}); give the {CARD} of a run or checkpoint folder")
    return RunCard.from_dict(content, source=str(path))


def earlier_steps(card: RunCard, steps: int) -> dict[int, int]:
    """What the cards of a run say of earlier values of ``steps`` once it goes on.

    Args:
        card: of the checkpoint that it goes on from.
        steps: of the run from now on.
    """
    # What no step was trained with held for none.
    held = {card.step: card.config.steps, **card.earlier_steps}
    return {step: held[step] for step in sorted(held) if step < card.step or held[step] != steps}


def logged_losses(log: Path, last_step: int) -> dict[int, float | None]:
    """Training loss by step from a run's ``log.jsonl``, None where it was not a number; empty without a log.

    A log that cannot be read is none: the checkpoint that its losses go into is worth more than they are.
    """
    try:
        records = [record for record in whole_records(log) if "train/loss" in record]
    except OSError:
        return {}
    return {record["step"]: record["train/loss"] for record in records if record["step"] <= last_step}


@functools.cache
def versions() -> dict[str, str | None]:
    """Of the software whose change may change a result."""
    try:
        accelerate = version("accelerate")
    except PackageNotFoundError:
        accelerate = None
    return {
        "mixreorg": mixreorg.__version__,
        "commit": _commit(Path(mixreorg.__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "accelerate": accelerate,
        "cuda": torch.version.cuda,
    }


def _thin_out(losses: dict[int, float | None]) -> dict[int, float | None]:
    """The first, the last, and between them ever fewer: places in the log grow by a constant factor."""
    steps = sorted(losses)
    places = {round(len(steps) ** (index / (NUM_LOSSES - 1))) - 1 for index in range(NUM_LOSSES)}
    return {steps[place]: losses[steps[place]] for place in sorted(places)} if steps else {}


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    """Commit of the checkout that a package is imported from, with ``-dirty`` where files differ from it."""
    root = package.parents[1]
    if not (root / ".git").exists() or package.parent.name != "src":
        return None  # installed: a repository further up, if any, is somebody else's
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None

"""Running the training of a card again, and telling whether it came out the same."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console

from mixreorg.bundled import BUNDLED
from mixreorg.console import plain_console
from mixreorg.errors import MixreorgError
from mixreorg.text.nouns import NounList
from mixreorg.train.card import RunCard, logged_losses, read_card, versions
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Device
from mixreorg.train.setup import open_source
from mixreorg.train.stopping import Stop
from mixreorg.train.trainer import train

TOLERANCE = 1e-5
"""Largest relative difference that rounding in another order explains."""

Key = TypeVar("Key", int, str)
Verdict = Literal["bit-equal", "within 1e-5", "different"]


@dataclass(frozen=True)
class Comparison:
    """Numbers of a card against those of its reproduction."""

    verdict: Verdict
    count: int
    """Numbers compared."""
    detail: str
    """The largest difference, in words; empty where all bits are equal."""


@dataclass(frozen=True)
class Reproduction:
    """How a reproduction ended."""

    losses: Comparison | None
    metrics: Comparison | None
    """None where the card has no evaluation, or the reproduction ended before it."""
    stopped: Stop | None
    """The signal that ended the training before there was anything to compare, if one did."""

    @property
    def agrees(self) -> bool:
        """Whether everything compared is equal or differs by rounding alone."""
        compared = [item for item in (self.losses, self.metrics) if item is not None]
        return bool(compared) and all(item.verdict != "different" for item in compared)


def reproduce(
    source: Path,
    out: Path,
    *,
    data: Sequence[str] = (),
    evaluate: Path | None = None,
    nouns: Path | None = None,
    steps: int | None = None,
    force: bool = False,
    device: Device = "auto",
    console: Console | None = None,
) -> Reproduction:
    """Train by a card into a new run folder and compare losses and metrics. A second call goes on where it stopped.

    Args:
        source: a card, or the checkpoint or run folder that holds it.
        out: the new run folder.
        data: where the caption pairs are now; empty for where the card says.
        evaluate: where the evaluation split is now; None for where the card says.
        nouns: where the word list of the multi-label loss is now; None for where the card says.
        steps: train and compare the first so many steps alone; None for all that the card has.
        force: train on other data than the card's.
        device: as for :func:`~mixreorg.train.trainer.train`.
        console: where the findings go; standard error by default.

    Raises:
        MixreorgError: no card, the card of a run that was made longer or shorter, other data, or nothing to compare.
    """
    card = read_card(source)
    _check_steps(card)
    folder = source if source.is_dir() else source.parent
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise MixreorgError(f"{out} holds the card itself; choose another --out for its reproduction")
    if os.environ.get("RANK", "0") != "0":
        console = plain_console(quiet=True)  # the first process speaks for all
    console = console or plain_console(stderr=True)
    until = card.step if steps is None else steps
    expected = _expected_losses(card, until)
    with_metrics = bool(card.metrics) and until == card.step
    config = _config(card, folder, data, evaluate, nouns, with_metrics)
    # The interval may have changed on the way: every loss that the card has is logged again.
    config = config.updated(log_every=math.gcd(config.log_every, *(step for step in expected if step < until)))
    _say(console, f"card: {card.describe()}")
    _check_data(card, config, force, console)
    _check_nouns(card, config, force, console)
    _tell_differences("version", card.versions, versions(), console)
    outcome = train(config, out, resume="auto", device=device, console=console, until=until)
    if outcome.stopped is not None:
        return Reproduction(None, None, outcome.stopped)
    now = read_card(out)
    _tell_differences("layout", card.layout.to_dict(), now.layout.to_dict(), console)
    losses = compare(expected, logged_losses(out / "log.jsonl", until), "step {}")
    metrics = compare(card.metrics, now.metrics, "{}") if with_metrics else None
    for name, result in (("losses", losses), ("metrics", metrics)):
        if result is not None:
            _say(console, f"{name}: {result.verdict}, {result.count} compared{result.detail}")
    return Reproduction(losses, metrics, None)


def compare(expected: Mapping[Key, float | None], found: Mapping[Key, float | None], name: str) -> Comparison:
    """Compare numbers by key; what is missing or not a number on one side alone is different.

    Args:
        expected: what the card says.
        found: what the reproduction gave, perhaps with more keys.
        name: how the detail calls a key, with ``{}`` for it.
    """
    worst, detail = 0.0, ""
    for key, before in expected.items():
        after = found.get(key)
        if before == after:
            continue
        difference = math.inf
        if before is not None and after is not None:
            difference = abs(after - before) / max(abs(before), 1e-12)
        if difference > worst:
            worst = difference
            detail = f"; largest difference at {name.format(key)}: {before} then, {after} now"
    verdict: Verdict = "bit-equal" if not detail else "within 1e-5" if worst <= TOLERANCE else "different"
    return Comparison(verdict, len(expected), detail)


def _check_steps(card: RunCard) -> None:
    """A run whose ``steps`` changed followed several learning rates, of which a configuration holds the last."""
    if card.earlier_steps:
        held = ", then ".join(f"{steps:,} up to step {step:,}" for step, steps in card.earlier_steps.items())
        raise MixreorgError(
            f"the run was made longer or shorter on the way (steps was {held}, then {card.config.steps:,}), and its "
            "learning rate followed each value in turn, so no single run repeats it; reproduce a checkpoint of its "
            f"first {min(card.earlier_steps):,} steps, if there is one, or an unchanged run"
        )


def _expected_losses(card: RunCard, until: int) -> dict[int, float | None]:
    if not 0 < until <= card.step:
        raise MixreorgError(f"--steps {until}: the card describes {card.step} steps; give a number from 1 to that")
    expected = {step: loss for step, loss in card.losses.items() if step <= until}
    if not expected:
        first = f"the first at step {min(card.losses)}" if card.losses else "none"
        raise MixreorgError(f"the card has no loss up to step {until} to compare with ({first}); take more --steps")
    return expected


def _config(
    card: RunCard,
    folder: Path,
    data: Sequence[str],
    evaluate: Path | None,
    nouns: Path | None,
    with_metrics: bool,
) -> TrainConfig:
    """The card's configuration with things where they are now; nothing that changes a number."""
    config = card.config
    pairs = config.data.updated(
        train=tuple(data) or config.data.train,
        tokenizer=_tokenizer(card, folder),
        nouns=str(nouns) if nouns is not None else config.data.nouns,
    )
    root = str(evaluate) if evaluate is not None else config.evaluation.root
    evaluation = config.evaluation.updated(root=root if with_metrics else None)
    # Charts of the original run are its owner's: nothing is added to them.
    return config.updated(data=pairs, evaluation=evaluation, wandb_project=None)


def _tokenizer(card: RunCard, folder: Path) -> str:
    """The checkpoint's own copy of the tokenizer where there is one, else the file that the card names."""
    name = card.config.data.tokenizer
    if name in ("clip", *BUNDLED):
        return name
    for place in (folder, folder / "checkpoints" / f"step-{card.step:08d}"):
        if (place / "tokenizer.json").is_file():
            return str(place / "tokenizer.json")
    if not Path(name).is_file():
        raise MixreorgError(f"{name}, the card's tokenizer, is not here; put a copy beside the card as tokenizer.json")
    return name


def _check_data(card: RunCard, config: TrainConfig, force: bool, console: Console) -> None:
    source = open_source(config)
    if card.data.fingerprint is None:
        _say(console, "data: the card has no fingerprint to compare with", style="yellow")
    elif source.fingerprint() == card.data.fingerprint:
        _say(console, f"data: the same {len(source):,} pairs")
    else:
        same_number = len(source) == card.data.num_pairs
        what = "as many, but other files or captions" if same_number else f"{card.data.num_pairs:,} then"
        difference = f"other data than the card's: {len(source):,} pairs now, {what}"
        if not force:
            raise MixreorgError(f"{difference}; say with --data where the card's are, or train anyway with --force")
        _say(console, difference, style="yellow")


def _check_nouns(card: RunCard, config: TrainConfig, force: bool, console: Console) -> None:
    if card.data.nouns is None or config.data.nouns is None:
        return
    if NounList.from_file(Path(config.data.nouns)).fingerprint() != card.data.nouns:
        difference = f"{config.data.nouns} is another word list than the card's"
        if not force:
            raise MixreorgError(f"{difference}; say with --nouns where the card's is, or train anyway with --force")
        _say(console, difference, style="yellow")


def _tell_differences(what: str, then: Mapping[str, object], now: Mapping[str, object], console: Console) -> None:
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            _say(console, f"{what} differs: {name} {then.get(name)} then, {now.get(name)} now", style="yellow")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

"""Alarms: what goes wrong in a run, seen in its log records and said once, with what to try."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from mixreorg.models.dual_encoder import LOGIT_SCALE_MAX
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.train import alarm_texts as texts
from mixreorg.train.alarm_config import AlarmConfig
from mixreorg.train.config import TrainConfig

AlarmKind = Literal[
    "not_finite",
    "exploding_gradient",
    "low_logit_scale",
    "saturated_logit_scale",
    "contrastive_at_chance",
    "rising_loss",
    "one_segment",
    "mixed_at_chance",
    "mixed_leak",
    "waiting_for_data",
    "slow",
]

LOSS_TERMS = ("contrastive", "mixed", "text_to_patch", "restored", "multi_label")

# Records that a value is smoothed over, by their median: a record holds one batch, and batches differ.
_SMOOTHED = 5
# Records that the usual gradient norm is taken from, and how many of them it needs.
_WINDOW, _FILLED = 20, 8
# Steps that a failure to learn lasts at least, however short the run.
_LEAST_STEPS = 200
# Pre-training on millions of pairs may well end at the clamp of the logit scale; early in a run it is a symptom.
_SATURATION_BEFORE = 0.5
# Small losses double by chance: a rise counts from this share of the contrastive loss at chance, log(batch).
_LEAST_RISE = 0.02


@dataclass(frozen=True)
class Alarm:
    """One warning."""

    kind: AlarmKind
    message: str
    """What was seen, what it usually means, what to try."""


@dataclass(frozen=True)
class _Finding:
    """What one rule says of one record."""

    kind: AlarmKind
    about: str
    """Metric that it is about; alarms of one kind about several metrics are told apart by it."""
    bad: bool
    message: str


class _Episode:
    """Whether a condition stands: it must hold for a while to be raised, and be gone for a while to be lowered."""

    def __init__(self, raise_after: int, lower_after: int, steps: float) -> None:
        self._after = {True: raise_after, False: lower_after}
        self._steps = steps
        self._raised = False
        self._count = 0
        self._since = 0

    def raised_by(self, step: int, bad: bool) -> bool:
        """Take one more record; true for the one that raises the alarm."""
        if bad == self._raised:
            self._count = 0
            return False
        if self._count == 0:
            self._since = step
        self._count += 1
        if self._count < self._after[bad] or step - self._since < self._steps:
            return False
        self._raised, self._count = bad, 0
        return bad


class Alarms:
    """Watches the log records of a run. Each alarm is raised once per episode, and none in a normal warm-up."""

    def __init__(self, config: AlarmConfig, run: TrainConfig) -> None:
        self._config = config
        self._run = run
        objective = run.objective
        self._mixing = objective if isinstance(objective, MixReorgConfig) and objective.group_size > 1 else None
        self._history: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOW))
        self._best: dict[str, tuple[float, int]] = {}
        self._episodes: dict[tuple[AlarmKind, str], _Episode] = {}
        self._terms: frozenset[str] = frozenset()
        self._last: tuple[int, Mapping[str, float]] | None = None

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take the metrics of one log record and return the alarms that it raises.

        Args:
            step: finished steps.
            metrics: scalars by name, as in ``log.jsonl`` without ``train/``; those that are absent are not watched.
        """
        if not self._config.enabled:
            return []
        # Scaled losses may overflow in the gradient: such a step is skipped and the scale lowered.
        watched: dict[str, Literal["loss", "gradient"]] = {"loss": "loss"}
        if self._run.precision != "fp16":
            watched["gradient_norm"] = "gradient"
        alarms = [
            self.not_finite(step, what)
            for name, what in watched.items()
            if self._episode("not_finite", name).raised_by(step, not math.isfinite(metrics.get(name, 0.0)))
        ]
        alarms += [
            Alarm(finding.kind, finding.message)
            for finding in self._findings(step, metrics)
            if self._episode(finding.kind, finding.about).raised_by(step, finding.bad)
        ]
        self._last = step, dict(metrics)
        return alarms

    def not_finite(self, step: int, what: Literal["loss", "gradient"]) -> Alarm:
        """The alarm of a loss or gradient that is not a number, on which a run must stop.

        Args:
            step: finished steps.
            what: which of the two.
        """
        return Alarm("not_finite", texts.not_finite(what, step, self._last, self._run))

    def _findings(self, step: int, metrics: Mapping[str, float]) -> Iterator[_Finding]:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        yield from self._gradient(finite)
        terms = frozenset(name for name in LOSS_TERMS if name in finite)
        if terms != self._terms:
            # Another branch has joined or left: steps take another time from here on.
            self._terms = terms
            self._history.pop("pairs_per_second", None)
            self._best.pop("pairs_per_second", None)
        for name, value in finite.items():
            self._history[name].append(value)
        yield from self._speed()
        yield from self._rise(step)
        if step > self._run.optim.warmup_steps:
            yield from self._learning(step)
            yield from self._mixed(step)

    def _gradient(self, metrics: Mapping[str, float]) -> Iterator[_Finding]:
        """A norm far above what was usual before this record."""
        norms = self._history["gradient_norm"]
        usual = median(norms) if len(norms) >= _FILLED else 0.0
        if "gradient_norm" in metrics and usual > 0:
            norm = metrics["gradient_norm"]
            message = texts.exploding_gradient(norm, usual, self._run)
            yield _Finding("exploding_gradient", "gradient_norm", norm > self._config.gradient_factor * usual, message)

    def _speed(self) -> Iterator[_Finding]:
        wait, rate = self._smoothed("data_wait_share"), self._smoothed("pairs_per_second")
        if wait is not None:
            message = texts.waiting_for_data(wait, self._run)
            yield _Finding("waiting_for_data", "data_wait_share", wait > self._config.max_data_wait, message)
        if rate is not None:
            best = max(self._best.get("pairs_per_second", (rate, 0)), (rate, 0))
            self._best["pairs_per_second"] = best
            bad = rate < self._config.throughput_drop * best[0]
            yield _Finding("slow", "pairs_per_second", bad, texts.slow(rate, best[0], wait))

    def _rise(self, step: int) -> Iterator[_Finding]:
        """Loss terms well above their best. Not the total: it also changes with the weights of its terms."""
        least = _LEAST_RISE * math.log(self._run.batch_size)
        for name in LOSS_TERMS:
            loss = self._smoothed(name)
            if loss is None or name not in self._terms:
                continue
            best = min(self._best.get(name, (loss, step)), (loss, step))
            self._best[name] = best
            bad = step > self._run.optim.warmup_steps and loss - best[0] > max(self._config.loss_rise * best[0], least)
            yield _Finding("rising_loss", name, bad, texts.rising_loss(name, loss, best, self._run))

    def _learning(self, step: int) -> Iterator[_Finding]:
        """Collapse: of the logit scale, of the contrast, of the segments."""
        scale, loss = self._smoothed("logit_scale"), self._smoothed("contrastive")
        segments = self._smoothed("segments_in_use")
        if scale is not None:
            bad = scale < self._config.min_logit_scale
            yield _Finding("low_logit_scale", "logit_scale", bad, texts.low_logit_scale(scale, self._run))
            bad = scale > 0.999 * LOGIT_SCALE_MAX and step < _SATURATION_BEFORE * self._run.steps
            message = texts.saturated_logit_scale(scale, step, self._run)
            yield _Finding("saturated_logit_scale", "logit_scale", bad, message)
        if loss is not None:
            chance = math.log(self._run.batch_size)
            bad = loss > (1 - self._config.chance_margin) * chance
            yield _Finding("contrastive_at_chance", "contrastive", bad, texts.contrastive_at_chance(loss, self._run))
        if segments is not None and self._run.model.image.num_segments[1] > 1:
            bad = segments < self._config.min_segments
            yield _Finding("one_segment", "segments_in_use", bad, texts.one_segment(segments, self._run))

    def _mixed(self, step: int) -> Iterator[_Finding]:
        """Mixed-mask accuracy: no better than guessing, or better than single mixing units can tell."""
        accuracy, loss = self._smoothed("mixed_mask_accuracy"), self._smoothed("mixed")
        mixing = self._mixing
        if mixing is None or accuracy is None or loss is None:
            return
        chance = 1 / mixing.group_size
        skill = (accuracy - chance) / (1 - chance)
        if step > mixing.mixed.start_step + mixing.mixed.ramp_steps:
            bad = skill < self._config.chance_margin
            message = texts.mixed_at_chance(accuracy, mixing, self._run)
            yield _Finding("mixed_at_chance", "mixed_mask_accuracy", bad, message)
        if _shares_context(mixing, self._run):
            bad = skill > self._config.leak_accuracy
            yield _Finding("mixed_leak", "mixed_mask_accuracy", bad, texts.mixed_leak(accuracy, loss, mixing))

    def _smoothed(self, name: str) -> float | None:
        """Median of the newest values; None until there are enough."""
        values = list(self._history[name])[-_SMOOTHED:]
        return median(values) if len(values) == _SMOOTHED else None

    def _episode(self, kind: AlarmKind, about: str) -> _Episode:
        if (kind, about) not in self._episodes:
            patience = self._config.patience
            at_once = kind in ("not_finite", "exploding_gradient")
            is_speed = kind in ("waiting_for_data", "slow")
            steps = 0 if at_once or is_speed else max(self._config.patience_share * self._run.steps, _LEAST_STEPS)
            self._episodes[kind, about] = _Episode(1 if at_once else patience, patience, steps)
        return self._episodes[kind, about]


def _shares_context(mixing: MixReorgConfig, run: TrainConfig) -> bool:
    """Whether mixed patches have met their whole image: then they may carry its identity."""
    first = mixing.num_contextual_blocks
    strengthened = mixing.combine != "none" and run.model.image.depths[0] > first + 1
    # A block after the local ones attends to the whole image; strengthening takes the features of block first + 1.
    return first > run.model.image.num_local_blocks or (strengthened and first + 1 > run.model.image.num_local_blocks)

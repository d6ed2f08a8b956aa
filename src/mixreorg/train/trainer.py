"""The training loop: it knows batches, loss terms, checkpoints and sinks, and nothing of any method."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console

from mixreorg.console import plain_console
from mixreorg.data.loader import PairBatch
from mixreorg.data.problems import Problem, Problems
from mixreorg.data.transforms import augment
from mixreorg.distributed import on_first_process, rank, world_size
from mixreorg.errors import MixreorgError
from mixreorg.files import write_json
from mixreorg.interop.initialise import initialise
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.terms import LossTerms
from mixreorg.randomness import sample_keys
from mixreorg.train.alarms import Alarm, Alarms
from mixreorg.train.card import RunFacts, read_card
from mixreorg.train.checkpoint import CheckpointStore, Progress
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Device, Engine, StepInputs, check_shares
from mixreorg.train.evaluation import evaluate_part, open_evaluation_split, sum_over_processes
from mixreorg.train.meter import Meter
from mixreorg.train.metric_sinks import MetricSink, open_sinks
from mixreorg.train.optim import build_optimizer, learning_rate
from mixreorg.train.planning.flops import flops_per_pair
from mixreorg.train.planning.hardware import available_device, peak_flops
from mixreorg.train.precision import has_bf16
from mixreorg.train.reading import BatchReader, DeadReaderError
from mixreorg.train.run_lock import RunLock
from mixreorg.train.setup import (
    Resume,
    build_objective,
    check_run_folder,
    check_same_data,
    check_same_tokenizer,
    open_nouns,
    open_source,
    resolve,
)
from mixreorg.train.stopping import Stop, StopSignals


@dataclass(frozen=True)
class TrainOutcome:
    """How a call of :func:`train` ended."""

    step: int
    """Finished steps."""
    stopped: Stop | None
    """The signal that ended the run before its last step or the evaluation of it, if one did."""
    metrics: dict[str, float]
    """The newest evaluation, percent, from the checkpoint on that the run was resumed from; empty without one."""


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: Resume = "never",
    device: Device = "auto",
    console: Console | None = None,
    until: int | None = None,
) -> TrainOutcome:
    """Train a model into a run folder.

    Args:
        config: the whole run.
        run: created if missing; a folder that holds a run already needs ``resume="auto"``.
        resume: ``auto`` continues the run in the folder from its newest intact checkpoint, with the very next
            sample, and starts one where there is none.
        device: ``auto`` takes CUDA or MPS where there is one.
        console: where progress goes; standard error by default.
        until: finished steps after which to stop, with schedules as for the whole run; None for its last step.

    Raises:
        MixreorgError: data, configuration or run folder that cannot be used. What was trained before data failed
            is saved.
    """
    lock = RunLock(run)
    try:
        return _Run(config, run, resume, device, console or plain_console(stderr=True), until, lock).loop()
    finally:
        lock.release()


class _Run:
    """One training process's view of a run."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        resume: Resume,
        device: Device,
        console: Console,
        until: int | None,
        lock: RunLock,
    ) -> None:
        device_type = available_device().type if device == "auto" else device
        self.config, tokenizer = resolve(config, bf16=has_bf16(device_type))
        self.last_step = min(self.config.steps, until or self.config.steps)
        self.run = run
        self.console = console
        self.engine = Engine(self.config, device)
        check_shares(self.config)
        self.source = open_source(self.config)
        self.nouns = open_nouns(self.config, tokenizer)
        words = None if self.nouns is None else self.nouns.nouns.fingerprint()
        facts = RunFacts(self.source.fingerprint(), len(self.source), self.engine.device, words)
        self.store = CheckpointStore(run, self.config, facts)
        self.split = open_evaluation_split(self.config)
        torch.manual_seed(self.config.seed)
        self.tokenizer = tokenizer
        model = DualEncoder(self.config.model, tokenizer)
        # The first process decides: on a shared file system the others may see a file later, or one just written.
        resumed = on_first_process(lambda: check_run_folder(self.run, self.config, resume))
        on_first_process(lock.acquire)
        checkpoint = self.store.latest(lambda line: self._say(line, style="yellow")) if resumed else None
        if checkpoint is None:
            self._initialise(model)
        else:
            check_same_tokenizer(checkpoint, tokenizer)
            check_same_data(checkpoint, facts)
        model = model.to(self.engine.device)
        objective = build_objective(model, self.config.objective).to(self.engine.device)
        optimizer = build_optimizer(objective, self.config.optim)
        self.step = self.store.restore(checkpoint, objective, model, optimizer) if checkpoint is not None else 0
        self.engine.prepare(objective, optimizer)
        self.metrics: dict[str, float] = {}
        if checkpoint is not None:
            card = read_card(checkpoint)
            self.engine.restore_scaler(card.scaler)
            self.metrics = {name: math.nan if value is None else value for name, value in card.metrics.items()}
        # Step of the newest checkpoint, and whether it holds an evaluation.
        self.saved = self.step, self._is_evaluated
        self.terms: LossTerms | None = None
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.alarms = Alarms(self.config.alarms, self.config)
        self.problems: Problems = self.source.problems
        self.met: set[Problem] = set()

    def loop(self) -> TrainOutcome:
        """Train to the last step or to a signal, then save. A run that is finished and evaluated is left as it is."""
        if self.step >= self.last_step and not self._owes_evaluation():
            self._say(f"{self.run} is finished: step {self.step} of {self.last_step}")
            self.engine.close()
            return TrainOutcome(self.step, None, self.metrics)
        self.sinks: list[MetricSink] = []
        on_first_process(self._begin)
        self._announce()
        peak = peak_flops(self.engine.device, self.config.precision)
        self.meter = Meter(
            self.step,
            self.last_step,
            self.config.batch_size,
            device=self.engine.device,
            peak_flops=peak.flops * world_size(),
        )
        try:
            with StopSignals() as self.signals:
                self._catch_up()
                stopped, failure = self._train()
                stopped = stopped or self._owes_evaluation()
                self._save()
        finally:
            for sink in self.sinks:
                sink.close()
        self._report_problems()
        if stopped and failure is None:
            done = "interrupted" if self.signals.asked == "interrupt" else "terminated"
            self._say(f"{done} after step {self.step}; continue with: mixreorg train --out {self.run} --resume auto")
        self.engine.close()
        if failure is not None:
            raise failure
        return TrainOutcome(self.step, self.signals.asked if stopped else None, self.metrics)

    def _catch_up(self) -> None:
        """Do the evaluation that an earlier call was stopped in; its checkpoint gets it, and may be the best."""
        if self._owes_evaluation():
            self._evaluate()
            self._save()
            self.meter.exclude_pause()

    def _train(self) -> tuple[bool, MixreorgError | None]:
        """Step until the last step is done, or any process was asked to stop or cannot go on.

        Returns:
            Whether the run ended before its last step, and what this process failed of.
        """
        reader = BatchReader(
            self.source,
            self.tokenizer,
            self.config,
            self.step,
            nouns=self.nouns,
            pin_memory=self.engine.device.type == "cuda",
        )
        try:
            return self._read_and_step(reader)
        finally:
            reader.close()

    def _read_and_step(self, reader: BatchReader) -> tuple[bool, MixreorgError | None]:
        while self.step < self.last_step:
            batch, failure = self._next(reader)
            # Agreed on before the step: all processes then end with the same finished steps.
            stopped, failed = self._agree(failure is not None)
            if batch is None or stopped or failed:
                if stopped and isinstance(failure, DeadReaderError):
                    failure = None  # what ends the group ends its reading processes too
                if failure is None and not stopped:
                    failure = MixreorgError("another process could not go on; its own message says why")
                return True, failure
            self.meter.data_ready()
            self.terms = self._train_step(batch)
            self.step += 1
            self.meter.step_done(self._flops_per_pair(self.text_length))
            self._after_step(self.terms)
        return False, None

    def _agree(self, failed: bool) -> tuple[bool, bool]:
        """Whether any process was asked to stop, which all then know of, and whether any failed; called together."""
        interrupted, terminated, failed = self.engine.any_process(
            [self.signals.asked == "interrupt", self.signals.asked == "terminate", failed]
        )
        if interrupted or terminated:
            self.signals.asked = "terminate" if terminated else "interrupt"
        return interrupted or terminated, failed

    def _next(self, reader: BatchReader) -> tuple[PairBatch | None, MixreorgError | None]:
        try:
            return reader.next(), None
        except MixreorgError as error:
            return None, error

    def _train_step(self, batch: PairBatch) -> LossTerms:
        keys = sample_keys(self.config.seed, batch.sample_ids)
        batch = batch.trimmed(self.config.model.text.end_id).to(self.engine.device)
        self.text_length = batch.token_ids.shape[1]
        images = augment(batch.images, keys, self.config.data.transform)
        inputs = StepInputs(images, batch.token_ids, keys.to(self.engine.device), batch.nouns)
        rate = learning_rate(self.step, self.config.steps, self.config.optim)
        terms = self.engine.step(inputs, self.step, rate)
        self.problems.extend(batch.problems)
        self.met.update(batch.problems)
        return terms

    def _flops_per_pair(self, text_length: int) -> float:
        """The model's operations with captions of so many tokens, as the longest of a batch has."""
        devices = world_size()
        return flops_per_pair(self.config, self.config.batch_size, devices=devices, text_length=text_length).model_train

    def _after_step(self, terms: LossTerms) -> None:
        if self.step % self.config.log_every == 0 or self.step == self.last_step:
            self._log(terms)
        if self._owes_evaluation():
            self._evaluate()
        if self.step % self.config.checkpoint_every == 0 and self.step < self.last_step:
            self._save()
            self.meter.exclude_pause()

    def _log(self, terms: LossTerms) -> None:
        scalars = {"loss": terms.total.detach(), **terms.terms, **terms.diagnostics}
        values = torch.stack([value.float().to(self.engine.device) for value in scalars.values()])
        if world_size() > 1:
            dist.all_reduce(values)
            values /= world_size()
        self._check_finite()
        metrics = {**dict(zip(scalars, values.tolist(), strict=True)), **self.meter.read()}
        for sink in self.sinks:
            sink.write(self.step, {f"train/{name}": value for name, value in metrics.items()})
        for alarm in self.alarms.observe(self.step, metrics) if self.sinks else []:
            self._raise_alarm(alarm)

    def _raise_alarm(self, alarm: Alarm) -> None:
        for sink in self.sinks:
            sink.alarm(self.step, alarm)

    def _check_finite(self) -> None:
        """Stop before anything that is not a number is logged as progress or saved as a checkpoint."""
        if self.terms is None:
            return  # as restored from a checkpoint
        values = self.terms.total.detach(), self.terms.diagnostics["gradient_norm"]
        finite = [bool(value.isfinite()) for value in values]
        # Scaled losses may overflow: such a step is skipped and the scale lowered.
        finite[1] = finite[1] or self.engine.scaler_state is not None
        bad_loss, bad_gradient = self.engine.any_process([not good for good in finite])
        if bad_loss or bad_gradient:
            alarm = self.alarms.not_finite(self.step, "loss" if bad_loss else "gradient")
            self._raise_alarm(alarm)
            newest = f"; the newest checkpoint is that of step {self.saved[0]:,}" if self.saved[0] else ""
            raise MixreorgError(f"{alarm.message}. Nothing of this was saved{newest}")

    @property
    def _is_evaluated(self) -> bool:
        """Whether the newest evaluation is that of the finished steps."""
        return self.metrics.get("step") == self.step

    def _owes_evaluation(self) -> bool:
        """Whether an evaluation is due, as at every interval and after the last step, and has not been done."""
        due = self.step % self.config.evaluation.every == 0 or self.step == self.last_step
        return self.split is not None and self.step > 0 and due and not self._is_evaluated

    def _evaluate(self) -> None:
        """Evaluate the finished steps, unless any process is asked to stop meanwhile."""
        assert self.split is not None
        model = self.engine.snapshot().model
        failure: MixreorgError | None = None
        try:
            result = evaluate_part(model, self.split, self.config, lambda: self.signals.asked is not None)
        except MixreorgError as error:
            result, failure = None, error
        (failed,) = self.engine.any_process([failure is not None])
        if failed:
            self._save()  # before the error: what was trained is not lost with the evaluation
            raise failure or MixreorgError("another process could not evaluate; its own message says why")
        if result is None:
            self._say("evaluation left out: the run was asked to stop; --resume auto begins with it")
        _, given_up = self._agree(result is None)
        if result is not None and not given_up:
            sum_over_processes(result, self.engine.device)
            self.metrics = {"step": float(self.step), **result.metrics()}
            for sink in self.sinks:
                sink.write(self.step, {f"val/{name}": value for name, value in result.metrics().items()})
        self.meter.exclude_pause()

    def _save(self) -> None:
        """Save a checkpoint of the finished steps and their evaluation, unless there is one."""
        if self.saved == (self.step, self._is_evaluated):
            return
        self._check_finite()
        objective, optimizer = self.engine.snapshot(), self.engine.optimizer_snapshot()
        failure: MixreorgError | None = None
        if rank() == 0:
            metrics = self.metrics if self._is_evaluated else {}
            try:
                progress = Progress(self.step, metrics, self.engine.scaler_state)
                self.store.save(objective, objective.model, optimizer, progress)
            except MixreorgError as error:
                failure = error
        (failed,) = self.engine.any_process([failure is not None])
        if failed:
            raise failure or MixreorgError("process 0 could not save a checkpoint; its own message says why")
        self.saved = self.step, self._is_evaluated

    def _initialise(self, model: DualEncoder) -> None:
        """Take the weights that the run starts from."""
        report = initialise(model, self.config.initialise)
        if report is not None:
            self._say(report.summary())

    def _begin(self) -> None:
        """Open the sinks and write the configuration."""
        self.sinks = open_sinks(
            self.run,
            self.step,
            self.last_step,
            self.console,
            wandb_project=self.config.wandb_project,
            config=self.config.to_dict(),
        )
        # Not before all is open that may be refused: what never began leaves no run to continue.
        write_json(self.run / "train_config.json", self.config.to_dict())

    def _announce(self) -> None:
        self._say(
            f"{self.config.recipe}: {self.num_parameters / 1e6:.2f} M parameters, {len(self.source)} pairs, "
            f"{self.config.steps} steps of {self.config.batch_size} on {world_size()} x {self.engine.device.type}"
            + (f", resumed at step {self.step}" if self.step else "")
        )
        optim = self.config.optim
        if optim.warmup_steps >= self.config.steps:
            self._say(
                f"the learning rate rises for {optim.warmup_steps:,} steps and never reaches its {optim.lr:g}; for a "
                f"run this short take --set optim.warmup_steps={self.config.steps // 20}",
                style="yellow",
            )
        if self.problems:
            self._say(self.problems.summary(), style="yellow")

    def _report_problems(self) -> None:
        """Print the unusable samples that any process has met."""
        if world_size() > 1:
            met: list[list[Problem]] = [[] for _ in range(world_size())]
            dist.all_gather_object(met, sorted(self.met))
            self.problems.extend(itertools.chain.from_iterable(met))
        if self.problems:
            self._say(self.problems.summary(), style="yellow")

    def _say(self, text: str, style: str | None = None) -> None:
        # No markup: names of files and samples may hold square brackets.
        if rank() == 0:
            self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

"""The training loop: it knows batches, loss terms, checkpoints and sinks, and nothing of any method."""

import gc
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mixreorg.data.loader import PairBatch, PairDataset, batch_sampler, collate
from mixreorg.data.pairs import PairSource, open_pairs
from mixreorg.data.problems import Problem, Problems
from mixreorg.distributed import rank, world_size
from mixreorg.errors import MixreorgError
from mixreorg.eval.evaluate import BACKGROUND_THRESHOLDS, SplitResult, evaluate_split
from mixreorg.eval.voc_split import VocSplit, open_voc_split
from mixreorg.files import read_json, write_json
from mixreorg.models.dual_encoder import DualEncoder, trim
from mixreorg.objectives.groupvit import GroupViTConfig, GroupViTObjective
from mixreorg.objectives.mixreorg import MixReorgConfig, MixReorgObjective
from mixreorg.objectives.terms import LossTerms
from mixreorg.randomness import sample_keys
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.checkpoint import CheckpointStore, Progress
from mixreorg.train.config import Objective, TrainConfig
from mixreorg.train.meter import Meter
from mixreorg.train.metric_sinks import ConsoleSink, JsonlSink, MetricSink, TensorBoardSink
from mixreorg.train.optim import build_optimizer, learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class TrainOutcome:
    """How a call of :func:`train` ended."""

    step: int
    """Finished steps."""
    interrupted: bool
    metrics: dict[str, float]
    """The newest evaluation, percent."""


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    console: Console | None = None,
) -> TrainOutcome:
    """Train a model into a run folder.

    Args:
        config: the whole run.
        run: created if missing; a folder that holds a run already needs ``resume``.
        resume: continue from the newest checkpoint, with the very next sample.
        device: ``auto`` takes CUDA or MPS where there is one.
        console: where progress goes; standard error by default.

    Raises:
        MixreorgError: data, configuration or run folder that cannot be used.
    """
    return _Run(config, run, resume, device, console or Console(stderr=True)).loop()


def resolve(config: TrainConfig) -> tuple[TrainConfig, Tokenizer]:
    """Load the tokenizer and let it set what it decides: vocabulary, context length, end-of-text id."""
    name = config.data.tokenizer
    tokenizer = Tokenizer.clip() if name == "clip" else Tokenizer.from_file(Path(name))
    text = config.model.text.updated(
        vocab_size=tokenizer.vocab_size, context_length=tokenizer.context_length, end_id=tokenizer.end_id
    )
    return config.updated(model=config.model.updated(text=text)), tokenizer


def build_objective(model: DualEncoder, config: Objective) -> GroupViTObjective | MixReorgObjective:
    """The objective that a configuration stands for."""
    match config:
        case GroupViTConfig():
            return GroupViTObjective(model, config)
        case MixReorgConfig():
            return MixReorgObjective(model, config)


class _Run:
    """One training process's view of a run."""

    def __init__(self, config: TrainConfig, run: Path, resume: bool, device: Device, console: Console) -> None:
        self.config, tokenizer = resolve(config)
        self.run = run
        self.console = console
        self.store = CheckpointStore(run, self.config)
        self.accelerator = _accelerator(self.config, device)
        _check_shares(self.config)
        self.source: PairSource = open_pairs(self.config.data.train)
        self.split: VocSplit | None = None
        if self.config.evaluation.root is not None:
            evaluation = self.config.evaluation
            self.split = open_voc_split(Path(str(evaluation.root)), evaluation.split, evaluation.max_images)
        self._claim_folder(resume)
        torch.manual_seed(self.config.seed)
        self.model = DualEncoder(self.config.model, tokenizer).to(self.accelerator.device)
        self.objective = build_objective(self.model, self.config.objective).to(self.accelerator.device)
        self.optimizer = build_optimizer(self.objective, self.config.optim)
        self.step = 0
        checkpoint = self.store.latest() if resume else None
        if checkpoint is not None:
            self.step = self.store.restore(checkpoint, self.objective, self.model, self.optimizer)
        self.wrapped: nn.Module = self.accelerator.prepare_model(self.objective)
        self.metrics: dict[str, float] = {}
        self.problems: Problems = self.source.problems
        self.met: set[Problem] = set()
        self.interrupted = False

    def loop(self) -> TrainOutcome:
        """Train to the last step or to an interrupt, then save. A finished run is left as it is."""
        if self.step >= self.config.steps:
            self.console.print(f"{self.run} is finished: step {self.step} of {self.config.steps}", highlight=False)
            self._leave()
            return TrainOutcome(self.step, False, self.metrics)
        sinks = self._sinks()
        self._announce()
        meter = Meter(self.step, self.config.steps, self.config.batch_size)
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            for batch in self._batches():
                terms = self._train_step(batch, meter)
                self.step += 1
                self._after_step(terms, meter, sinks)
                if self._must_stop():
                    break
            if self.step == self.config.steps and self.metrics.get("step") != self.step:
                self._evaluate(sinks, meter)
            self._save()
            self._report_problems()
        finally:
            signal.signal(signal.SIGINT, previous)
            for sink in sinks:
                sink.close()
        self._leave()
        return TrainOutcome(self.step, self.interrupted, self.metrics)

    def _train_step(self, batch: PairBatch, meter: Meter) -> LossTerms:
        meter.data_ready()
        rate = learning_rate(self.step, self.config.steps, self.config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        token_ids = trim(batch.token_ids, self.config.model.text.end_id).to(self.accelerator.device)
        batch = batch.to(self.accelerator.device)
        keys = sample_keys(self.config.seed, batch.sample_ids)
        self.objective.train()
        with self.accelerator.autocast():
            terms: LossTerms = self.wrapped(batch.images, token_ids, keys, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(terms.total)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        terms.diagnostics["gradient_norm"] = torch.as_tensor(norm).detach()
        terms.diagnostics["learning_rate"] = torch.tensor(rate)
        self.problems.extend(batch.problems)
        self.met.update(batch.problems)
        meter.step_done()
        return terms

    def _after_step(self, terms: LossTerms, meter: Meter, sinks: list[MetricSink]) -> None:
        if self.step % self.config.log_every == 0 or self.step == self.config.steps:
            self._log(terms, meter, sinks)
        if self.step % self.config.evaluation.every == 0:
            self._evaluate(sinks, meter)
        if self.step % self.config.checkpoint_every == 0 and self.step < self.config.steps:
            self._check_finite(terms)
            self._save()
            meter.exclude_pause()

    def _log(self, terms: LossTerms, meter: Meter, sinks: list[MetricSink]) -> None:
        scalars = {"loss": terms.total.detach(), **terms.terms, **terms.diagnostics}
        values = torch.stack([value.float().to(self.accelerator.device) for value in scalars.values()])
        if world_size() > 1:
            dist.all_reduce(values)
            values /= world_size()
        self._check_finite(terms)
        metrics = dict(zip(scalars, values.tolist(), strict=True))
        record = {f"train/{name}": value for name, value in {**metrics, **meter.read()}.items()}
        for sink in sinks:
            sink.write(self.step, record)

    def _check_finite(self, terms: LossTerms) -> None:
        """Stop before anything that is not a number is logged as progress or saved as a checkpoint."""
        bad = torch.stack([~value.isfinite() for value in (terms.total.detach(), terms.diagnostics["gradient_norm"])])
        flags = bad.float().to(self.accelerator.device)
        if world_size() > 1:
            dist.all_reduce(flags)
        if flags.any():
            what = "loss" if flags[0] else "gradient"
            raise MixreorgError(
                f"the {what} is not a finite number at step {self.step}; resume from the last checkpoint with a lower "
                "optim.lr, a longer optim.warmup_steps or precision=fp32"
            )

    def _evaluate(self, sinks: list[MetricSink], meter: Meter) -> None:
        if self.split is None:
            return
        # Evaluation counts with several thresholds by itself.
        protocol = self.config.protocol.updated(background_threshold=None)
        segmenter = Segmenter(self.model, protocol, window_batch=64)
        part = (rank(), world_size())
        result = evaluate_split(segmenter, self.split, BACKGROUND_THRESHOLDS, part=part)
        _sum_over_processes(result, self.accelerator.device)
        self.metrics = {"step": float(self.step), **result.metrics()}
        meter.exclude_pause()
        for sink in sinks:
            sink.write(self.step, {f"val/{name}": value for name, value in result.metrics().items()})

    def _save(self) -> None:
        if rank() == 0:
            metrics = self.metrics if self.metrics.get("step") == self.step else {}
            self.store.save(self.objective, self.model, self.optimizer, Progress(self.step, metrics))
        self.accelerator.wait_for_everyone()

    def _batches(self) -> Iterator[PairBatch]:
        assert self.model.tokenizer is not None
        dataset = PairDataset(self.source, self.model.tokenizer, self.config.data.transform, self.config.seed)
        order = batch_sampler(
            seed=self.config.seed,
            length=len(self.source),
            batch_size=self.config.batch_size,
            start_step=self.step,
            num_steps=self.config.steps - self.step,
            rank=rank(),
            world=world_size(),
        )
        workers = self.config.data.num_workers
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_ignore_interrupts,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        yield from loader

    def _must_stop(self) -> bool:
        """Whether any process was interrupted: all stop after the same step."""
        if world_size() > 1:
            flag = torch.tensor(float(self.interrupted), device=self.accelerator.device)
            dist.all_reduce(flag)
            self.interrupted = bool(flag > 0)
        return self.interrupted

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def _claim_folder(self, resume: bool) -> None:
        path = self.run / "train_config.json"
        exists = path.is_file()
        if exists and not resume:
            raise MixreorgError(f"{self.run} holds a run already; continue it with --resume, or choose another --out")
        if resume and not exists:
            raise MixreorgError(f"{self.run} holds no run to resume; start one without --resume")
        saved = read_json(path) if exists else None
        if saved is not None:
            _check_same_run(saved, self.config)
        # Nobody writes before everybody has looked.
        self.accelerator.wait_for_everyone()
        if saved != self.config.to_dict() and rank() == 0:
            write_json(path, self.config.to_dict())

    def _sinks(self) -> list[MetricSink]:
        if rank() != 0:
            return []
        return [
            JsonlSink(self.run / "log.jsonl", self.step),
            TensorBoardSink(self.run / "tensorboard", self.step),
            ConsoleSink(self.console, self.config.steps),
        ]

    def _announce(self) -> None:
        if rank() != 0:
            return
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.console.print(
            f"{self.config.recipe}: {parameters / 1e6:.2f} M parameters, {len(self.source)} pairs, "
            f"{self.config.steps} steps of {self.config.batch_size} on {world_size()} x {self.accelerator.device.type}"
            + (f", resumed at step {self.step}" if self.step else ""),
            highlight=False,
        )
        if self.problems:
            self.console.print(self.problems.summary(), style="yellow", highlight=False)

    def _leave(self) -> None:
        """End the process group while the interpreter still lives.

        Its threads abort the process when they outlive the interpreter, and they live as long as anything, such as
        the wrapped model, refers to the group.
        """
        self.accelerator.wait_for_everyone()
        self.wrapped = self.objective
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()

    def _report_problems(self) -> None:
        """Print the unusable samples that any process has met."""
        if world_size() > 1:
            met: list[list[Problem]] = [[] for _ in range(world_size())]
            dist.all_gather_object(met, sorted(self.met))
            self.problems.extend(itertools.chain.from_iterable(met))
        if rank() == 0 and self.problems:
            self.console.print(self.problems.summary(), style="yellow", highlight=False)


def _check_shares(config: TrainConfig) -> None:
    """Every process must get the same number of images, and no mixing group may lie across two processes."""
    share, rest = divmod(config.batch_size, world_size())
    if rest:
        raise MixreorgError(
            f"batch_size {config.batch_size} does not divide among {world_size()} processes; "
            "choose a multiple with --set batch_size=..."
        )
    objective = config.objective
    if world_size() > 1 and isinstance(objective, MixReorgConfig) and share % objective.group_size:
        raise MixreorgError(
            f"each of {world_size()} processes gets {share} images, which groups of {objective.group_size} do not "
            "divide; choose batch_size a multiple of processes x objective.group_size"
        )


def _ignore_interrupts(worker: int) -> None:
    """Reading processes leave Ctrl-C to the training process, which still needs its next batch to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _accelerator(config: TrainConfig, device: Device) -> "Accelerator":
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if device == "cuda" and not torch.cuda.is_available():
        raise MixreorgError("--device cuda: this machine has no usable CUDA device; take --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise MixreorgError("--device mps: this machine has no usable MPS device; take --device cpu")
    learned = isinstance(config.objective, MixReorgConfig) and config.objective.combine in (
        "gate",
        "cross_attention",
    )
    # Every process computes the same BatchNorm statistics, so buffers need no broadcast. Parameters of a learned
    # combination have no gradient while the mixed terms are still off.
    options = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=learned)
    if not dist.is_initialized():
        # Accelerate keeps device and precision for the whole interpreter; an earlier run's may be others.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        kwargs_handlers=[options],
    )


def _sum_over_processes(result: SplitResult, device: torch.device) -> None:
    if world_size() > 1:
        counts = torch.from_numpy(result.counts()).to(device)
        dist.all_reduce(counts)
        result.set_counts(counts.cpu().numpy().astype(np.int64))


def _check_same_run(saved: dict[str, Any], config: TrainConfig) -> None:
    """Resuming with another configuration would make a run that no single configuration describes."""
    current = config.to_dict()
    changed = [name for name in current if name != "steps" and current[name] != saved.get(name)]
    if changed:
        raise MixreorgError(
            f"the run was started with other values of {', '.join(changed)}; resume it with its own "
            "train_config.json (--config), or start a new run folder"
        )

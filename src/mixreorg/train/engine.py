"""The engine of a step: devices, processes, precision, sharding, memory. A thin layer over ``accelerate``.

The engine knows an objective's two halves (features of images, loss of a batch) and nothing of what they compute.
"""

import copy
import gc
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mixreorg.distributed import world_size
from mixreorg.errors import MixreorgError
from mixreorg.models.layers import TransformerBlock
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.objective import Features, Objective
from mixreorg.objectives.terms import LossTerms
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.train.config import TrainConfig
from mixreorg.train.optim import build_optimizer

if TYPE_CHECKING:
    from accelerate import Accelerator

Device = Literal["auto", "cpu", "cuda", "mps"]
T = TypeVar("T")

_BUCKET_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class StepInputs:
    """This process's share of a batch, or a chunk of it, on the training device."""

    images: Tensor
    """``[B, 3, H, W]`` normalised."""
    token_ids: Tensor
    """``[B, L]`` int64."""
    keys: Tensor
    """``[B]`` int64."""
    nouns: NounPrompts | None = None
    """``T`` prompts per caption, where the objective makes a loss of them."""

    def chunks(self, size: int) -> list["StepInputs"]:
        """Consecutive parts of ``size`` images, the last one perhaps smaller."""
        parts = zip(*(torch.split(tensor, size) for tensor in (self.images, self.token_ids, self.keys)), strict=True)
        chunks = [StepInputs(*part) for part in parts]
        if self.nouns is None:
            return chunks
        return [replace(chunk, nouns=nouns) for chunk, nouns in zip(chunks, self.nouns.split(size), strict=True)]


class _Wrapped(nn.Module):
    """What is wrapped for parallel training: runs any part of the objective inside the wrapper's forward."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, run: Callable[[Objective], T]) -> T:
        return run(self.objective)


class Engine:
    """Runs forward, backward and optimizer steps of one objective on any number of processes."""

    def __init__(self, config: TrainConfig, device: Device = "auto") -> None:
        """Start the process group, if the launcher asks for one, and choose the device.

        Raises:
            MixreorgError: a device or precision that this machine does not have.
        """
        self.config = config
        self.accelerator = _accelerator(config, device)
        self.device: torch.device = self.accelerator.device
        self.is_sharded = bool(self.accelerator.is_fsdp2)
        """Whether parameters are spread over the processes (FSDP2)."""

    def prepare(self, objective: Objective, optimizer: torch.optim.Optimizer) -> None:
        """Wrap what is trained; both hold all restored state already.

        Args:
            objective: on the training device.
            optimizer: over the objective's parameters.
        """
        self.objective, self.optimizer = objective, optimizer
        options = self.config.engine
        if options.channels_last:
            objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._unsharded = copy.deepcopy(objective) if self.is_sharded else objective
        moments = {name: optimizer.state.get(value, {}) for name, value in objective.named_parameters()}
        for module in objective.modules():
            if isinstance(module, TransformerBlock):
                module.recompute = options.activation_checkpointing
                if options.compile:
                    module.compile()
        with warnings.catch_warnings():
            # Accelerate knows only the older name of the option that keeps buffers out of the traffic.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            self._wrapped, self._stepper = self.accelerator.prepare(_Wrapped(objective), optimizer)
        if self.is_sharded:
            _shard_moments(objective, optimizer, moments)

    def step(self, inputs: StepInputs, step: int, learning_rate: float) -> LossTerms:
        """One optimizer step.

        Args:
            inputs: this process's share of the batch.
            step: number of finished steps.
            learning_rate: of this step.

        Returns:
            Losses of this process's rows; ``gradient_norm`` (before clipping) and ``learning_rate`` are added to
            the diagnostics.
        """
        self.objective.train()
        if self.config.engine.channels_last:
            images = inputs.images.contiguous(memory_format=torch.channels_last)
            inputs = replace(inputs, images=images)
        self._stepper.zero_grad(set_to_none=True)
        chunk = self.config.engine.chunk
        if chunk is None or chunk >= len(inputs.keys):
            terms = self._whole(inputs, step)
        else:
            terms = self._cached(inputs.chunks(chunk), step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self.accelerator.clip_grad_norm_(self._wrapped.parameters(), self.config.optim.clip_norm)
        self._stepper.step()
        terms.diagnostics["gradient_norm"] = torch.as_tensor(_full(norm)).detach()
        terms.diagnostics["learning_rate"] = torch.tensor(learning_rate)
        return terms

    def _run(self, function: Callable[[Objective], T]) -> T:
        with self.accelerator.autocast():
            result: T = self._wrapped(function)
        return result

    def _whole(self, inputs: StepInputs, step: int) -> LossTerms:
        def forward(objective: Objective) -> tuple[Tensor, LossTerms]:
            return _with_total(objective(inputs.images, inputs.token_ids, inputs.keys, step, inputs.nouns))

        total, terms = self._run(forward)
        self.accelerator.backward(total)
        return terms

    def _cached(self, chunks: Sequence[StepInputs], step: int) -> LossTerms:
        """The same gradient with the memory of one chunk (gradient cache, Gao et al., 2021, arXiv 2101.06983).

        First every chunk's features without a graph; then the loss of the whole batch and its gradient by the
        features; then every chunk once more, with a graph that this gradient is sent back through. The second pass
        meets the same keyed noise as the first. All that joins the batch, BatchNorm included, runs once, over the
        whole batch.
        """

        def encode(chunk: StepInputs) -> Features:
            return self._run(
                lambda objective: objective.features(chunk.images, chunk.token_ids, chunk.keys, step, chunk.nouns)
            )

        with torch.no_grad():
            parts = [encode(chunk) for chunk in chunks]
        leaves = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        for leaf in leaves.values():
            leaf.requires_grad_(leaf.is_floating_point())
        # Gradients are averaged once, at the end; a sharded model has none but averaged ones.
        with nullcontext() if self.is_sharded else self.accelerator.no_sync(self._wrapped):
            total, terms = self._run(lambda objective: _with_total(objective.loss(leaves, step)))
            self.accelerator.backward(total)
            starts = dict.fromkeys(leaves, 0)
            for chunk in chunks:
                features = encode(chunk)
                rows = {name: slice(starts[name], starts[name] + len(value)) for name, value in features.items()}
                starts = {name: part.stop for name, part in rows.items()}
                pairs = [
                    (features[name], gradient[rows[name]])
                    for name, leaf in leaves.items()
                    if (gradient := leaf.grad) is not None and features[name].requires_grad
                ]
                torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
        if not self.is_sharded:
            _average_gradients(self.objective)
        return terms

    def snapshot(self) -> Objective:
        """The objective with whole parameters; every process must call this together.

        Where parameters are sharded, a whole copy is brought up to date; otherwise it is the objective itself.
        """
        if self.is_sharded:
            state = {name: _full(tensor) for name, tensor in self.objective.state_dict().items()}
            self._unsharded.load_state_dict(state)
        return self._unsharded

    def optimizer_snapshot(self) -> torch.optim.Optimizer:
        """The optimizer with whole moments over the parameters of :meth:`snapshot`; called together like it."""
        if not self.is_sharded:
            return self.optimizer
        whole = build_optimizer(self._unsharded, self.config.optim)
        parameters = dict(self._unsharded.named_parameters())
        for name, parameter in self.objective.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            if state:
                whole.state[parameters[name]] = {key: _full(value) for key, value in state.items()}
        return whole

    def any_process(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag whether it is set on any process; every process must call this together."""
        if world_size() == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(values)
        return [value > 0 for value in values.tolist()]

    @property
    def scaler_state(self) -> dict[str, Any] | None:
        """State of the loss scaling that fp16 needs; None in other precisions."""
        scaler = self.accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())

    def restore_scaler(self, state: dict[str, Any] | None) -> None:
        """Go on with a saved loss scale."""
        if self.accelerator.scaler is not None and state:
            self.accelerator.scaler.load_state_dict(state)

    def wait(self) -> None:
        """Return when every process has come here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """End the process group while the interpreter still lives.

        Its threads abort the process when they outlive the interpreter, and they live as long as anything, such as
        the wrapped model, refers to the group.
        """
        self.wait()
        del self._wrapped, self._stepper
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()


def check_shares(config: TrainConfig) -> None:
    """Every process must get the same number of images, and no mixing group may lie across two processes.

    Raises:
        MixreorgError: naming the values that would do.
    """
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


def _accelerator(config: TrainConfig, device: Device) -> "Accelerator":
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if device == "cuda" and not torch.cuda.is_available():
        raise MixreorgError("--device cuda: this machine has no usable CUDA device; take --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise MixreorgError("--device mps: this machine has no usable MPS device; take --device cpu")
    if config.precision == "fp16" and (device in ("cpu", "mps") or not torch.cuda.is_available()):
        raise MixreorgError("precision fp16 needs a CUDA device; take --set precision=bf16 or fp32")
    _check_launch()
    # Every process computes the same BatchNorm statistics, so buffers need no broadcast.
    options = DistributedDataParallelKwargs(
        broadcast_buffers=False, find_unused_parameters=_may_rest(config), gradient_as_bucket_view=True
    )
    has_accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    if not dist.is_initialized():
        # Accelerate keeps device and precision for the whole interpreter; an earlier run's may be others.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        # Told that it is the CPU, accelerate parallelises there; left to find out, it would train each process alone.
        cpu=device == "cpu" or not has_accelerator,
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        kwargs_handlers=[options],
    )
    # Not before accelerate, which writes there what MPI's launchers say by other names.
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes or accelerator.use_distributed != (launched > 1):
        raise MixreorgError(
            f"{launched} processes were launched, but on {accelerator.device.type} they cannot train together; "
            "launch one, or take --device cpu or cuda"
        )
    return accelerator


def _check_launch() -> None:
    """Refuse what a launcher of another program left in the environment."""
    text = os.environ.get("WORLD_SIZE", "1")
    ranks = {"RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"}  # as accelerate reads them
    missing = [] if ranks & os.environ.keys() else ["RANK"]
    missing += [] if "MASTER_ADDR" in os.environ else ["MASTER_ADDR"]
    if not text.isdecimal() or (int(text) > 1 and missing):
        lacking = f" and has no {' and '.join(missing)}" if missing else ""
        raise MixreorgError(
            f"the environment says WORLD_SIZE={text}{lacking}, as no launcher leaves it; unset WORLD_SIZE to train "
            "with one process, or start several with torchrun"
        )


def _may_rest(config: TrainConfig) -> bool:
    """Whether some parameters have no gradient while their losses are still off."""
    objective = config.objective
    learned = isinstance(objective, MixReorgConfig) and objective.combine in ("gate", "cross_attention")
    nouns = objective.multi_label
    return learned or (nouns.is_on and nouns.weight.at(0) == 0)


def _with_total(terms: LossTerms) -> tuple[Tensor, LossTerms]:
    """The total beside the terms: sharded training looks for tensors to differentiate in plain containers alone."""
    return terms.total, terms


def _average_gradients(module: nn.Module) -> None:
    """Average gradients over processes, in buckets that keep both latency and memory small."""
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for parameter in module.parameters():
        if parameter.grad is not None:
            bucket.append(parameter.grad)
            size += parameter.grad.numel()
        if size > _BUCKET_ELEMENTS:
            _average(bucket)
            bucket, size = [], 0
    if bucket:
        _average(bucket)


def _average(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, part in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _full(tensor: Any) -> Any:
    """A whole tensor out of a sharded one; anything else as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _shard_moments(
    objective: nn.Module, optimizer: torch.optim.Optimizer, moments: dict[str, dict[str, Tensor]]
) -> None:
    """Spread restored AdamW moments as the parameters are spread."""
    optimizer.state.clear()
    for name, parameter in objective.named_parameters():
        state = moments[name]
        if state and isinstance(parameter, DTensor):
            optimizer.state[parameter] = {
                key: value if key == "step" else distribute_tensor(value, parameter.device_mesh, parameter.placements)
                for key, value in state.items()
            }

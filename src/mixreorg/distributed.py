"""Process-group facts and a gather through which gradients flow.

Convention for gradients: every process computes the loss of its own rows against the columns of the whole global
batch, and the training engine averages parameter gradients over processes. The average is then the gradient of
the global-batch loss, whatever the number of processes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mixreorg.errors import MixreorgError

T = TypeVar("T")


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def on_first_process(function: Callable[[], T]) -> T:
    """Call a function on the first process alone; every process gets its result or its ``MixreorgError``.

    Args:
        function: its result must be picklable.
    """
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [function()]
        except MixreorgError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome)
    if isinstance(outcome[0], MixreorgError):
        raise outcome[0]
    result: T = outcome[0]
    return result


def gather(rows: Tensor) -> Tensor:
    """Concatenate every process's rows in rank order, with gradients to all of them.

    Args:
        rows: ``[B, ...]``, the same shape on every process.

    Returns:
        ``[world * B, ...]``.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def gather_together(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """:func:`gather` several tensors in one message: what counts between processes is how often they wait.

    Args:
        tensors: ``[B, D]`` each, D their own.
        names: those to gather.

    Returns:
        ``[world * B, D]`` by name.
    """
    if world_size() == 1:
        return {name: tensors[name] for name in names}
    widths = [tensors[name].shape[1] for name in names]
    gathered = gather(torch.cat([tensors[name] for name in names], dim=1))
    return dict(zip(names, torch.split(gathered, widths, dim=1), strict=True))


def mean_over_processes(number: Tensor) -> Tensor:
    """Mean of a number over all processes, without gradient.

    A process that divides its sum by the mean count, and not by its own, gives the mean over the global batch, however
    the counted rows are spread.
    """
    mean = number.detach().float().clone()
    if world_size() > 1:
        dist.all_reduce(mean)
    return mean / world_size()


def local_rows(num_local: int) -> slice:
    """Where this process's rows stand in a gathered tensor."""
    return slice(rank() * num_local, (rank() + 1) * num_local)


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums, over all processes, the gradient of this process's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_local = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: others may still read the incoming one.
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[local_rows(ctx.num_local)]

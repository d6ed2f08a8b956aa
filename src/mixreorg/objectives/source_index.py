"""Which image each patch of a mixed image comes from, and the way back (MixReorg, Fig. 3)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixreorg.models.layers import block_index
from mixreorg.randomness import keyed_uniform


@dataclass(frozen=True)
class SourceIndex:
    """A lossless mix of a batch: at every grid position, a permutation of the images of each group.

    Groups are K consecutive images. When K does not divide the batch, the images that remain form a last, smaller
    group; a group of one image stays as it is.
    """

    source: Tensor
    """``[M, N]`` int64, image in the batch that patch n of mixed image m came from; M = B."""
    inverse: Tensor
    """``[B, N]`` int64, mixed image that patch n of image b went to."""
    group_size: int
    """K."""

    @property
    def group_targets(self) -> Tensor:
        """``[M, N]`` int64: position of each patch's source within its group, ``0 .. K - 1``."""
        return self.source % self.group_size

    def mix(self, patches: Tensor) -> Tensor:
        """``X_mix[m, n] = X[source[m, n], n]`` for patches ``[B, N, D]``."""
        mixed: Tensor = _PermutePatches.apply(patches, self.source, self.inverse)  # type: ignore[no-untyped-call]
        return mixed

    def restore(self, mixed: Tensor) -> Tensor:
        """``X_res[source[m, n], n] = X_mix[m, n]`` for mixed patches ``[M, N, D]``: undoes :meth:`mix` exactly."""
        restored: Tensor = _PermutePatches.apply(mixed, self.inverse, self.source)  # type: ignore[no-untyped-call]
        return restored


def group_candidates(batch: int, group_size: int, device: torch.device) -> Tensor:
    """``[M, K]`` int64: images of each mixed image's group; a smaller last group repeats its last image."""
    start = torch.arange(batch, device=device) // group_size * group_size
    offsets = torch.arange(group_size, device=device)
    return (start[:, None] + offsets[None, :]).clamp(max=batch - 1)


def draw_source_index(keys: Tensor, grid: tuple[int, int], group_size: int, block: int) -> SourceIndex:
    """Draw a mix.

    Args:
        keys: ``[B]`` int64 keys of the samples; a group's draw depends on its first sample's key alone.
        grid: patch grid (h, w).
        group_size: K, images mixed together.
        block: side b of the mixing unit in patches; all patches of a unit come from the same image. Units at the
            right and lower border of a grid that b does not divide are smaller.

    Returns:
        The source index of all ``M = B`` mixed images.
    """
    batch = len(keys)
    unit_of_patch = block_index(grid, block, keys.device)
    num_units = int(unit_of_patch[-1]) + 1
    starts = torch.arange(0, batch, group_size, device=keys.device)
    scores = keyed_uniform(keys[starts], "source_index", (group_size, num_units))
    # Places that a smaller last group does not have sort last, so the permutation stays among its own images.
    place = torch.arange(group_size, device=keys.device)
    missing = starts[:, None] + place[None, :] >= batch
    scores = scores.masked_fill(missing[:, :, None], 2.0)
    order = scores.argsort(dim=1, stable=True) + starts[:, None, None]
    # [groups, K, units] -> [groups * K, units] -> [B, N]
    source = order.flatten(0, 1)[:batch][:, unit_of_patch]
    inverse = source.argsort(dim=0, stable=True)
    return SourceIndex(source, inverse, group_size)


class _PermutePatches(torch.autograd.Function):
    """Gather along the batch by a permutation; the gradient is the gather by its inverse, hence deterministic."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return _gather_rows(patches, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return _gather_rows(gradients[0], inverse), None, None


def _gather_rows(patches: Tensor, index: Tensor) -> Tensor:
    batch, count, width = patches.shape
    flat = index * count + torch.arange(count, device=index.device)
    return patches.reshape(batch * count, width).index_select(0, flat.flatten()).view(batch, count, width)

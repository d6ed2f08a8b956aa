"""Transformer layers shared by the image and the text encoder."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixreorg.randomness import keyed_uniform, name_key

Activation = Literal["gelu", "quick_gelu"]


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU, ``x * sigmoid(1.702 x)``."""
    return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers over the channel axis, ``[..., D] -> [..., D_out]``."""

    def __init__(self, width: int, hidden: int, out: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)
        self.activation = F.gelu if activation == "gelu" else quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers; shape ``[..., D] -> [..., D_out]``."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class TokenMlp(Mlp):
    """The same two layers over the *token* axis, ``[B, T_in, D] -> [B, T_out, D]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens; every channel goes through the same layers."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    is_training: bool = False,
) -> Tensor:
    """Scaled dot-product attention, fused where that is faster.

    The fused kernel of torch wins everywhere but in bfloat16 training on a CPU, where plain products are several
    times faster (``benchmarks/attention.py``).

    Args:
        query: ``[B, heads, T, D / heads]``.
        key: ``[B, heads, T_c, D / heads]``.
        value: ``[B, heads, T_c, D / heads]``.
        mask: optional ``[T, T_c]`` bool, true where a query may see a key.
        is_causal: tokens see only themselves and earlier ones; excludes ``mask``.
        is_training: of the module, whether or not this pass has a graph: a gradient cache computes everything without
            one first, and must find the same.

    Returns:
        ``[B, heads, T, D / heads]``.
    """
    if not (query.device.type == "cpu" and query.dtype == torch.bfloat16 and is_training):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)
    if is_causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    attended: Tensor = weights.softmax(dim=-1) @ value
    return attended


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend.

        Args:
            x: ``[B, T, D]``.
            mask: optional ``[T, T]`` bool, true where a query (row) may see a key (column).
            is_causal: tokens see only themselves and earlier ones; excludes ``mask``.

        Returns:
            ``[B, T, D]``.
        """
        batch, tokens, width = x.shape
        # [B, T, 3D] -> 3 x [B, heads, T, D / heads]
        query, key, value = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value, mask, is_causal, is_training=self.training)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
        return out


class CrossAttention(nn.Module):
    """Multi-head attention of queries to other tokens, with separate projections."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """Attend from ``query`` ``[B, T, D]`` to ``context`` ``[B, T_c, D]``; returns ``[B, T, D]``."""
        attended = attend(
            self._heads(self.q_proj(query)),
            self._heads(self.k_proj(context)),
            self._heads(self.v_proj(context)),
            is_training=self.training,
        )
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(query.shape))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.view(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)
        return heads


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a sample's residual branch with probability ``rate``."""

    def __init__(self, rate: float, name: str) -> None:
        super().__init__()
        self.is_active = rate > 0
        # Tensors instead of numbers, so that the compiled code of one block serves all of them.
        self.rate: Tensor
        self.name: Tensor
        self.register_buffer("rate", torch.tensor(rate), persistent=False)
        self.register_buffer("name", name_key(name), persistent=False)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Drop per sample, decided by ``keys`` ``[B]`` (see :mod:`mixreorg.randomness`); no keys, no dropping."""
        if not self.training or not self.is_active or keys is None:
            return x
        keep = (keyed_uniform(keys, self.name, (1, 1)) >= self.rate).to(x.dtype)
        return x * (keep / (1 - self.rate))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with optional stochastic depth."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        activation: Activation = "gelu",
        drop_path: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.drop_path1 = DropPath(drop_path, f"{name}.attention")
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width, activation)
        self.drop_path2 = DropPath(drop_path, f"{name}.mlp")
        self.recompute = False

    def forward(
        self, x: Tensor, *, keys: Tensor | None = None, mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Shape ``[B, T, D] -> [B, T, D]``; arguments as in :class:`SelfAttention` and :class:`DropPath`.

        With ``recompute`` set, training keeps the block's input alone and computes the rest again in the backward
        pass (activation checkpointing). Keyed noise comes out the same, so no generator state need be kept.
        """
        if self.recompute and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                self._transform, x, keys, mask, is_causal, use_reentrant=False, preserve_rng_state=False
            )
            return out
        return self._transform(x, keys, mask, is_causal)

    def _transform(self, x: Tensor, keys: Tensor | None, mask: Tensor | None, is_causal: bool) -> Tensor:
        x = x + self.drop_path1(self.attention(self.norm1(x), mask, is_causal), keys)
        x = x + self.drop_path2(self.mlp(self.norm2(x)), keys)
        return x


def window_mask(grid: tuple[int, int], window: int, device: torch.device) -> Tensor:
    """``[N, N]`` bool mask that lets patches see only their own ``window x window`` block of the grid.

    Blocks are counted from the top left corner; those at the right and lower border may be smaller.
    """
    index = block_index(grid, window, device)
    return index[:, None] == index[None, :]


def block_index(grid: tuple[int, int], size: int, device: torch.device) -> Tensor:
    """Number of the ``size x size`` block that each patch belongs to; ``[N]`` int64, row-major."""
    height, width = grid
    rows = torch.arange(height, device=device) // size
    columns = torch.arange(width, device=device) // size
    # Not -(-width // size): ONNX's division of a traced width rounds towards zero, not down.
    return (rows[:, None] * ((width + size - 1) // size) + columns[None, :]).flatten()

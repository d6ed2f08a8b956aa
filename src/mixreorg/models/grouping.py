"""Grouping blocks: share out tokens among segments (GroupViT, section 3.1)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixreorg.models.layers import CrossAttention, Mlp, TokenMlp
from mixreorg.randomness import keyed_uniform

# The denominator of the segment mean is (sum of assignments + 1), so that an empty segment divides by one.
ASSIGNMENT_EPSILON = 1.0


@dataclass(frozen=True)
class Assignment:
    """Which segment each token of a grouping block's input went to."""

    soft: Tensor
    """``[B, S, T]`` softmax over the segments, without noise."""

    @property
    def hard(self) -> Tensor:
        """``[B, S, T]`` one-hot over the segments: the arg max of :attr:`soft`."""
        return one_hot_argmax(self.soft)


@dataclass(frozen=True)
class GroupingOptions:
    """The published grouping, and what small models need instead (fields of ``ImageEncoderConfig``)."""

    assignment: Literal["hard", "soft"]
    temperature: float
    logits: Literal["dot", "cosine"]
    centre_keys: bool
    pre_assign_attention: bool


def one_hot_argmax(x: Tensor) -> Tensor:
    """One-hot of the arg max over dimension 1, in the dtype of ``x``."""
    return torch.zeros_like(x).scatter_(1, x.argmax(dim=1, keepdim=True), 1.0)


def straight_through(soft: Tensor) -> Tensor:
    """One-hot in the forward pass, the gradient of ``soft`` in the backward pass."""
    return one_hot_argmax(soft) - soft.detach() + soft


def gumbel_noise(keys: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard Gumbel noise ``[B, *shape]``, a pure function of each sample's key."""
    return -torch.log(-torch.log(keyed_uniform(keys, name, shape)))


class PreAssignAttention(nn.Module):
    """Post-norm cross-attention in which the segment queries look at the tokens before they claim them."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.norm_post = nn.LayerNorm(width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """``[B, S, D]`` queries and ``[B, T, D]`` tokens give ``[B, S, D]``."""
        queries = queries + self.attention(queries, tokens)
        queries = queries + self.mlp(self.norm2(queries))
        out: Tensor = self.norm_post(queries)
        return out


class AssignAttention(nn.Module):
    """One-head attention normalised over the *queries*: every token is shared out among the segments."""

    def __init__(self, width: int, options: GroupingOptions, name: str) -> None:
        super().__init__()
        self.options = options
        self.name = name
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        if options.logits == "cosine":
            self.cosine_scale = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, queries: Tensor, tokens: Tensor, keys: Tensor | None) -> tuple[Tensor, Assignment]:
        """Pool tokens into segments.

        Args:
            queries: ``[B, S, D]``.
            tokens: ``[B, T, D]``.
            keys: ``[B]`` keys of the gumbel noise (training with hard assignment), or None for no noise.

        Returns:
            Pooled tokens ``[B, S, D]`` and the assignment.
        """
        logits = self._logits(self.q_proj(queries), self.k_proj(tokens))
        assignment = Assignment(soft=logits.softmax(dim=1))
        weights = self._weights(logits, assignment, keys)
        # W_o((A / (sum over tokens of A + 1)) W_v x)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + ASSIGNMENT_EPSILON)
        return self.proj(weights @ self.v_proj(tokens)), assignment

    def _logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Assignment logits ``[B, S, T]``, in float32: the arg max must not depend on autocast rounding."""
        queries, keys = queries.float(), keys.float()
        if self.options.centre_keys:
            keys = keys - keys.mean(dim=1, keepdim=True)
        if self.options.logits == "cosine":
            queries = F.normalize(queries, dim=-1) * self.cosine_scale
            keys = F.normalize(keys, dim=-1)
        else:
            queries = queries * queries.shape[-1] ** -0.5
        with torch.autocast(queries.device.type, enabled=False):
            return queries @ keys.transpose(1, 2)

    def _weights(self, logits: Tensor, assignment: Assignment, keys: Tensor | None) -> Tensor:
        if self.options.assignment == "soft":
            return assignment.soft
        if not self.training or keys is None:
            return straight_through(assignment.soft)
        noise = gumbel_noise(keys, self.name, (logits.shape[1], logits.shape[2]))
        return straight_through(((logits + noise) / self.options.temperature).softmax(dim=1))


class GroupingBlock(nn.Module):
    """Group tokens claim image tokens: ``(tokens BTD, group tokens BGD) -> segment tokens BSD``."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        num_group_tokens: int,
        num_segments: int,
        options: GroupingOptions,
        name: str,
    ) -> None:
        super().__init__()
        self.norm_groups = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.group_mlp = TokenMlp(num_group_tokens, width // 2, num_segments)
        self.norm_queries = nn.LayerNorm(width)
        self.pre_assign = PreAssignAttention(width, num_heads, mlp_ratio) if options.pre_assign_attention else None
        self.assign = AssignAttention(width, options, name)
        self.norm_segments = nn.LayerNorm(width)
        self.channel_mlp = Mlp(width, int(width * mlp_ratio), width)

    def forward(self, tokens: Tensor, group_tokens: Tensor, keys: Tensor | None) -> tuple[Tensor, Assignment]:
        """Group.

        Args:
            tokens: ``[B, T, D]``.
            group_tokens: ``[B, G, D]``.
            keys: ``[B]`` noise keys or None.

        Returns:
            Segment tokens ``[B, S, D]`` and the assignment of the T tokens to the S segments.
        """
        tokens = self.norm_tokens(tokens)
        queries = self.norm_queries(self.group_mlp(self.norm_groups(group_tokens)))
        if self.pre_assign is not None:
            queries = self.pre_assign(queries, tokens)
        pooled, assignment = self.assign(queries, tokens, keys)
        segments = pooled + queries
        return segments + self.channel_mlp(self.norm_segments(segments)), assignment

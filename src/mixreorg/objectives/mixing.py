"""Progressive mixing: how original features of the same depth strengthen the mixed ones (MixReorg, Fig. 3)."""

from typing import Literal

import torch
from torch import Tensor, nn

from mixreorg.models.layers import CrossAttention

Combine = Literal["none", "sum", "mean", "gate", "cross_attention"]


class ProgressiveMixing(nn.Module):
    """``X_mix <- combine(X_mix, Mix(X_orig, source_index))`` before one block of stage 1.

    ``gate`` and ``cross_attention`` own parameters, which belong to the objective: inference has none of them.
    The gate starts half open, cross-attention starts closed.
    """

    def __init__(self, combine: Combine, width: int, num_heads: int) -> None:
        super().__init__()
        self.combine = combine
        if combine == "gate":
            self.gate = nn.Linear(2 * width, width)
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)
        elif combine == "cross_attention":
            self.norm_mixed = nn.LayerNorm(width)
            self.norm_original = nn.LayerNorm(width)
            self.attention = CrossAttention(width, num_heads)
            nn.init.zeros_(self.attention.proj.weight)
            nn.init.zeros_(self.attention.proj.bias)

    def forward(self, mixed: Tensor, original: Tensor) -> Tensor:
        """Combine.

        Args:
            mixed: ``[M, N, D]`` tokens of the mixed images.
            original: ``[M, N, D]`` tokens of the original images at the same depth, mixed by the same source index.

        Returns:
            ``[M, N, D]``.
        """
        match self.combine:
            case "none":
                return mixed
            case "sum":
                return mixed + original
            case "mean":
                return (mixed + original) / 2
            case "gate":
                share = torch.sigmoid(self.gate(torch.cat([mixed, original], dim=-1)))
                return mixed + share * (original - mixed)
            case "cross_attention":
                added: Tensor = self.attention(self.norm_mixed(mixed), self.norm_original(original))
                return mixed + added

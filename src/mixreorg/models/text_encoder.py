"""CLIP's causal text transformer."""

from typing import cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mixreorg.config import StrictConfig
from mixreorg.models.layers import Activation, TransformerBlock


class TextEncoderConfig(StrictConfig):
    """Architecture of the text encoder. The defaults are the published GroupViT's."""

    vocab_size: int = Field(49408, gt=2)
    context_length: int = Field(77, gt=2)
    width: int = Field(256, gt=0)
    depth: int = Field(12, ge=1)
    num_heads: int = Field(4, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    activation: Activation = "quick_gelu"
    end_id: int = Field(49407, gt=0)
    """Id of the end-of-text token, at whose first position the feature is read."""

    @model_validator(mode="after")
    def _check(self) -> "TextEncoderConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.end_id >= self.vocab_size:
            raise ValueError(f"end_id {self.end_id} lies outside the vocabulary of {self.vocab_size}")
        return self


class TextEncoder(nn.Module):
    """Token and position embedding, causal pre-norm blocks, final LayerNorm, feature at the end-of-text token."""

    def __init__(self, config: TextEncoderConfig, *, initialise: bool = True) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, config.mlp_ratio, activation=config.activation)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        if initialise:
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise as CLIP does.

        ===========================  ==============================================
        token embedding              normal, std 0.02
        position embedding           normal, std 0.01
        attention and MLP inputs     normal, std width^-0.5 and (2 width)^-0.5
        residual outputs             normal, std width^-0.5 (2 depth)^-0.5
        biases, LayerNorm            0; 1 and 0
        ===========================  ==============================================
        """
        width = self.config.width
        residual = width**-0.5 * (2 * self.config.depth) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)
        for block in cast(list[TransformerBlock], self.blocks):
            nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.attention.proj.weight, std=residual)
            nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.fc2.weight, std=residual)
            for layer in (block.attention.qkv, block.attention.proj, block.mlp.fc1, block.mlp.fc2):
                nn.init.zeros_(layer.bias)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Encode texts.

        Args:
            token_ids: ``[B, L]`` int64, L at most the context length; every row holds an end-of-text token.
                Rows may be cut after the longest text's end: later positions cannot be seen by earlier ones.

        Returns:
            ``[B, D]`` features before projection.
        """
        length = token_ids.shape[1]
        x = self.token_embedding(token_ids) + self.position_embedding[:length]
        for block in self.blocks:
            x = block(x, is_causal=True)
        end = (token_ids == self.config.end_id).int().argmax(dim=1)
        out: Tensor = self.norm(x[torch.arange(x.shape[0], device=x.device), end])
        return out

"""GroupViT's image encoder: patch embedding and three stages joined by two grouping blocks."""

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mixreorg.config import StrictConfig
from mixreorg.models.grouping import Assignment, GroupingBlock, GroupingOptions
from mixreorg.models.layers import TokenMlp, TransformerBlock, window_mask


class ImageEncoderConfig(StrictConfig):
    """Architecture of the image encoder. The defaults are the published GroupViT ViT-S/16."""

    image_size: int = Field(224, gt=0)
    """Side of the training images in pixels; sets the grid of the learned position embedding."""
    patch_size: int = Field(16, gt=0)
    stem: Literal["patch", "conv"] = "patch"
    """``patch``: one convolution of the patch's size. ``conv``: 3x3 convolutions of stride 2, for small models; it
    needs a ``patch_size`` that is a power of two, from 2 on."""
    width: int = Field(384, gt=0)
    num_heads: int = Field(6, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    depths: tuple[int, int, int] = (6, 3, 3)
    """Transformer blocks of the three stages."""
    num_group_tokens: tuple[int, int] = (64, 8)
    """Learned group tokens of stages 1 and 2."""
    num_segments: tuple[int, int] = (64, 8)
    """Segments that the two grouping blocks give."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the last block; grows linearly from 0."""
    assignment: Literal["hard", "soft"] = "hard"
    """``hard``: one segment per token (gumbel noise in training, straight-through gradient). ``soft``: shares."""
    gumbel_temperature: float = Field(1.0, gt=0)
    assignment_logits: Literal["dot", "cosine"] = "dot"
    """``cosine``: L2-normalised queries and keys times a learned scale (initially 10)."""
    centre_keys: bool = False
    """Subtract the image's mean key before the assignment, which keeps small models from using one segment."""
    init_std: float = Field(0.02, gt=0)
    """Initial standard deviation of linear weights; a small width wants about ``width ** -0.5``."""
    group_token_std: float = Field(0.02, ge=0)
    """Initial standard deviation of stage 1's group tokens; stage 2's start at zero."""
    pre_assign_attention: bool = True
    """Whether the segment queries attend to the tokens before the assignment."""
    num_local_blocks: int = Field(0, ge=0)
    """First blocks of stage 1 that attend only inside windows; the group tokens join after them."""
    local_window: int = Field(2, gt=0)
    """Side of those windows in patches."""

    @model_validator(mode="after")
    def _check(self) -> "ImageEncoderConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.stem == "conv" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(f"stem 'conv' needs a patch_size that is a power of two from 2 on, not {self.patch_size}")
        if self.num_local_blocks > self.depths[0]:
            raise ValueError(f"num_local_blocks {self.num_local_blocks} exceeds stage 1's depth {self.depths[0]}")
        if min(self.depths) < 0 or min(self.num_group_tokens + self.num_segments) < 1:
            raise ValueError("depths must not be negative; token and segment counts must be at least 1")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patch grid (h, w) of a training image."""
        side = self.image_size // self.patch_size
        return side, side


@dataclass(frozen=True)
class StageOneState:
    """Tokens on their way through stage 1; objectives may change them between blocks."""

    tokens: Tensor
    """``[B, N, D]`` patch tokens, or ``[B, N + G, D]`` once the group tokens have joined behind them."""
    grid: tuple[int, int]
    """Patch grid (h, w), h * w = N."""

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_tokens(self) -> Tensor:
        """``[B, N, D]``."""
        return self.tokens[:, : self.num_patches]

    @property
    def group_tokens(self) -> Tensor | None:
        """``[B, G, D]``, or None before they have joined."""
        return self.tokens[:, self.num_patches :] if self.tokens.shape[1] > self.num_patches else None

    def with_patches(self, patch_tokens: Tensor) -> "StageOneState":
        """The same state with other patch tokens ``[B, N, D]``."""
        groups = self.group_tokens
        tokens = patch_tokens if groups is None else torch.cat([patch_tokens, groups], dim=1)
        return StageOneState(tokens, self.grid)


@dataclass(frozen=True)
class ImageEncoding:
    """What the image encoder knows of a batch of images."""

    segment_tokens: Tensor
    """``[B, S, D]`` tokens of the final segments, after the last LayerNorm."""
    assignments: tuple[Assignment, Assignment]
    """Patches to the first segments ``[B, S1, N]``, first segments to the final ones ``[B, S, S1]``."""
    grid: tuple[int, int]
    """Patch grid (h, w)."""

    @property
    def pooled(self) -> Tensor:
        """``[B, D]`` mean of the segment tokens: the image feature before projection."""
        return self.segment_tokens.mean(dim=1)

    @property
    def patch_assignment(self) -> Tensor:
        """``[B, S, N]`` soft assignment of patches to final segments: the product of both soft maps."""
        first, second = self.assignments
        with torch.autocast(first.soft.device.type, enabled=False):
            return second.soft @ first.soft

    def split(self, sizes: list[int]) -> list["ImageEncoding"]:
        """Undo a concatenation of batches: encodings of so many images each."""
        first, second = (torch.split(assignment.soft, sizes) for assignment in self.assignments)
        return [
            ImageEncoding(tokens, (Assignment(to_first), Assignment(to_final)), self.grid)
            for tokens, to_first, to_final in zip(torch.split(self.segment_tokens, sizes), first, second, strict=True)
        ]


class PatchEmbedding(nn.Module):
    """Image to patch tokens: convolution(s), LayerNorm; the position embedding is added by the encoder."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = _patch_stem(config) if config.stem == "patch" else _conv_stem(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """``[B, 3, H, W]`` to tokens ``[B, N, D]`` and grid; a last part of a patch is left out, as published.

        Raises:
            ValueError: an image smaller than one patch.
        """
        height, width = (side // self.patch_size * self.patch_size for side in images.shape[-2:])
        if not height or not width:
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels hold no patch of {self.patch_size}")
        features = self.proj(images[..., :height, :width])
        grid = (features.shape[-2], features.shape[-1])
        # [B, D, h, w] -> [B, N, D]
        return self.norm(features.flatten(2).transpose(1, 2)), grid


def _patch_stem(config: ImageEncoderConfig) -> nn.Module:
    return nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size)


def _conv_stem(config: ImageEncoderConfig) -> nn.Module:
    """Stride-2 convolutions whose widths double up to the encoder's."""
    count = config.patch_size.bit_length() - 1
    widths = [3, *(max(config.width >> (count - 1 - index), 8) for index in range(count))]
    layers: list[nn.Module] = []
    for index in range(count):
        if index:
            layers.append(nn.GELU())
        layers.append(nn.Conv2d(widths[index], widths[index + 1], kernel_size=3, stride=2, padding=1))
    return nn.Sequential(*layers)


class Stage(nn.Module):
    """Transformer blocks over image tokens and group tokens, then (stages 1 and 2) a grouping block."""

    def __init__(self, config: ImageEncoderConfig, index: int) -> None:
        super().__init__()
        total = sum(config.depths)
        first = sum(config.depths[:index])
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.width,
                config.num_heads,
                config.mlp_ratio,
                drop_path=config.drop_path * (first + block) / max(total - 1, 1),
                name=f"drop_path.{first + block}",
            )
            for block in range(config.depths[index])
        )
        self.group_tokens: nn.Parameter | None = None
        self.group_projector: nn.Sequential | None = None
        self.grouping: GroupingBlock | None = None
        if index < 2:
            count = config.num_group_tokens[index]
            self.group_tokens = nn.Parameter(torch.zeros(1, count, config.width))
            self.grouping = GroupingBlock(
                config.width,
                config.num_heads,
                config.mlp_ratio,
                num_group_tokens=count,
                num_segments=config.num_segments[index],
                options=_grouping_options(config),
                name=f"gumbel.{index}",
            )
        if index == 1:
            self.group_projector = nn.Sequential(
                nn.LayerNorm(config.width),
                TokenMlp(config.num_group_tokens[0], config.width // 2, config.num_group_tokens[1]),
            )


def _grouping_options(config: ImageEncoderConfig) -> GroupingOptions:
    return GroupingOptions(
        assignment=config.assignment,
        temperature=config.gumbel_temperature,
        logits=config.assignment_logits,
        centre_keys=config.centre_keys,
        pre_assign_attention=config.pre_assign_attention,
    )


class ImageEncoder(nn.Module):
    """The grouping vision transformer (Xu et al., CVPR 2022, arXiv 2202.11094, section 3.1).

    ``forward`` is :meth:`begin`, :meth:`advance` over the whole of stage 1, :meth:`group`. Training objectives
    compose the three from outside; the encoder knows nothing of them.
    """

    def __init__(self, config: ImageEncoderConfig, *, initialise: bool = True) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.position_embedding = nn.Parameter(torch.zeros(1, config.grid[0] * config.grid[1], config.width))
        self.stages = nn.ModuleList(Stage(config, index) for index in range(3))
        self.norm = nn.LayerNorm(config.width)
        if initialise:
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise.

        =====================================  ==========================================
        linear weights                         truncated normal, std ``init_std``; biases 0
        convolutions                           torch default
        LayerNorm                              1 and 0
        position embedding                     truncated normal, std 0.02
        group tokens of stage 1                truncated normal, std ``group_token_std``
        group tokens of stage 2                0
        =====================================  ==========================================
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=self.config.init_std)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        tokens = self.stage(0).group_tokens
        assert tokens is not None
        # The cut-off of torch's truncated normal is absolute (+-2), hence the scaling afterwards.
        nn.init.trunc_normal_(tokens, std=1.0)
        with torch.no_grad():
            tokens.mul_(self.config.group_token_std)

    def stage(self, index: int) -> Stage:
        """Stage ``index`` (0, 1, 2) with its type."""
        return cast(Stage, self.stages[index])

    @property
    def num_stage_one_blocks(self) -> int:
        """Depth of stage 1."""
        return self.config.depths[0]

    def begin(self, images: Tensor) -> StageOneState:
        """Embed normalised images ``[B, 3, H, W]`` of any size into patch tokens with positions."""
        tokens, grid = self.patch_embedding(images)
        return StageOneState(tokens + self.positions(grid), grid)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding ``[1, N, D]`` for any grid: bicubic resize of the learned one."""
        if grid == self.config.grid:
            return self.position_embedding
        return self.resized_positions(grid)

    def resized_positions(self, grid: tuple[int, int]) -> Tensor:
        """The same without looking at the grid, for graphs whose grid is not known while they are made."""
        height, width = self.config.grid
        # [1, N, D] -> [1, D, h, w] -> resized -> [1, N', D]
        table = self.position_embedding.reshape(1, height, width, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table.float(), size=grid, mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1).flatten(1, 2)

    def advance(self, state: StageOneState, start: int, stop: int, keys: Tensor | None = None) -> StageOneState:
        """Run the blocks ``start`` to ``stop`` (exclusive) of stage 1.

        Args:
            state: tokens before block ``start``.
            start: first block.
            stop: block before which to end.
            keys: ``[B]`` keys of stochastic depth in training.

        Returns:
            Tokens before block ``stop``. Group tokens join at the first block that is not local.
        """
        blocks = self.stage(0).blocks
        for index in range(start, stop):
            mask = None
            if index < self.config.num_local_blocks:
                mask = window_mask(state.grid, self.config.local_window, state.tokens.device)
            else:
                state = self.with_group_tokens(state)
            state = replace(state, tokens=blocks[index](state.tokens, keys=keys, mask=mask))
        return state

    def group(self, state: StageOneState, keys: Tensor | None = None) -> ImageEncoding:
        """From the end of stage 1 to segments: grouping, stage 2, grouping, stage 3, norm.

        Args:
            state: tokens after stage 1's last block.
            keys: ``[B]`` keys of gumbel noise and stochastic depth in training.
        """
        state = self.with_group_tokens(state)
        assert state.group_tokens is not None
        first, second, third = self.stage(0), self.stage(1), self.stage(2)
        assert first.grouping is not None
        assert second.grouping is not None
        assert second.group_projector is not None
        tokens, to_first = first.grouping(state.patch_tokens, state.group_tokens, keys)
        group_tokens = second.group_tokens + second.group_projector(state.group_tokens)
        count = tokens.shape[1]
        tokens = torch.cat([tokens, group_tokens], dim=1)
        for block in second.blocks:
            tokens = block(tokens, keys=keys)
        tokens, to_final = second.grouping(tokens[:, :count], tokens[:, count:], keys)
        for block in third.blocks:
            tokens = block(tokens, keys=keys)
        return ImageEncoding(self.norm(tokens), (to_first, to_final), state.grid)

    def forward(self, images: Tensor, keys: Tensor | None = None) -> ImageEncoding:
        """Encode normalised images ``[B, 3, H, W]``; ``keys`` ``[B]`` as in :meth:`group`."""
        state = self.advance(self.begin(images), 0, self.num_stage_one_blocks, keys)
        return self.group(state, keys)

    def with_group_tokens(self, state: StageOneState) -> StageOneState:
        """Let the learned group tokens join, where none have yet."""
        if state.group_tokens is not None:
            return state
        learned = self.stage(0).group_tokens
        assert learned is not None
        return replace(state, tokens=torch.cat([state.tokens, learned.expand(state.tokens.shape[0], -1, -1)], dim=1))

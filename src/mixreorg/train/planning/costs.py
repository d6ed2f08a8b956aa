"""What layers cost: floating point operations of the forward pass, and bytes kept for the backward pass.

Every formula is for one image or caption and mirrors a layer of ``mixreorg.models``. A multiply-add counts as two
operations; elementwise work counts as none. Kept bytes are those of the tensors that autograd saves: the inputs of
matrix products, LayerNorms and activations, each once.
"""

import itertools
from dataclasses import dataclass

from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.layers import Activation

_FLOAT = 4
_INDEX = 8


@dataclass(frozen=True)
class Numerics:
    """Number of bytes of the tensors that a precision makes on a kind of device."""

    compute: int
    """Of inputs and outputs of matrix products under autocast."""
    norm: int
    """Of a LayerNorm's input that comes from a matrix product: autocast keeps it in float32 except on a CPU."""
    fused_attention: bool
    """Whether attention keeps a log-sum per query, or its whole matrix (see ``models.layers.attend``)."""

    @classmethod
    def of(cls, precision: str, device_type: str) -> "Numerics":
        """For a precision of ``TrainConfig`` and a type of ``torch.device``."""
        compute = _FLOAT if precision == "fp32" else 2
        is_cpu = device_type == "cpu"
        return cls(compute, compute if is_cpu else _FLOAT, not (is_cpu and precision == "bf16"))


@dataclass(frozen=True)
class Cost:
    """Cost of one or several layers."""

    flops: float = 0.0
    """Of the forward pass."""
    saved: float = 0.0
    """Bytes kept from the forward to the backward pass."""
    block_flops: float = 0.0
    """The part of :attr:`flops` inside transformer blocks: what activation checkpointing computes again."""
    block_saved: float = 0.0
    """The part of :attr:`saved` inside transformer blocks: what activation checkpointing does not keep."""

    def __add__(self, other: "Cost") -> "Cost":
        """Cost of both."""
        return Cost(
            self.flops + other.flops,
            self.saved + other.saved,
            self.block_flops + other.block_flops,
            self.block_saved + other.block_saved,
        )

    def __mul__(self, count: float) -> "Cost":
        """Cost of ``count`` times the same."""
        return Cost(self.flops * count, self.saved * count, self.block_flops * count, self.block_saved * count)


def linear(rows: int, inputs: int, outputs: int, numerics: Numerics) -> Cost:
    """A linear layer that keeps its input."""
    return Cost(2.0 * rows * inputs * outputs, rows * inputs * numerics.compute)


def layer_norm(rows: int, width: int, input_bytes: int) -> Cost:
    """LayerNorm keeps its input, and mean and deviation per row in float32."""
    return Cost(saved=rows * (width * input_bytes + 2 * _FLOAT))


def mlp(rows: int, width: int, hidden: int, out: int, numerics: Numerics, activation: Activation = "gelu") -> Cost:
    """Two linear layers; QuickGELU, made of two operations, keeps one tensor more than GELU."""
    kept = 2 if activation == "quick_gelu" else 1
    activated = Cost(saved=kept * rows * hidden * numerics.compute)
    return linear(rows, width, hidden, numerics) + activated + linear(rows, hidden, out, numerics)


def attention(queries: int, keys: int, width: int, num_heads: int, numerics: Numerics) -> Cost:
    """Scaled dot-product attention, without projections; its output is kept as the next layer's input."""
    weights = num_heads * queries * (_FLOAT if numerics.fused_attention else keys * numerics.compute)
    return Cost(4.0 * queries * keys * width, (queries + 2 * keys) * width * numerics.compute + weights)


def cross_attention(queries: int, keys: int, width: int, num_heads: int, numerics: Numerics) -> Cost:
    """Attention to other tokens; in float32 these are kept by whoever made them."""
    return (
        linear(queries, width, width, numerics)
        + shared_projections(2, keys, width, numerics)
        + attention(queries, keys, width, num_heads, numerics)
        + linear(queries, width, width, numerics)
    )


def shared_projections(count: int, rows: int, width: int, numerics: Numerics) -> Cost:
    """Linear layers that read the same float32 tensor: autocast gives each one a copy of its own."""
    copies = count * rows * width * numerics.compute if numerics.compute < _FLOAT else 0
    return Cost(2.0 * count * rows * width * width, copies)


def transformer_block(
    tokens: int,
    width: int,
    num_heads: int,
    mlp_ratio: float,
    numerics: Numerics,
    *,
    stream: int = _FLOAT,
    activation: Activation = "gelu",
) -> Cost:
    """A pre-norm block on a residual stream of ``stream`` bytes per number."""
    inner = (
        layer_norm(tokens, 0, stream)
        + linear(tokens, width, 3 * width, numerics)
        + attention(tokens, tokens, width, num_heads, numerics)
        + linear(tokens, width, width, numerics)
        + layer_norm(tokens, width, stream)
        + mlp(tokens, width, int(width * mlp_ratio), width, numerics, activation)
    )
    return Cost(inner.flops, inner.saved + tokens * width * stream, inner.flops, inner.saved)


def patch_embedding(config: ImageEncoderConfig, numerics: Numerics) -> Cost:
    """Convolution(s) and LayerNorm of the patch tokens."""
    side, patches = config.image_size, config.grid[0] * config.grid[1]
    images = 3 * side**2 * numerics.compute if numerics.compute < _FLOAT else 0
    norm = layer_norm(patches, config.width, numerics.norm)
    if config.stem == "patch":
        return Cost(2.0 * patches * config.width * 3 * config.patch_size**2, images) + norm
    widths = stem_widths(config)
    cost = Cost(saved=images) + norm
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        pixels = (side >> (index + 1)) ** 2
        is_last = index == len(widths) - 2
        # Between two convolutions, GELU keeps its input and the second convolution its own.
        cost += Cost(2.0 * pixels * outputs * inputs * 9, 0 if is_last else 2 * pixels * outputs * numerics.compute)
    return cost


def stem_widths(config: ImageEncoderConfig) -> list[int]:
    """Channels before, between and after the convolutions of the stem ``conv``."""
    count = config.patch_size.bit_length() - 1
    return [3, *(max(config.width >> (count - 1 - index), 8) for index in range(count))]


def grouping_block(config: ImageEncoderConfig, index: int, numerics: Numerics) -> Cost:
    """Grouping block ``index`` (0, 1), from the tokens of its stage to segments."""
    width, heads, hidden = config.width, config.num_heads, int(config.width * config.mlp_ratio)
    tokens = config.grid[0] * config.grid[1] if index == 0 else config.num_segments[0]
    groups, segments = config.num_group_tokens[index], config.num_segments[index]
    # Both norms keep the same tensor: the tokens of the stage, group tokens included.
    cost = Cost(saved=(tokens + groups) * (width + 2) * _FLOAT)
    cost += mlp(width, groups, width // 2, segments, numerics)
    cost += layer_norm(segments, width, numerics.norm)
    if numerics.compute == _FLOAT:
        cost += Cost(saved=tokens * width * _FLOAT)
    if config.pre_assign_attention:
        cost += cross_attention(segments, tokens, width, heads, numerics)
        cost += layer_norm(segments, width, numerics.norm)
        cost += mlp(segments, width, hidden, width, numerics)
        cost += layer_norm(segments, width, numerics.norm)
    cost += _assignment(config, segments, tokens, numerics)
    cost += layer_norm(segments, width, numerics.norm)
    return cost + mlp(segments, width, hidden, width, numerics)


def _assignment(config: ImageEncoderConfig, segments: int, tokens: int, numerics: Numerics) -> Cost:
    """Assignment attention: logits in float32, softmax over segments, mean of the values."""
    width = config.width
    cost = linear(segments, width, width, numerics) + shared_projections(2, tokens, width, numerics)
    if config.assignment_logits == "cosine":
        cost += Cost(saved=(3 * segments + 2 * tokens) * width * _FLOAT + 2 * (segments + tokens) * _FLOAT)
    else:
        cost += Cost(saved=(segments + tokens) * width * _FLOAT)
    # Hard assignment keeps the noisy softmax and the straight-through weights beside the soft assignment.
    maps = 3 if config.assignment == "hard" else 1
    cost += Cost(saved=segments * tokens * (maps * _FLOAT + numerics.compute) + segments * _FLOAT)
    # Logits and weighted mean are one matrix product each; the values are kept for the second.
    cost += Cost(4.0 * segments * tokens * width, tokens * width * numerics.compute)
    return cost + linear(segments, width, width, numerics)


def group_projector(config: ImageEncoderConfig, numerics: Numerics) -> Cost:
    """Stage 1's group tokens on their way into stage 2's; the tensor itself is kept by the grouping block."""
    before, after = config.num_group_tokens
    return layer_norm(before, 0, _FLOAT) + mlp(config.width, before, config.width // 2, after, numerics)


def patch_permutation(patches: int) -> Cost:
    """Mixing or restoring patches keeps the way back, one index per patch."""
    return Cost(saved=patches * _INDEX)


def projector(rows: int, width: int, hidden: int, out: int, numerics: Numerics) -> Cost:
    """Linear, BatchNorm, ReLU, linear (or one linear layer) and L2 normalisation."""
    normalised = Cost(saved=rows * (out + 2) * numerics.compute)
    if not hidden:
        return linear(rows, width, out, numerics) + normalised
    kept = Cost(saved=rows * hidden * numerics.compute)
    return linear(rows, width, hidden, numerics) + kept + linear(rows, hidden, out, numerics) + normalised

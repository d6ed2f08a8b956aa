"""How much memory a training process takes on its device, from the configuration alone."""

from dataclasses import dataclass, fields

import torch

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.train.config import TrainConfig
from mixreorg.train.planning.costs import Cost, Numerics, transformer_block
from mixreorg.train.planning.flops import encoder_costs, loss_costs, noun_length
from mixreorg.train.setup import build_objective

_FLOAT = 4

# What a process holds beside its tensors. A GPU: CUDA context, libraries, communication buffers (estimated). A CPU:
# interpreter and libraries before the first tensor (measured with torch 2.13 on x86-64 Linux).
_RUNTIME = {"cpu": 0.34e9, "cuda": 1.2e9, "mps": 0.6e9}
# Temporaries of the kernels, and memory that the allocator holds but cannot use: so much, and a share of the
# activations. On a CPU both are fits to the peak resident size of short runs with glibc (``benchmarks/plan.py``);
# elsewhere they are estimates.
_WORKSPACE = {"cpu": 0.12e9, "cuda": 0.3e9, "mps": 0.3e9}
_FRAGMENTATION = {"cpu": 0.35, "cuda": 0.1, "mps": 0.2}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device at the peak of a step."""

    weights: float
    gradients: float
    moments: float
    """AdamW's two."""
    images: float
    """The process's share of the batch, as bytes and as floats."""
    activations: float
    """What the backward pass needs of the forward pass, cached features and half-precision weights included."""
    workspace: float
    """Temporaries and what the allocator cannot use."""
    runtime: float
    """Before the first tensor."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(float(getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of what is trained."""

    by_part: dict[str, int]
    multiplied: int
    """Those of linear layers and convolutions, of which autocast makes copies in half precision."""

    @property
    def total(self) -> int:
        """All parts."""
        return sum(self.by_part.values())


def count_parameters(config: TrainConfig) -> ParameterCounts:
    """Parameters by part of the model; those of learned combinations, which inference has not, as ``mixed branch``."""
    with torch.device("meta"):
        objective = build_objective(DualEncoder(config.model), config.objective)
    parts: dict[str, int] = {}
    for name, parameter in objective.named_parameters():
        part = _part(name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    multiplied = sum(
        module.weight.numel() for module in objective.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    )
    return ParameterCounts(parts, multiplied)


def estimate_memory(
    config: TrainConfig,
    device_type: str,
    share: int,
    *,
    devices: int = 1,
    text_length: int | None = None,
    parameters: ParameterCounts | None = None,
) -> MemoryEstimate:
    """Memory of one process.

    The formulas count tensors that autograd keeps, which tests compare with those of real forward passes; temporaries
    and allocators are estimates.

    Args:
        config: the run, its tokenizer resolved; ``engine.chunk`` and ``engine.activation_checkpointing`` count.
        device_type: ``cpu``, ``cuda`` or ``mps``.
        share: pairs per process and step.
        devices: processes.
        text_length: tokens per caption; None for the context length.
        parameters: of the same configuration, where they are known already.
    """
    parameters = parameters or count_parameters(config)
    weights = _FLOAT * parameters.total
    numerics = Numerics.of(config.precision, device_type)
    copies = 2 * parameters.multiplied if config.precision != "fp32" else 0
    chunk = config.engine.chunk
    is_cached = chunk is not None and chunk < share
    encoder = _encoder_bytes(config, numerics, min(share, chunk or share), text_length)
    loss = sum(cost.saved for cost in loss_costs(config, numerics, share, share * devices).values())
    # With a gradient cache no chunk is held while the loss is computed, but features and their gradients always are.
    kept = max(encoder, loss) + 2 * share * _feature_bytes(config) if is_cached else encoder + loss
    activations = kept + copies
    # One process makes its gradients while the activations go; several hold them in buckets all the time.
    gradients = weights if is_cached or devices > 1 else max(weights - activations, 0.0)
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        moments=2 * weights,
        images=share * 3 * config.model.image.image_size**2 * (1 + _FLOAT),
        activations=activations,
        workspace=_WORKSPACE[device_type] + _FRAGMENTATION[device_type] * activations,
        runtime=_RUNTIME[device_type],
    )


def _part(name: str) -> str:
    """Part of the model that a parameter belongs to, as ``flops.encoder_costs`` calls it."""
    prefixes = {
        "progressive": "mixed branch",
        "model.text_encoder": "text encoder",
        "model.image_encoder.stages.0.grouping": "grouping 1",
        "model.image_encoder.stages.1.group_projector": "grouping 1",
        "model.image_encoder.stages.1.grouping": "grouping 2",
        "model.image_encoder.stages.0": "stage 1",
        "model.image_encoder.stages.1": "stage 2",
        "model.image_encoder.stages.2": "stage 3",
        "model.image_encoder.norm": "stage 3",
        "model.image_encoder": "patch embedding",
    }
    return next((part for prefix, part in prefixes.items() if name.startswith(f"{prefix}.")), "projectors")


def _encoder_bytes(config: TrainConfig, numerics: Numerics, pairs: int, text_length: int | None) -> float:
    """Bytes kept of encoding ``pairs`` pairs at once."""
    cost = sum(encoder_costs(config, numerics, text_length).values(), Cost())
    if not config.engine.activation_checkpointing:
        return pairs * cost.saved
    return pairs * (cost.saved - cost.block_saved + _largest_block(config, numerics, text_length))


def _largest_block(config: TrainConfig, numerics: Numerics, text_length: int | None) -> float:
    """Bytes per pair that the backward pass through one recomputed transformer block keeps."""
    image, text, objective = config.model.image, config.model.text, config.objective
    branches = [1.0, 1.0]
    if isinstance(objective, MixReorgConfig) and (objective.mixes or objective.restored.weight):
        both = 1 + objective.mixed_share
        branches = [both, both + 1 if objective.restored.weight else both]
    tokens: list[float] = [
        branches[0] * (image.grid[0] * image.grid[1] + image.num_group_tokens[0]),
        branches[1] * (image.num_segments[0] + image.num_group_tokens[1]),
    ]

    def of_texts(count: int, length: int) -> float:
        heads, ratio = text.num_heads, text.mlp_ratio
        block = transformer_block(length, text.width, heads, ratio, numerics, activation=text.activation)
        return count * block.block_saved

    nouns = objective.multi_label
    return max(
        transformer_block(round(max(tokens)), image.width, image.num_heads, image.mlp_ratio, numerics).block_saved,
        of_texts(1, min(text_length or text.context_length, text.context_length)),
        of_texts(nouns.num_nouns, noun_length(config)) if nouns.is_on else 0.0,
    )


def _feature_bytes(config: TrainConfig) -> float:
    """Bytes per pair of what the loss is made of (``Objective.features``)."""
    image, objective = config.model.image, config.objective
    nouns = objective.multi_label.num_nouns if objective.multi_label.is_on else 0
    numbers: float = config.model.text.width * (1 + nouns) + image.width
    if isinstance(objective, MixReorgConfig):
        patches, segments = image.grid[0] * image.grid[1], image.num_segments[1]
        if objective.mixes:
            numbers += objective.mixed_share * (segments * (image.width + patches) + patches)
        if objective.restored.weight:
            numbers += image.width
    return numbers * _FLOAT

"""Floating point operations of a training step, per pair and by part of the model."""

from dataclasses import dataclass

from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.text.templates import prompt_length
from mixreorg.train.config import TrainConfig
from mixreorg.train.planning.costs import (
    Cost,
    Numerics,
    cross_attention,
    group_projector,
    grouping_block,
    layer_norm,
    linear,
    patch_embedding,
    patch_permutation,
    projector,
    transformer_block,
)

_FLOAT = 4


@dataclass(frozen=True)
class PartFlops:
    """Operations per pair; a multiply-add counts as two."""

    forward: dict[str, float]
    """Forward pass by part."""
    recomputed: float
    """What activation checkpointing and the gradient cache compute a second time."""

    @property
    def forward_total(self) -> float:
        """All parts of the forward pass."""
        return sum(self.forward.values())

    @property
    def model_train(self) -> float:
        """Forward and backward pass as the model needs them, three times the forward pass: the basis of MFU."""
        return 3 * self.forward_total

    @property
    def total_train(self) -> float:
        """All that a step computes, recomputation included."""
        return self.model_train + self.recomputed


def flops_per_pair(
    config: TrainConfig, global_batch: int, *, devices: int = 1, text_length: int | None = None
) -> PartFlops:
    """Count a training step once all of its losses count.

    Args:
        config: the run; its tokenizer resolved (see ``train.setup.resolve``), or else the text encoder as it says.
        global_batch: pairs per step over all processes; the losses compare each pair with all of them.
        devices: processes; each one projects the features of the global batch.
        text_length: tokens per caption as the text encoder sees them, which is the longest of a batch; None for the
            context length, the most there can be.
    """
    numerics = Numerics.of("fp32", "cuda")
    share = max(global_batch // devices, 1)
    encoders = encoder_costs(config, numerics, text_length)
    losses = loss_costs(config, numerics, share, share * devices)
    forward = {name: cost.flops for name, cost in encoders.items()}
    forward |= {name: cost.flops / share for name, cost in losses.items()}
    recomputed = 0.0
    if config.engine.activation_checkpointing:
        recomputed += sum(cost.block_flops for cost in encoders.values())
    if config.engine.chunk is not None and config.engine.chunk < share:
        recomputed += sum(cost.flops for cost in encoders.values())
    return PartFlops(forward, recomputed)


def encoder_costs(config: TrainConfig, numerics: Numerics, text_length: int | None = None) -> dict[str, Cost]:
    """Cost per pair of everything before the loss (``Objective.features``), by part, in forward order.

    ``mixed branch`` and ``restored branch`` are what MixReorg adds; the other parts are plain GroupViT.
    """
    image, nouns = config.model.image, config.objective.multi_label
    costs = {"text encoder": _text(config, text_length, numerics)}
    if nouns.is_on:
        costs["noun prompts"] = _text(config, noun_length(config), numerics) * nouns.num_nouns
    costs |= {
        "patch embedding": patch_embedding(image, numerics),
        "stage 1": _stage_one(image, 0, numerics),
        **_grouping(image, numerics),
    }
    objective = config.objective
    if isinstance(objective, MixReorgConfig) and (objective.mixes or objective.restored.weight):
        grouping = sum(_grouping(image, numerics).values(), Cost())
        mixed = _stage_one(image, objective.num_contextual_blocks, numerics) + _progressive(image, objective, numerics)
        # All patches are mixed, also where few mixed images are made of them.
        permutation = patch_permutation(image.grid[0] * image.grid[1])
        if objective.mixes:
            mixed += Cost(2.0 * image.num_segments[1] * image.num_segments[0] * image.grid[0] * image.grid[1])
        costs["mixed branch"] = (mixed + grouping) * objective.mixed_share + permutation
        if objective.restored.weight:
            costs["restored branch"] = grouping + patch_permutation(image.grid[0] * image.grid[1])
    return costs


def loss_costs(config: TrainConfig, numerics: Numerics, share: int, global_batch: int) -> dict[str, Cost]:
    """Cost *per process* of the loss of its share of the global batch (``Objective.loss``), by part."""
    model, objective = config.model, config.objective
    hidden, embed = model.projector_hidden, model.embed_dim
    nouns = objective.multi_label.num_nouns if objective.multi_label.is_on else 0
    images = projector(global_batch, model.image.width, hidden, embed, numerics)
    contrast = _contrastive(share, global_batch, embed, numerics)
    costs = {
        "projectors": images + projector(global_batch * (1 + nouns), model.text.width, hidden, embed, numerics),
        "contrastive loss": contrast,
    }
    if nouns:
        costs["multi-label loss"] = _multi_label(share, global_batch, nouns, embed, numerics)
    if isinstance(objective, MixReorgConfig):
        mixed = round(share * objective.mixed_share)
        segments = projector(mixed * model.image.num_segments[1], model.image.width, hidden, embed, numerics)
        if objective.mixed.weight:
            costs["mixed loss"] = segments + _mixed_loss(model.image, objective, mixed, global_batch, embed)
        if objective.text_to_patch.weight:
            other_side = _text_to_patch_loss(model.image, objective, mixed, global_batch, embed)
            costs["text-to-patch loss"] = segments + other_side
            if not objective.mixed.weight:
                # Mixed-mask accuracy, which else is part of the mixed loss, keeps nothing.
                captions = 2.0 * mixed * model.image.num_segments[1] * embed * global_batch
                costs["text-to-patch loss"] += Cost(segments.flops + captions)
        if objective.restored.weight:
            costs["restored loss"] = images + contrast
    return costs


def noun_length(config: TrainConfig) -> int:
    """Tokens per noun prompt as the text encoder sees them: an estimate of the longest of a batch."""
    return min(prompt_length(config.objective.multi_label.templates), config.model.text.context_length)


def _text(config: TrainConfig, text_length: int | None, numerics: Numerics) -> Cost:
    """The text encoder on one text."""
    text = config.model.text
    length = min(text_length or text.context_length, text.context_length)
    block = transformer_block(length, text.width, text.num_heads, text.mlp_ratio, numerics, activation=text.activation)
    return block * text.depth + Cost(saved=length * 8) + layer_norm(1, text.width, _FLOAT)


def _stage_one(image: ImageEncoderConfig, first: int, numerics: Numerics) -> Cost:
    """Blocks ``first`` and later of stage 1; group tokens join after the local ones."""
    cost, patches = Cost(), image.grid[0] * image.grid[1]
    for index in range(first, image.depths[0]):
        tokens = patches + (0 if index < image.num_local_blocks else image.num_group_tokens[0])
        cost += transformer_block(tokens, image.width, image.num_heads, image.mlp_ratio, numerics)
    return cost


def _grouping(image: ImageEncoderConfig, numerics: Numerics) -> dict[str, Cost]:
    """Everything after stage 1."""
    segments = image.num_segments
    joined = segments[0] + image.num_group_tokens[1]
    second = transformer_block(joined, image.width, image.num_heads, image.mlp_ratio, numerics)
    third = transformer_block(
        segments[1], image.width, image.num_heads, image.mlp_ratio, numerics, stream=numerics.norm
    )
    return {
        "grouping 1": grouping_block(image, 0, numerics) + group_projector(image, numerics),
        "stage 2": second * image.depths[1],
        "grouping 2": grouping_block(image, 1, numerics),
        "stage 3": third * image.depths[2] + layer_norm(segments[1], image.width, numerics.norm),
    }


def _progressive(image: ImageEncoderConfig, objective: MixReorgConfig, numerics: Numerics) -> Cost:
    """Progressive mixing before every further block of stage 1 but one, for a mixed image."""
    first, patches = objective.num_contextual_blocks, image.grid[0] * image.grid[1]
    combined = patches * image.width
    match objective.combine:
        case "gate":
            gate = linear(patches, 2 * image.width, image.width, numerics)
            step = gate + Cost(saved=combined * (numerics.compute + _FLOAT))
        case "cross_attention":
            # The norm of the mixed patches keeps the tensor that they are a part of: both branches, group tokens too.
            joined = 2 * (patches + image.num_group_tokens[0]) * image.width
            kept = combined * (2 if numerics.compute == _FLOAT else 1) + joined
            norms = layer_norm(patches, 0, _FLOAT) * 2 + Cost(saved=kept * _FLOAT)
            step = norms + cross_attention(patches, patches, image.width, image.num_heads, numerics)
        case _:
            step = Cost()
    return step * max(image.depths[0] - first - 1, 0)


def _contrastive(share: int, global_batch: int, embed: int, numerics: Numerics) -> Cost:
    """Both directions of InfoNCE: logits and their softmax, in float32."""
    copies = 4 * global_batch * embed * _FLOAT if numerics.compute < _FLOAT else 0
    return Cost(4.0 * share * global_batch * embed, 4 * share * global_batch * _FLOAT + copies)


def _multi_label(share: int, global_batch: int, nouns: int, embed: int, numerics: Numerics) -> Cost:
    """Both directions of the loss on noun prompts: logits, their softmax and targets, in float32."""
    pairs = share * global_batch * nouns
    return Cost(4.0 * pairs * embed, 6 * pairs * _FLOAT)


def _mixed_loss(
    image: ImageEncoderConfig, objective: MixReorgConfig, share: int, global_batch: int, embed: int
) -> Cost:
    """Similarity of segments and texts, and the chosen form of the loss."""
    segments, patches = image.num_segments[1], image.grid[0] * image.grid[1]
    candidates = global_batch if objective.candidates == "batch" else objective.group_size
    rows = share * segments
    flops = 2.0 * rows * embed * global_batch
    saved = _FLOAT * (rows * (embed + global_batch) + global_batch * embed)
    patch_logits = share * patches * candidates
    match objective.mixed_form:
        case "mixed_probability":
            saved += _FLOAT * rows * candidates + rows * patches * (2 * _FLOAT + 1)
        case "cross_entropy":
            saved += _FLOAT * (rows * patches + rows * candidates + patch_logits)
        case "binary_cross_entropy":
            saved += _FLOAT * (rows * patches + rows * candidates + 2 * patch_logits) + 9 * patch_logits
        case "dice":
            saved += _FLOAT * (rows * patches + 2 * rows * candidates + patch_logits)
    if objective.mixed_form != "mixed_probability":
        flops += 2.0 * share * patches * segments * candidates
    if objective.candidates == "nouns":
        # At most: words that a batch has several times are one. Each source keeps its own masked probabilities.
        words = global_batch * objective.multi_label.num_nouns
        flops += 2.0 * rows * embed * words
        saved += _FLOAT * (rows * words * (2 + objective.group_size) + words * embed)
    return Cost(flops, saved)


def _text_to_patch_loss(
    image: ImageEncoderConfig, objective: MixReorgConfig, share: int, global_batch: int, embed: int
) -> Cost:
    """Similarity of segments and texts, and the attention of texts to their own and to all mixed patches."""
    segments, patches, sources = image.num_segments[1], image.grid[0] * image.grid[1], objective.group_size
    of_nouns = objective.text_to_patch_texts == "nouns"
    # At most: words that a batch has several times are one.
    texts = global_batch * objective.multi_label.num_nouns if of_nouns else global_batch
    rows = share * segments
    # Patches' sources, what every segment holds of them, and whether a text has any.
    flops = 2.0 * (rows * embed * texts + rows * patches * sources + rows * sources * texts + share * sources * texts)
    saved = _FLOAT * (rows * embed + texts * embed + share * patches * sources + rows * sources)
    saved += _FLOAT * share * sources * texts
    # The similarities before their scale; the logits of both attentions; of the own one also its logarithms and where
    # they do not exist.
    saved += rows * texts * (4 * _FLOAT + 1)
    return Cost(flops, saved)

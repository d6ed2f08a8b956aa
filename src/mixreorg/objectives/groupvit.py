"""The baseline objective: contrast images with their captions."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.distributed import local_rows
from mixreorg.models.dual_encoder import DualEncoder, Statistics
from mixreorg.objectives.losses import contrastive_loss, unit_length
from mixreorg.objectives.multi_label import (
    MultiLabelConfig,
    NounSide,
    check_scale,
    gather_features,
    noun_features,
    noun_loss,
)
from mixreorg.objectives.objective import Features, Objective, segments_in_use
from mixreorg.objectives.terms import LossTerms
from mixreorg.text.noun_prompts import NounPrompts


class GroupViTConfig(StrictConfig):
    """GroupViT's objective: the image-caption contrastive loss and, as an option, the multi-label loss."""

    kind: Literal["groupvit"] = "groupvit"
    multi_label: MultiLabelConfig = MultiLabelConfig()
    """The loss on the captions' nouns; off by default."""


@dataclass(frozen=True)
class TextSide:
    """Embeddings of the global batch's texts."""

    embeddings: Tensor
    """``[B_global, E]`` captions, L2-normalised."""
    rows: slice
    """Rows of this process."""
    nouns: NounSide | None = None
    """Noun prompts, while the multi-label loss counts."""


class GroupViTObjective(Objective):
    """``loss = InfoNCE(image, caption) + w_nouns L_multi_label(image, nouns)`` over the global batch."""

    def __init__(self, model: DualEncoder, config: GroupViTConfig) -> None:
        super().__init__()
        check_scale(model, config.multi_label)
        self.model = model
        self.config = config

    def features(
        self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int, nouns: NounPrompts | None = None
    ) -> Features:
        """``text`` ``[B, D_text]``, ``image`` ``[B, D]``, ``segments_in_use`` ``[B]``, and those of the nouns."""
        text = self.model.text_encoder(token_ids)
        encoding = self.model.image_encoder(images, keys)
        features = {"text": text, "image": encoding.pooled, "segments_in_use": segments_in_use(encoding)}
        return features | noun_features(self.model, self.config.multi_label, nouns, step)

    def loss(self, features: Features, step: int) -> LossTerms:
        """The contrastive loss, and the multi-label loss where its features are there."""
        everyone = gather_features(features, ("text", "image"))
        rows = local_rows(len(features["text"]))
        text = project_texts(self.model, everyone["text"], rows, everyone.get("nouns"), everyone.get("noun_words"))
        return original_loss(self.model, self.config.multi_label, features, everyone["image"], text, step)


def project_texts(
    model: DualEncoder, text_features: Tensor, rows: slice, nouns: Tensor | None = None, words: Tensor | None = None
) -> TextSide:
    """Project the captions of all processes, and their noun prompts if there are any.

    Features are gathered *before* the projector, so that its BatchNorm sees the global batch on every process,
    whatever the backend: that is synchronised BatchNorm, also where torch's own does not exist (CPU, MPS). Captions
    and prompts are one batch to it, as in the original; places without a noun are not part of it.

    Args:
        model: owner of the projector.
        text_features: ``[B_global, D_text]``.
        rows: this process's rows.
        nouns: ``[B_global, T, D_text]`` noun prompts; None while their loss does not count.
        words: ``[B_global, T]`` int64 places of the nouns in the word list, -1 where there is none.
    """
    if nouns is None or words is None:
        return TextSide(unit_length(model.text_projector(text_features)), rows)
    owners, places = (words >= 0).nonzero(as_tuple=True)
    both = torch.cat([text_features, nouns[owners, places]])
    embeddings = unit_length(model.text_projector(both))
    captions, prompts = torch.split(embeddings, [len(text_features), len(owners)])
    return TextSide(captions, rows, NounSide(prompts, owners, words[owners, places]))


def project_images(model: DualEncoder, image_features: Tensor, statistics: Statistics = "batch") -> Tensor:
    """L2-normalised embeddings ``[B_global, E]`` of pooled images, original or restored.

    Args:
        model: owner of the image projector.
        image_features: ``[B_global, D]`` pooled features of all processes' images.
        statistics: ``batch_only`` for restored images: inference sees original ones, so these alone make the
            running statistics of the projector's BatchNorm.
    """
    return unit_length(model.image_projector(image_features, statistics))


def original_loss(
    model: DualEncoder,
    config: MultiLabelConfig,
    features: Features,
    image_features: Tensor,
    text: TextSide,
    step: int,
) -> LossTerms:
    """The losses of original images over the global batch, with diagnostics.

    Args:
        model: owner of projectors and logit scales.
        config: weight and form of the multi-label loss.
        features: of this process, for the diagnostics.
        image_features: ``[B_global, D]`` pooled features of all processes' images.
        text: captions and nouns of all processes.
        step: optimizer step.
    """
    images = project_images(model, image_features)
    total = contrastive_loss(images, text.embeddings, model.scale, text.rows)
    terms = {"contrastive": total.detach()}
    if text.nouns is not None:
        loss = noun_loss(model, config, images, text.nouns, text.rows)
        total = total + config.weight.at(step) * loss
        terms["multi_label"] = loss.detach()
    return LossTerms(total, terms, diagnose(model, features))


@torch.no_grad()
def diagnose(model: DualEncoder, features: Features) -> dict[str, Tensor]:
    """Scalars that show early what goes wrong: segments in use per image, logit scales, nouns per caption."""
    scalars = {"segments_in_use": features["segments_in_use"].mean(), "logit_scale": model.scale.detach().clone()}
    if "noun_words" in features:
        scalars["multi_label_logit_scale"] = model.multi_label_scale.detach().clone()
        scalars["nouns_per_caption"] = (features["noun_words"] >= 0).sum(dim=1).float().mean()
    return scalars

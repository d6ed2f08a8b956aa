"""The baseline objective: contrast images with their captions."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.distributed import gather_together, local_rows
from mixreorg.models.dual_encoder import DualEncoder, Statistics
from mixreorg.objectives.losses import contrastive_loss
from mixreorg.objectives.objective import Features, Objective, segments_in_use
from mixreorg.objectives.terms import LossTerms


class GroupViTConfig(StrictConfig):
    """GroupViT's objective: the image-caption contrastive loss.

    The optional multi-label loss on the caption's nouns is not part of it; its authors report it as unstable at
    smaller batches.
    """

    kind: Literal["groupvit"] = "groupvit"


@dataclass(frozen=True)
class TextSide:
    """Caption embeddings of the global batch."""

    embeddings: Tensor
    """``[B_global, E]`` L2-normalised."""
    rows: slice
    """Rows of this process."""


class GroupViTObjective(Objective):
    """``loss = InfoNCE(image, caption)`` over the global batch."""

    def __init__(self, model: DualEncoder, config: GroupViTConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def features(self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int) -> Features:
        """``text`` ``[B, D_text]``, ``image`` ``[B, D]``, ``segments_in_use`` ``[B]``."""
        text = self.model.text_encoder(token_ids)
        encoding = self.model.image_encoder(images, keys)
        return {"text": text, "image": encoding.pooled, "segments_in_use": segments_in_use(encoding)}

    def loss(self, features: Features, step: int) -> LossTerms:
        """The contrastive loss."""
        everyone = gather_together(features, ("text", "image"))
        text = project_texts(self.model, everyone["text"], local_rows(len(features["text"])))
        loss = image_text_loss(self.model, everyone["image"], text)
        return LossTerms(loss, {"contrastive": loss.detach()}, diagnose(self.model, features))


def project_texts(model: DualEncoder, text_features: Tensor, rows: slice) -> TextSide:
    """Project the caption features of all processes.

    Features are gathered *before* the projector, so that its BatchNorm sees the global batch on every process,
    whatever the backend: that is synchronised BatchNorm, also where torch's own does not exist (CPU, MPS).

    Args:
        model: owner of the projector.
        text_features: ``[B_global, D_text]``.
        rows: this process's rows.
    """
    return TextSide(F.normalize(model.text_projector(text_features), dim=-1), rows)


def image_text_loss(
    model: DualEncoder, image_features: Tensor, text: TextSide, statistics: Statistics = "batch"
) -> Tensor:
    """InfoNCE of pooled images (original or restored) and captions over the global batch.

    Args:
        model: owner of the image projector and the logit scale.
        image_features: ``[B_global, D]`` pooled features of all processes' images.
        text: captions of all processes.
        statistics: ``batch_only`` for restored images: inference sees original ones, so these alone make the
            running statistics of the projector's BatchNorm.
    """
    images = F.normalize(model.image_projector(image_features, statistics), dim=-1)
    return contrastive_loss(images, text.embeddings, model.scale, text.rows)


@torch.no_grad()
def diagnose(model: DualEncoder, features: Features) -> dict[str, Tensor]:
    """Scalars that show collapse early: segments in use per image, and the logit scale."""
    return {"segments_in_use": features["segments_in_use"].mean(), "logit_scale": model.scale.detach().clone()}

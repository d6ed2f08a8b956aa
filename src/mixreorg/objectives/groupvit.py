"""The baseline objective: contrast images with their captions."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixreorg.config import StrictConfig
from mixreorg.distributed import gather, local_rows
from mixreorg.models.dual_encoder import DualEncoder, Statistics
from mixreorg.models.image_encoder import ImageEncoding
from mixreorg.objectives.losses import contrastive_loss
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


class GroupViTObjective(nn.Module):
    """``loss = InfoNCE(image, caption)`` over the global batch."""

    def __init__(self, model: DualEncoder, config: GroupViTConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int) -> LossTerms:
        """Compute the loss of one batch.

        Args:
            images: ``[B, 3, H, W]`` normalised, this process's share of the global batch.
            token_ids: ``[B, L]`` their captions.
            keys: ``[B]`` int64 keys of all noise of this step.
            step: optimizer step, for schedules; not used here.
        """
        text = embed_texts(self.model, token_ids)
        encoding = self.model.image_encoder(images, keys)
        loss = image_text_loss(self.model, encoding, text)
        return LossTerms(loss, {"contrastive": loss.detach()}, diagnose(self.model, encoding))


def embed_texts(model: DualEncoder, token_ids: Tensor) -> TextSide:
    """Embed this process's captions and gather all processes'.

    Features are gathered *before* the projector, so that its BatchNorm sees the global batch on every process,
    whatever the backend: that is synchronised BatchNorm, also where torch's own does not exist (CPU, MPS).
    """
    features = model.text_encoder(token_ids)
    embeddings = F.normalize(model.text_projector(gather(features)), dim=-1)
    return TextSide(embeddings, local_rows(len(features)))


def image_text_loss(
    model: DualEncoder, encoding: ImageEncoding, text: TextSide, statistics: Statistics = "batch"
) -> Tensor:
    """InfoNCE of pooled images (original or restored) and captions over the global batch.

    Args:
        model: owner of the image projector and the logit scale.
        encoding: this process's images.
        text: captions of all processes.
        statistics: ``batch_only`` for restored images: inference sees original ones, so these alone make the
            running statistics of the projector's BatchNorm.
    """
    images = F.normalize(model.image_projector(gather(encoding.pooled), statistics), dim=-1)
    return contrastive_loss(images, text.embeddings, model.scale, text.rows)


@torch.no_grad()
def diagnose(model: DualEncoder, encoding: ImageEncoding) -> dict[str, Tensor]:
    """Scalars that show collapse early: segments in use per image, and the logit scale."""
    used = encoding.patch_assignment.argmax(dim=1)
    num_segments = encoding.segment_tokens.shape[1]
    in_use = F.one_hot(used, num_segments).amax(dim=1).sum(dim=1).float().mean()
    return {"segments_in_use": in_use, "logit_scale": model.scale.detach().clone()}

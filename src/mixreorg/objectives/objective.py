"""What every training objective is: features of images and captions, and a loss over the features of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.image_encoder import ImageEncoding
from mixreorg.objectives.terms import LossTerms
from mixreorg.text.noun_prompts import NounPrompts

Features = dict[str, Tensor]
"""Everything that a loss is made of, by name; one row per image or mixed image, so that parts of a batch can be
joined."""


class Objective(nn.Module):
    """A loss in two steps, split where images stop being independent of each other.

    ``features`` encodes images and captions: rows depend on their own mixing group alone. ``loss`` holds all that
    joins the batch (gathering over processes, BatchNorm, contrast). A batch may therefore be encoded in chunks, each
    a whole number of mixing groups, and its loss still be exact.
    """

    model: DualEncoder

    def features(
        self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int, nouns: NounPrompts | None = None
    ) -> Features:
        """Encode a batch or a chunk of it.

        Args:
            images: ``[B, 3, H, W]`` normalised, this process's share of the global batch.
            token_ids: ``[B, L]`` their captions.
            keys: ``[B]`` int64 keys of all noise of this step.
            step: optimizer step, for schedules.
            nouns: prompts of the captions' nouns; None where no loss is made of them.
        """
        raise NotImplementedError

    def loss(self, features: Features, step: int) -> LossTerms:
        """Loss of this process's share of the global batch; features as :meth:`features` gives them."""
        raise NotImplementedError

    def forward(
        self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int, nouns: NounPrompts | None = None
    ) -> LossTerms:
        """Both in one; arguments as in :meth:`features`."""
        return self.loss(self.features(images, token_ids, keys, step, nouns), step)


@torch.no_grad()
def segments_in_use(encoding: ImageEncoding) -> Tensor:
    """``[B]`` number of final segments that are the best of at least one patch: 1 is collapse."""
    used = encoding.patch_assignment.argmax(dim=1)
    num_segments = encoding.segment_tokens.shape[1]
    return F.one_hot(used, num_segments).amax(dim=1).sum(dim=1).float()

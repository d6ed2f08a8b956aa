"""The multi-label loss (GroupViT, section 3.2): contrast images with prompts made of their captions' nouns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.distributed import gather, gather_together
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.losses import multi_label_loss
from mixreorg.objectives.objective import Features
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.text.templates import TemplateSet


class MultiLabelConfig(StrictConfig):
    """The multi-label loss on the nouns of the captions; it needs the word list ``data.nouns``.

    Its authors report it as unstable at smaller batches, so it is off unless a recipe asks.
    """

    weight: WeightSchedule = WeightSchedule(weight=0.0)
    """Weight of the loss; published: 1. 0 is off."""
    num_nouns: int = Field(3, ge=1)
    """T: nouns drawn from each caption, one prompt each. Captions with fewer have fewer positives."""
    templates: TemplateSet = "full"
    """Where the template of a prompt is drawn from: CLIP's 80 (``full``, published), 7 (``subset``), or always
    ``a photo of a {}.`` (``simple``)."""
    repeated_nouns: Literal["negative", "positive"] = "negative"
    """What a noun of one image is to another image that drew the same noun. ``negative``, as published: only an
    image's own prompts are its positives. ``positive``: all prompts with its nouns are, and all images with a prompt's
    noun are the prompt's; for small word lists, whose nouns are in every batch several times."""

    @property
    def is_on(self) -> bool:
        """Whether the loss counts at some time."""
        return self.weight.weight > 0


@dataclass(frozen=True)
class NounSide:
    """Noun prompts of the global batch, ``P`` in all."""

    embeddings: Tensor
    """``[P, E]`` L2-normalised."""
    owners: Tensor
    """``[P]`` int64 row of the image that each belongs to, ascending."""
    words: Tensor
    """``[P]`` int64 place in the word list."""


def check_scale(model: DualEncoder, config: MultiLabelConfig) -> None:
    """A model is built for the loss or not: it owns the logit scale.

    Raises:
        ValueError: the loss is on and the model has no scale for it.
    """
    if config.is_on and model.multi_label_logit_scale is None:
        raise ValueError("the multi-label loss needs a model with its logit scale: DualEncoderConfig(multi_label=True)")


def noun_features(model: DualEncoder, config: MultiLabelConfig, nouns: NounPrompts | None, step: int) -> Features:
    """Encode noun prompts while their loss counts: ``nouns`` ``[B, T, D_text]``, ``noun_words`` ``[B, T]``.

    Raises:
        ValueError: the loss counts, and there are no prompts.
    """
    if config.weight.at(step) == 0:
        return {}
    if nouns is None:
        raise ValueError("the multi-label loss needs noun prompts")
    features = model.text_encoder(nouns.token_ids.flatten(0, 1))
    return {"nouns": features.view(*nouns.words.shape, -1), "noun_words": nouns.words}


def gather_features(features: Features, names: Sequence[str]) -> Features:
    """Gather the features of these names and those of the nouns, where there are any, over all processes."""
    if "nouns" not in features:
        return gather_together(features, names)
    nouns, words = features["nouns"], features["noun_words"]
    everyone = gather_together({**features, "nouns": nouns.flatten(1)}, (*names, "nouns"))
    return {**everyone, "nouns": everyone["nouns"].view(-1, *nouns.shape[1:]), "noun_words": gather(words)}


def noun_loss(model: DualEncoder, config: MultiLabelConfig, images: Tensor, nouns: NounSide, rows: slice) -> Tensor:
    """The multi-label loss of this process's rows.

    Args:
        model: owner of the logit scale.
        config: says what repeated nouns are.
        images: ``[B_global, E]`` L2-normalised.
        nouns: prompts of all processes.
        rows: this process's rows.
    """
    if config.repeated_nouns == "positive":
        labels = torch.unique(nouns.words, return_inverse=True)[1]
    else:
        labels = torch.arange(len(nouns.words), device=nouns.words.device)
    return multi_label_loss(images, nouns.embeddings, nouns.owners, labels, model.multi_label_scale, rows)

"""MixReorg: reorganise the patches of mixed images, composed around the unchanged encoder.

Source: Cai et al., ICCV 2023, arXiv 2308.04829. The paper gives the three stages and the three losses; the exact forms
of mixing, combination and losses are this package's choices, each an option of ``MixReorgConfig``.
"""

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixreorg.distributed import local_rows
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.image_encoder import ImageEncoding, StageOneState
from mixreorg.models.layers import block_index
from mixreorg.objectives.groupvit import TextSide, original_loss, project_images, project_texts
from mixreorg.objectives.losses import (
    MISSING,
    contrastive_loss,
    mixed_loss,
    mixed_mask_accuracy,
    mixed_noun_loss,
    scaled_similarity,
    target_log_probability,
    text_to_patch_loss,
    unit_length,
)
from mixreorg.objectives.mixing import ProgressiveMixing
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import check_scale, gather_features, noun_features
from mixreorg.objectives.objective import Features, Objective, segments_in_use
from mixreorg.objectives.source_index import SourceIndex, draw_source_index, group_candidates
from mixreorg.objectives.terms import LossTerms
from mixreorg.randomness import keyed_uniform, make_key
from mixreorg.text.noun_prompts import NounPrompts


@dataclass(frozen=True)
class MixedBranch:
    """What the mixed branch leaves behind for its losses and for pictures."""

    encoding: ImageEncoding
    """Encoding of the M mixed images."""
    source: SourceIndex
    """Where every mixed patch came from: the mixed mask."""
    rows: Tensor
    """``[M]`` int64: which of the source index's mixed images were made."""

    @property
    def features(self) -> Features:
        """What the mixed losses are made of; see :meth:`MixReorgObjective.features`."""
        return {
            "mixed_segments": self.encoding.segment_tokens,
            "mixed_assignment": self.encoding.patch_assignment,
            "mixed_place": self.source.group_targets[self.rows],
        }


class MixReorgObjective(Objective):
    """``L = L_con(original) + w_res L_con(restored) + w_mix L_seg(mixed)``.

    If on, also ``w_txt L_txt(mixed)``, the mixed masks from the texts' side, and GroupViT's multi-label loss.

    The model inside is a plain GroupViT and is all that inference needs. Parameters of learned combinations
    belong to this module.
    """

    def __init__(self, model: DualEncoder, config: MixReorgConfig) -> None:
        super().__init__()
        check_scale(model, config.multi_label)
        self.model = model
        self.config = config
        image = model.config.image
        depth = image.depths[0]
        if config.num_contextual_blocks > depth:
            raise ValueError(f"num_contextual_blocks {config.num_contextual_blocks} exceeds stage 1's depth {depth}")
        # The block right after mixing sees X_mix = Mix(X_orig) already: combining starts with the next one.
        self.progressive = nn.ModuleList(
            ProgressiveMixing(config.combine, image.width, image.num_heads)
            for _ in range(max(depth - config.num_contextual_blocks - 1, 0))
        )

    def features(
        self, images: Tensor, token_ids: Tensor, keys: Tensor, step: int, nouns: NounPrompts | None = None
    ) -> Features:
        """Those of GroupViT, and while their losses count:

        ``mixed_segments`` ``[M, S, D]``, ``mixed_assignment`` ``[M, S, N]``, ``mixed_place`` ``[M, N]`` (place of
        each patch's source in its group), ``restored`` ``[B, D]``; for weights by relevance also
        ``original_segments`` and ``original_assignment``.
        """
        mixed_weight, restored_weight = self.config.mixed.at(step), self.config.restored.at(step)
        needs_mixed = mixed_weight > 0 or self.config.text_to_patch.at(step) > 0
        features = {"text": self.model.text_encoder(token_ids)}
        features |= noun_features(self.model, self.config.multi_label, nouns, step)
        mixed, restored = None, None
        if not needs_mixed and restored_weight == 0:
            original = self.model.image_encoder(images, keys)
        else:
            original, mixed, restored = self.branches(images, keys, with_restored=restored_weight > 0)
        features |= {"image": original.pooled, "segments_in_use": segments_in_use(original)}
        if mixed is not None and needs_mixed:
            features |= mixed.features
            if self.config.patch_weights == "relevance" and mixed_weight > 0:
                features["original_segments"] = original.segment_tokens.detach()
                features["original_assignment"] = original.patch_assignment.detach()
        if restored is not None:
            features["restored"] = restored.pooled
        return features

    def loss(self, features: Features, step: int) -> LossTerms:
        """The weighted sum of the losses whose features are there."""
        names = ("text", "image", "restored") if "restored" in features else ("text", "image")
        everyone = gather_features(features, names)
        rows = local_rows(len(features["text"]))
        text = project_texts(self.model, everyone["text"], rows, everyone.get("nouns"), everyone.get("noun_words"))
        # Before the original images' loss, which moves the running statistics that mixed segments are projected by.
        mixed = self._mixed_terms(features, text, step) if "mixed_segments" in features else None
        original = original_loss(self.model, self.config.multi_label, features, everyone["image"], text, step)
        total, terms, diagnostics = original.total, original.terms, original.diagnostics
        if mixed is not None:
            total = total + mixed.total
            terms |= mixed.terms
            diagnostics |= mixed.diagnostics
        if "restored" in everyone:
            images = project_images(self.model, everyone["restored"], "batch_only")
            loss = contrastive_loss(images, text.embeddings, self.model.scale, text.rows)
            total = total + self.config.restored.at(step) * loss
            terms["restored"] = loss.detach()
        return LossTerms(total, terms, diagnostics)

    def with_every_mixed_image(self) -> "MixReorgObjective":
        """The same modules, making every mixed image of a group: to measure and to look at."""
        other = copy.copy(self)
        other.config = self.config.updated(mixed_per_group=None)
        return other

    def branches(
        self, images: Tensor, keys: Tensor, *, with_restored: bool
    ) -> tuple[ImageEncoding, MixedBranch, ImageEncoding | None]:
        """Run the original, the mixed and, if asked, the restored branch.

        Args:
            images: ``[B, 3, H, W]`` normalised.
            keys: ``[B]`` int64.
            with_restored: whether the restored branch is wanted.
        """
        encoder = self.model.image_encoder
        config = self.config
        first = config.num_contextual_blocks
        context = encoder.advance(encoder.begin(images), 0, first, keys)
        source = draw_source_index(keys, context.grid, config.group_size, config.block)
        rows = self._mixed_rows(len(images), keys.device)
        # Original images first, mixed ones behind them: one batched call per shared block from here on.
        joined = self._start_mixed(context, source, rows)
        both_keys = torch.cat([keys, keys[rows] ^ make_key("mixed")])
        for index in range(first, encoder.num_stage_one_blocks):
            if index > first and config.combine != "none":
                joined = self._strengthen(joined, source, rows, index - first - 1, keys)
            joined = encoder.advance(joined, index, index + 1, both_keys)
        joined = encoder.with_group_tokens(joined)
        if with_restored:
            joined = self._add_restored(joined, source)
            both_keys = torch.cat([both_keys, keys ^ make_key("restored")])
        sizes = [len(images), len(rows)] + ([len(images)] if with_restored else [])
        encodings = encoder.group(joined, both_keys).split(sizes)
        mixed = MixedBranch(encodings[1], source, rows)
        return encodings[0], mixed, encodings[2] if with_restored else None

    def _mixed_terms(self, features: Features, text: TextSide, step: int) -> LossTerms:
        """The weighted sum of both sides of the mixed masks, of which one may be off, with mixed-mask accuracy."""
        mixed_weight, text_weight = self.config.mixed.at(step), self.config.text_to_patch.at(step)
        terms, total = {}, torch.zeros((), device=features["mixed_segments"].device)
        if mixed_weight > 0:
            loss, accuracy = self.mixed_loss(features, text)
            total = total + mixed_weight * loss
            terms["mixed"] = loss.detach()
        else:
            accuracy = self.mask_accuracy(features, text)
        if text_weight > 0:
            loss = self.text_to_patch_loss(features, text)
            total = total + text_weight * loss
            terms["text_to_patch"] = loss.detach()
        return LossTerms(total, terms, {"mixed_mask_accuracy": accuracy})

    def mixed_loss(self, features: Features, text: TextSide) -> tuple[Tensor, Tensor]:
        """Loss of the mixed masks and mixed-mask accuracy (detached), both scalars.

        Args:
            features: of :meth:`features`.
            text: captions of all processes, and nouns where they are the candidates.
        """
        assignment, place = features["mixed_assignment"], features["mixed_place"]
        segments, candidates = self._mixed_segments(features, text)
        similarity = self._to_captions(segments, text)
        of_group = _group_similarity(similarity, candidates, text.rows.start)
        accuracy = mixed_mask_accuracy(assignment, of_group, place)
        if self.config.candidates == "nouns":
            return self.noun_loss(assignment, segments, candidates + text.rows.start, place, text), accuracy
        # Row of this process that each mixed patch came from.
        source = candidates[:, :1] + place
        weights = self.relevance(features, text, source) if self.config.patch_weights == "relevance" else None
        if self.config.candidates == "group":
            similarity, targets = of_group, place
        else:
            targets = source + text.rows.start
        form, counted = self.config.mixed_form, self.config.counted_patches
        return mixed_loss(assignment, similarity, targets, form, weights, counted), accuracy

    @torch.no_grad()
    def mask_accuracy(self, features: Features, text: TextSide) -> Tensor:
        """Mixed-mask accuracy alone, a scalar: it asks for captions whatever the loss has as candidates.

        Args:
            features: of a :class:`MixedBranch`.
            text: captions of all processes.
        """
        segments, candidates = self._mixed_segments(features, text)
        of_group = _group_similarity(self._to_captions(segments, text), candidates, text.rows.start)
        return mixed_mask_accuracy(features["mixed_assignment"], of_group, features["mixed_place"])

    def text_to_patch_loss(self, features: Features, text: TextSide) -> Tensor:
        """Loss of the mixed masks from the texts' side, a scalar; arguments as in :meth:`mixed_loss`."""
        segments, candidates = self._mixed_segments(features, text)
        sources = candidates + text.rows.start
        if self.config.text_to_patch_texts == "nouns":
            embeddings, named = self._nouns(text)
            if len(embeddings) == 0:
                return 0.0 * segments.sum()
            similarity, named = scaled_similarity(segments, embeddings, self.model.scale), named[sources]
        else:
            similarity = self._to_captions(segments, text)
            named = F.one_hot(sources, len(text.embeddings)).bool()
        return text_to_patch_loss(features["mixed_assignment"], similarity, named, features["mixed_place"])

    def _mixed_segments(self, features: Features, text: TextSide) -> tuple[Tensor, Tensor]:
        """Embeddings ``[M, S, E]`` of mixed segments, and this process's rows of their sources, ``[M, K]``."""
        batch = text.rows.stop - text.rows.start
        device = features["mixed_segments"].device
        candidates = group_candidates(batch, self.config.group_size, device)[self._mixed_rows(batch, device)]
        return self.embed_segments(features["mixed_segments"]), candidates

    def _to_captions(self, segments: Tensor, text: TextSide) -> Tensor:
        """Scaled similarities ``[M, S, T]`` of segments ``[M, S, E]`` with the captions of all processes."""
        embeddings = text.embeddings.detach() if self.config.detach_text else text.embeddings
        return scaled_similarity(segments, embeddings, self.model.scale)

    def noun_loss(self, assignment: Tensor, segments: Tensor, sources: Tensor, place: Tensor, text: TextSide) -> Tensor:
        """Loss of the mixed masks over the nouns of the global batch, each in the first of its prompts.

        Nouns compete as classes do in inference: in one softmax, with the model's own scale.

        Args:
            assignment: ``[M, S, N]``.
            segments: ``[M, S, E]`` L2-normalised embeddings.
            sources: ``[M, K]`` int64 global rows of the images that each mixed image is made of.
            place: ``[M, N]`` int64, which of these each patch came from.
            text: captions and nouns of all processes.
        """
        embeddings, named = self._nouns(text)
        if len(embeddings) == 0:
            return 0.0 * segments.sum()
        similarity = scaled_similarity(segments, embeddings, self.model.scale)
        return mixed_noun_loss(assignment, similarity, named[sources], place)

    def _nouns(self, text: TextSide) -> tuple[Tensor, Tensor]:
        """Embeddings ``[W, E]`` of the global batch's nouns, and which each caption has, ``[B_global, W]`` bool."""
        assert text.nouns is not None
        words, word = torch.unique(text.nouns.words, return_inverse=True)
        position = torch.arange(len(word), device=word.device)
        first = position.new_full(words.shape, len(word)).scatter_reduce(0, word, position, "amin")
        embeddings = text.nouns.embeddings[first]
        named = torch.zeros(len(text.embeddings), len(words), dtype=torch.bool, device=word.device)
        named[text.nouns.owners, word] = True
        return embeddings.detach() if self.config.detach_text else embeddings, named

    @torch.no_grad()
    def relevance(self, features: Features, text: TextSide, source: Tensor) -> Tensor:
        """``[M, N]``: probability of its own caption that each mixed patch has in its original image, of mean 1."""
        assignment = features["original_assignment"].float()
        segments = self.embed_segments(features["original_segments"])
        log_probability = scaled_similarity(segments, text.embeddings, self.model.scale).log_softmax(dim=-1)
        rows = torch.arange(len(assignment), device=source.device) + text.rows.start
        own = rows[:, None].expand(-1, source.shape[1])
        relevance = target_log_probability(assignment, log_probability, own).exp()
        relevance = relevance / relevance.mean(dim=1, keepdim=True).clamp(min=1e-6)
        return relevance.gather(0, source)

    def embed_segments(self, segment_tokens: Tensor) -> Tensor:
        """L2-normalised embeddings ``[M, S, E]`` of mixed segments, projected as inference projects segments."""
        return unit_length(self.model.image_projector(segment_tokens, "running"))

    def _mixed_rows(self, batch: int, device: torch.device) -> Tensor:
        """``[M]`` int64: the mixed images that are made, the first few of each group."""
        index = torch.arange(batch, device=device)
        return index[index % self.config.group_size < (self.config.mixed_per_group or self.config.group_size)]

    def _start_mixed(self, context: StageOneState, source: SourceIndex, rows: Tensor) -> StageOneState:
        """Contextual mixing: append the mixed images to the originals."""
        tokens = context.patch_tokens
        if self.config.num_contextual_blocks > self.model.config.image.num_local_blocks:
            tokens = self.context(tokens, source)
        mixed = StageOneState(_select(source.mix(tokens), rows), context.grid)
        if context.group_tokens is not None:
            if self.config.mixed_group_tokens == "mean":
                mean = _select(_group_mean(context.group_tokens, source), rows)
                mixed = replace(mixed, tokens=torch.cat([mixed.tokens, mean], dim=1))
            else:
                mixed = self.model.image_encoder.with_group_tokens(mixed)
        return replace(context, tokens=torch.cat([context.tokens, mixed.tokens]))

    def _strengthen(
        self, joined: StageOneState, source: SourceIndex, rows: Tensor, index: int, keys: Tensor
    ) -> StageOneState:
        """Progressive mixing: give the mixed tokens the original features of the same depth."""
        original, mixed = torch.split(joined.patch_tokens, [len(keys), len(rows)])
        combined = self.progressive[index](mixed, _select(source.mix(self.context(original, source)), rows))
        if self.config.context_dropout > 0:
            unit = block_index(joined.grid, self.config.block, keys.device)
            drawn = keyed_uniform(keys[rows], f"context_dropout.{index}", (int(unit[-1]) + 1,))
            combined = torch.where((drawn < self.config.context_dropout)[:, unit, None], mixed, combined)
        return joined.with_patches(torch.cat([original, combined]))

    def context(self, tokens: Tensor, source: SourceIndex) -> Tensor:
        """Original tokens ``[B, N, D]`` that carry context, as they are mixed: perhaps constant, without a mark."""
        if self.config.detach_context:
            tokens = tokens.detach()
        if self.config.share_mean:
            mean = tokens.mean(dim=1, keepdim=True)
            tokens = tokens - mean + _group_mean(mean, source)
        return tokens

    def _add_restored(self, joined: StageOneState, source: SourceIndex) -> StageOneState:
        """Mixing restoration: append the images put together again from mixed patches."""
        restored = source.restore(joined.patch_tokens.chunk(2)[1])
        assert joined.group_tokens is not None
        group_tokens, mixed_group_tokens = joined.group_tokens.chunk(2)
        if self.config.restored_group_tokens == "mean":
            group_tokens = _group_mean(mixed_group_tokens, source)
        return replace(joined, tokens=torch.cat([joined.tokens, torch.cat([restored, group_tokens], dim=1)]))


def _select(tokens: Tensor, rows: Tensor) -> Tensor:
    """The tokens of some images; all of them without a copy."""
    return tokens if len(rows) == len(tokens) else tokens.index_select(0, rows)


def _group_mean(tokens: Tensor, source: SourceIndex) -> Tensor:
    """Mean of tokens ``[B, G, D]`` over the images of each mixing group, given to all of its images."""
    group = torch.arange(len(tokens), device=tokens.device) // source.group_size
    same = (group[:, None] == group[None, :]).to(tokens.dtype)
    return torch.einsum("mb,bgd->mgd", same / same.sum(dim=1, keepdim=True), tokens)


def _group_similarity(similarity: Tensor, candidates: Tensor, first_row: int) -> Tensor:
    """Similarities ``[M, S, K]`` with the texts of each mixed image's own group.

    A smaller last group lacks some of its K candidates: those are put out of the question.
    """
    index = (candidates + first_row)[:, None, :].expand(-1, similarity.shape[1], -1)
    repeated = torch.zeros_like(candidates, dtype=torch.bool)
    repeated[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
    return similarity.gather(2, index).masked_fill(repeated[:, None, :], MISSING)

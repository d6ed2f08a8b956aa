"""Assignments and embeddings of windows to class scores per pixel: GroupViT's zero-shot decoding.

Within a window a pixel's scores depend on its segment alone, so the scores are kept as one row per segment
and a map of segments, a few hundred kilobytes where class maps of 1,000 classes would take a gigabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class WindowScores:
    """Class scores of windows of equal size, in compact form."""

    segment_map: Tensor
    """``[B, H, W]`` int64: the segment of each pixel."""
    segment_scores: Tensor
    """``[B, S, C]`` float32, or ``[B, S, 1 + C]`` background first: scores of each segment's pixels."""

    def expand(self) -> Tensor:
        """Scores per pixel ``[B, C, H, W]``, or ``[B, 1 + C, H, W]`` with background."""
        batch, height, width = self.segment_map.shape
        num_segments, channels = self.segment_scores.shape[1:]
        first = torch.arange(batch, device=self.segment_map.device).view(-1, 1, 1) * num_segments
        # Whole rows, a pixel's channels side by side: several times faster than to gather for each channel.
        rows = self.segment_scores.flatten(0, 1).index_select(0, (self.segment_map + first).flatten())
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join windows of equal size that were decoded in several batches, in the given order."""
        return cls(
            segment_map=torch.cat([part.segment_map for part in parts]),
            segment_scores=torch.cat([part.segment_scores for part in parts]),
        )


@torch.no_grad()
def decode_windows(
    soft_assignment: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
    segment_embeddings: Tensor,
    image_embeddings: Tensor,
    class_embeddings: Tensor,
    owners: Tensor,
    *,
    logit_scale: float,
    shortlist: int = 5,
    background_threshold: float | None = None,
    decoding: Literal["groupvit", "softmax"] = "groupvit",
    segment_map: Tensor | None = None,
    num_negatives: int = 0,
    absent: Sequence[int] = (),
) -> WindowScores:
    """Decode windows by the zero-shot protocol of GroupViT (Xu et al., CVPR 2022).

    1. The soft assignment is resized bilinearly to the window; a pixel takes its arg max segment.
    2. Segment logits are ``logit_scale`` times cosine; ``P0`` is their softmax over all classes.
    3. Only the ``min(shortlist, C)`` classes that fit the image embedding best are kept; ``P`` is the softmax
       over those, times ``P0``. All other classes score exactly 0.
    4. A pixel's scores are the row of ``P`` of its segment. With background, ``t = min(background_threshold,
       max P)`` over the window's segments and classes; where the best score is below ``t`` the background
       scores 1, else 0.

    A class with several phrases takes the largest of its phrases' logits, before every softmax, for segments
    and for the shortlist alike. A further synonym can therefore only raise its class, and thresholds keep the
    meaning they have with one phrase per class. (SCLIP takes the maximum after a softmax over all phrases;
    there, two synonyms that fit equally well halve each other, and the product ``P`` quarters.)

    Args:
        soft_assignment: ``[B, S, N]`` product of the soft assignment maps, softmax over the segments.
        grid: height and width ``(h, w)`` of the patch grid, ``h * w = N``.
        size: height and width of the windows in pixels.
        segment_embeddings: ``[B, S, E]``, L2-normalised.
        image_embeddings: ``[B, E]``, L2-normalised.
        class_embeddings: ``[P, E]`` phrases, L2-normalised.
        owners: ``[P]`` int64, the class of each phrase; no class from 0 to the largest is left out.
        logit_scale: exponentiated and clamped.
        shortlist: classes kept per window.
        background_threshold: None for no background.
        decoding: ``softmax`` replaces steps 2 and 3 by one softmax over all phrases, as protocols of CLIP's
            family have it; a class takes the largest probability of its phrases.
        segment_map: ``[B, H, W]`` of an earlier decoding of the same windows, which step 1 would give again.
        num_negatives: how many of the last classes are negatives, see :func:`score_segments`.
        absent: indices of classes that are known to be absent, see :func:`score_segments`.

    Raises:
        ValueError: shapes or indices that do not fit each other.
    """
    _check(soft_assignment, grid, class_embeddings, owners, shortlist)
    class_EP, owners = class_embeddings.float().T, owners.to(class_embeddings.device)
    # At a scale of up to 100, bfloat16 products would blur neighbouring classes into one.
    with torch.autocast(class_EP.device.type, enabled=False):
        phrase_logits_BSP = segment_embeddings.float() @ class_EP * logit_scale
        image_logits_BP = image_embeddings.float() @ class_EP * logit_scale
    if decoding == "softmax":
        scores = largest_of_phrases(phrase_logits_BSP.softmax(dim=-1), owners)
        scores[..., list(absent)] = 0
    else:
        scores = score_segments(
            largest_of_phrases(phrase_logits_BSP, owners),
            largest_of_phrases(image_logits_BP, owners),
            shortlist,
            num_negatives,
            absent,
        )
    if background_threshold is not None:
        scores = with_background(scores, background_threshold)
    if segment_map is None:
        segment_map = map_segments(soft_assignment, grid, size)
    return WindowScores(segment_map=segment_map, segment_scores=scores)


def score_segments(
    logits_BSC: Tensor, image_logits_BC: Tensor, shortlist: int, num_negatives: int = 0, absent: Sequence[int] = ()
) -> Tensor:
    """Steps 2 and 3 of decoding: scores ``[B, S, C]``, without background, from the classes' logits.

    Args:
        logits_BSC: of the segments.
        image_logits_BC: of the windows.
        shortlist: classes kept per window.
        num_negatives: how many of the last classes are negatives. They have a shortlist of their own, so that they
            compete for pixels but push no wanted class off the shortlist: in a segment, the scores of two wanted
            classes keep the ratio they have without negatives.
        absent: indices of classes that are known to be absent. They score 0 and take no place on the shortlist, but
            stay in ``P0``, so that scores of the others keep the meaning that thresholds rely on.
    """
    if absent:
        image_logits_BC = image_logits_BC.clone()
        image_logits_BC[:, list(absent)] = -torch.inf
    wanted = logits_BSC.shape[-1] - num_negatives
    parts = [shortlisted(image_logits_BC[:, :wanted], shortlist)]
    if num_negatives:
        parts.append(shortlisted(image_logits_BC[:, wanted:], shortlist))
    dropped_B1C = ~(torch.cat(parts, dim=-1) if num_negatives else parts[0])[:, None]
    if absent:
        dropped_B1C[..., list(absent)] = True
    scores_BSC = logits_BSC.masked_fill(dropped_B1C, -torch.inf).softmax(dim=-1) * logits_BSC.softmax(dim=-1)
    # Where every class is absent, the softmax over none of them is not a number.
    return scores_BSC.masked_fill(dropped_B1C, 0.0) if absent else scores_BSC


def map_segments(soft_assignment: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Segment of each pixel ``[B, H, W]`` int64, from soft assignments ``[B, S, N]`` on a patch ``grid``."""
    maps_BShw = soft_assignment.float().reshape(*soft_assignment.shape[:2], *grid)
    # The arg max comes after the resize: segment borders are then smooth, not steps of a patch.
    resized_BSHW = functional.interpolate(maps_BShw, size=size, mode="bilinear", align_corners=False)
    # The index of max is that of argmax, the first of equals, and many times faster on CPUs.
    return resized_BSHW.max(dim=1).indices


def largest_of_phrases(values: Tensor, owners: Tensor) -> Tensor:
    """Largest value of each class's phrases: ``[..., P]`` to ``[..., C]``."""
    num_classes = int(owners.max()) + 1
    largest = values.new_full((*values.shape[:-1], num_classes), -torch.inf)
    return largest.scatter_reduce(-1, owners.expand_as(values), values, "amax")


def shortlisted(image_logits_BC: Tensor, shortlist: int) -> Tensor:
    """Mask ``[B, C]`` of the best classes; a stable sort settles ties by list order on every device."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch.onnx takes time to import
        # ONNX has no stable sort, but its TopK settles ties by list order, which torch's does not.
        best = image_logits_BC.topk(min(shortlist, image_logits_BC.shape[-1]), dim=-1).indices
    else:
        best = image_logits_BC.argsort(dim=-1, descending=True, stable=True)[:, :shortlist]
    # A tensor of ones instead of a number, which the exporter to ONNX would not take.
    return torch.zeros_like(image_logits_BC, dtype=torch.bool).scatter(
        -1, best, torch.ones_like(best, dtype=torch.bool)
    )


def with_background(scores_BSC: Tensor, background_threshold: float) -> Tensor:
    """Put the background in front of class scores: ``[B, S, C]`` to ``[B, S, 1 + C]``, by step 4 of decoding."""
    threshold_B11 = scores_BSC.amax(dim=(1, 2), keepdim=True).clamp(max=background_threshold)
    background_BS1 = (scores_BSC.amax(dim=-1, keepdim=True) < threshold_B11).to(scores_BSC.dtype)
    return torch.cat([background_BS1, scores_BSC], dim=-1)


def _check(
    soft_assignment: Tensor,
    grid: tuple[int, int],
    class_embeddings: Tensor,
    owners: Tensor,
    shortlist: int,
) -> None:
    if soft_assignment.shape[-1] != grid[0] * grid[1]:
        raise ValueError(f"an assignment of {soft_assignment.shape[-1]} patches does not fit the grid {grid}")
    if owners.shape != class_embeddings.shape[:1] or not len(owners):
        raise ValueError(f"owners {tuple(owners.shape)} must name the class of each of the P > 0 phrases")
    if int(owners.min()) < 0 or len(torch.unique(owners)) != int(owners.max()) + 1:
        raise ValueError("owners must use every class from 0 to its largest value")
    if shortlist < 1:
        raise ValueError(f"shortlist {shortlist} must be at least 1")

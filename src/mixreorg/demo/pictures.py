"""What the demonstration shows: mixed patches with their masks, and segmented scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mixreorg.data.pairs import Pair
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.split import VOID
from mixreorg.models.dual_encoder import DualEncoder, trim
from mixreorg.models.pixels import normalise, to_uint8
from mixreorg.objectives.losses import mixed_probability, scaled_similarity
from mixreorg.objectives.mixreorg import MixedBranch, MixReorgObjective
from mixreorg.palette import Color, distinct_colors
from mixreorg.randomness import sample_keys
from mixreorg.segment.class_maps import map_segments
from mixreorg.segment.drawing import draw_overlay, draw_segments
from mixreorg.segment.photos import read_photo
from mixreorg.segment.segmenter import Segmenter

_MIN_SIDE = 256
"""Smaller pictures are enlarged by a whole factor up to this side, so that their pixels stay visible."""
_OUTLINE = 4
LabelMap = npt.NDArray[np.integer]


@dataclass(frozen=True)
class MixingRow:
    """One image of a mixing group and the mixed image at the same place; all pictures are RGB of one size."""

    caption: str
    color: Color
    """Stands for this image in the masks of its group."""
    original: Image.Image
    mixed: Image.Image
    source_mask: Image.Image
    predicted_mask: Image.Image
    restored: Image.Image
    accuracy: float
    """Share of the mixed image's patches whose predicted source is right, 0 to 1."""


@dataclass(frozen=True)
class LegendName:
    """A class that occurs in the prediction or the truth of a scene."""

    name: str
    color: Color
    is_true: bool
    is_predicted: bool


@dataclass(frozen=True)
class SegmentationRow:
    """One scene and what became of it; all pictures are RGB of one size."""

    stem: str
    photo: Image.Image
    groups: Image.Image
    prediction: Image.Image
    truth: Image.Image
    legend: tuple[LegendName, ...]
    """True classes first."""


@torch.no_grad()
def mixing_groups(objective: MixReorgObjective, pairs: Sequence[Pair], seed: int = 0) -> list[list[MixingRow]]:
    """Mix images as in training and show where the model believes every patch came from.

    A patch's predicted source is the arg max, over the texts of its group, of ``sum_s A[s, n] softmax_t(scale *
    <segment_s, text_t>)``: the quantity that the mixed-mask accuracy counts.

    Args:
        objective: the trained model inside the run's objective; it is put into evaluation mode.
        pairs: images with captions; every K consecutive ones are mixed (a smaller last group among itself).
            Images of other sizes than the model's training images are resized to them.
        seed: decides the source index.

    Returns:
        The groups, each with a row per image.

    Raises:
        MixreorgError: no pairs.
    """
    if not pairs:
        raise MixreorgError("the mixing gallery needs images with captions, and none were given")
    objective = objective.eval().with_every_mixed_image()
    model = objective.model
    device = model.logit_scale.device
    pixels = torch.stack([_training_pixels(pair.image, model) for pair in pairs])
    keys = sample_keys(seed, torch.arange(len(pairs))).to(device)
    _, mixed, _ = objective.branches(normalise(pixels.to(device)), keys, with_restored=False)
    patch_size = model.config.image.patch_size
    patches = _to_patches(pixels, patch_size).to(device)
    mixed_patches = mixed.source.mix(patches)
    restored_patches = mixed.source.restore(mixed_patches)
    size = objective.config.group_size
    groups = []
    for start in range(0, len(pairs), size):
        rows = slice(start, min(start + size, len(pairs)))
        views = [_from_patches(part[rows], mixed.encoding.grid) for part in (patches, mixed_patches, restored_patches)]
        targets = (mixed.source.source[rows] - start).cpu()
        predicted = _predict_sources(objective, mixed, rows, [pair.caption for pair in pairs[rows]])
        masks = [_to_label_maps(labels, mixed.encoding.grid, patch_size) for labels in (targets, predicted)]
        accuracies = (predicted == targets).float().mean(dim=1).tolist()
        groups.append(_mixing_rows(pairs[rows], views, masks, accuracies))
    return groups


def segmentation_rows(
    segmenter: Segmenter, split: BenchmarkSplit, stems: Sequence[str], threshold: float
) -> list[SegmentationRow]:
    """Segment scenes of a split and draw them beside their truth.

    Args:
        segmenter: model and protocol; the protocol's background threshold is replaced.
        split: photos, masks, class names.
        stems: which photos.
        threshold: background threshold, as chosen on a validation split.

    Raises:
        MixreorgError: an unreadable photo or mask.
    """
    whole = Segmenter(segmenter.model, segmenter.protocol.updated(whole=True))
    with_background = Segmenter(segmenter.model, segmenter.protocol.updated(background_threshold=threshold))
    classes = split.classes
    colors: tuple[Color, ...] = ((0, 0, 0), *distinct_colors(len(classes)))
    rows = []
    for stem in stems:
        photo = read_photo(split.photo_path(stem))
        encoding = whole.encode([photo]).encoding
        segments = map_segments(encoding.patch_assignment, encoding.grid, (photo.height, photo.width))[0]
        predicted, truth = with_background(photo, classes).label_map, split.read_mask(stem)
        rows.append(
            SegmentationRow(
                stem=stem,
                photo=_enlarge(photo),
                groups=draw_segments(photo, segments.cpu().numpy()),
                prediction=_draw_labels(photo, predicted, colors),
                truth=_draw_labels(photo, truth, colors),
                legend=_legend(split.class_names, colors, truth, predicted),
            )
        )
    return rows


def spread_stems(split: BenchmarkSplit, count: int = 12) -> tuple[str, ...]:
    """Up to ``count`` stems at equal distances over a split: a choice that no result can influence."""
    count = min(count, len(split.stems))
    return tuple(split.stems[index * len(split.stems) // count] for index in range(count))


def _training_pixels(image: Image.Image, model: DualEncoder) -> Tensor:
    """``[3, S, S]`` uint8 at the size of the training images."""
    side = model.config.image.image_size
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return to_uint8(image.convert("RGB"))


def _to_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """``[B, 3, H, W]`` to ``[B, N, 3 * patch_size ** 2]``, patches in row-major order."""
    batch, channels, height, width = pixels.shape
    grid = pixels.view(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    # [B, 3, h, p, w, p] -> [B, h, w, 3, p, p] -> [B, N, 3 * p * p]
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _from_patches(patches: Tensor, grid: tuple[int, int]) -> list[Image.Image]:
    """Undo :func:`_to_patches`, into pictures."""
    patch_size = round((patches.shape[2] / 3) ** 0.5)
    # [B, h, w, 3, p, p] -> [B, h, p, w, p, 3] -> [B, H, W, 3]
    blocks = patches.view(len(patches), *grid, 3, patch_size, patch_size).permute(0, 1, 4, 2, 5, 3)
    return [Image.fromarray(array) for array in blocks.flatten(3, 4).flatten(1, 2).cpu().numpy()]


def _predict_sources(objective: MixReorgObjective, mixed: MixedBranch, rows: slice, captions: Sequence[str]) -> Tensor:
    """``[K, N]`` int64: position in the group of the source that each patch is given to."""
    model = objective.model
    assert model.tokenizer is not None
    token_ids = trim(model.tokenizer.encode(captions), model.config.text.end_id)
    texts = model.encode_text(token_ids.to(model.logit_scale.device))
    segments = objective.embed_segments(mixed.encoding.segment_tokens[rows])
    similarity = scaled_similarity(segments, texts, model.scale)
    return mixed_probability(mixed.encoding.patch_assignment[rows], similarity).argmax(dim=-1).cpu()


def _to_label_maps(labels: Tensor, grid: tuple[int, int], patch_size: int) -> LabelMap:
    """Labels of patches ``[K, N]`` to labels of pixels ``[K, H, W]``."""
    maps: LabelMap = labels.view(len(labels), *grid).numpy()
    return maps.repeat(patch_size, axis=1).repeat(patch_size, axis=2)


def _mixing_rows(
    pairs: Sequence[Pair], views: list[list[Image.Image]], masks: list[LabelMap], accuracies: list[float]
) -> list[MixingRow]:
    colors = distinct_colors(len(pairs))
    palette = np.asarray(colors, dtype=np.uint8)
    originals, mixed, restored = views
    targets, predicted = masks
    rows = []
    for index, pair in enumerate(pairs):
        own = np.full_like(targets[index], index)
        rows.append(
            MixingRow(
                caption=pair.caption,
                color=colors[index],
                original=_outline(originals[index], own, palette),
                mixed=_outline(mixed[index], targets[index], palette),
                source_mask=_enlarge(Image.fromarray(palette[targets[index]])),
                predicted_mask=_enlarge(Image.fromarray(palette[predicted[index]])),
                restored=_outline(restored[index], own, palette),
                accuracy=accuracies[index],
            )
        )
    return rows


def _outline(picture: Image.Image, labels: LabelMap, palette: npt.NDArray[np.uint8]) -> Image.Image:
    """Enlarge a picture and line every region of equal labels, inside its edge, with its label's colour."""
    picture = _enlarge(picture)
    factor = picture.width // labels.shape[1]
    labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = labels.shape
    padded = np.pad(labels, _OUTLINE, constant_values=-1)
    edge = np.zeros(labels.shape, dtype=np.bool_)
    reach = range(-_OUTLINE, _OUTLINE + 1)
    for dy, dx in ((dy, dx) for dy in reach for dx in reach):
        top, left = _OUTLINE + dy, _OUTLINE + dx
        edge |= padded[top : top + height, left : left + width] != labels
    picture.paste(Image.fromarray(palette[labels]), mask=Image.fromarray(edge))
    return picture


def _enlarge(picture: Image.Image) -> Image.Image:
    factor = max(1, _MIN_SIDE // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _draw_labels(photo: Image.Image, labels: LabelMap, colors: Sequence[Color]) -> Image.Image:
    """Class colours over the photo in pale grey; background and void stay untinted."""
    pale = Image.blend(photo.convert("L").convert("RGB"), Image.new("RGB", photo.size, "white"), 0.6)
    return draw_overlay(
        pale, np.where(labels == VOID, 0, labels), colors, clear_index=0, opacity=0.8, min_side=_MIN_SIDE
    )


def _legend(
    names: Sequence[str], colors: Sequence[Color], truth: LabelMap, predicted: LabelMap
) -> tuple[LegendName, ...]:
    true, found = (set(np.unique(labels).tolist()) - {0, VOID} for labels in (truth, predicted))
    order = sorted(true | found, key=lambda label: (label not in true, label))
    return tuple(LegendName(names[label - 1], colors[label], label in true, label in found) for label in order)

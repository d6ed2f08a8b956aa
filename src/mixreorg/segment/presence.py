"""Presence scores: how sure a model is that a class is somewhere in a photo.

Zero-shot decoding gives every pixel to the best of the names that were asked for, whether or not one of them is
right. The presence score does not depend on the other names asked for: a class is compared with a fixed bank of names.
Plain arrays, so that models in torch and exported ones share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mixreorg.config import StrictConfig
from mixreorg.text.class_list import ClassName

FloatArray = npt.NDArray[np.floating]

EVERYDAY_NAMES = (
    "person", "bird", "cat", "cow", "dog", "horse", "airplane", "bicycle", "boat", "bus", "car", "train", "bottle",
    "chair", "table", "tree", "flower", "ball", "house", "sky", "grass", "water", "road", "wall",
)  # fmt: skip
"""The bank of a rule that was not fitted."""


class PresenceRule(StrictConfig):
    """``sigmoid(image_weight * i + segment_weight * s + bias)`` of two log-odds of a class.

    With ``t`` the logit scale, the log-odds of a class ``c`` against the names ``b`` of the bank, ``c``'s own left out,
    are ``t cos(x, c) - log sum_b exp(t cos(x, b))``. ``i`` is that of the image embedding, ``s`` that of the segment
    embeddings; of several windows or segments, the largest value counts.
    """

    bank: tuple[str, ...] = Field(EVERYDAY_NAMES, min_length=2)
    """Names that a class is compared with."""
    image_weight: float = 0.25
    """Of the image embedding."""
    segment_weight: float = 0.5
    """Of the best segment."""
    bias: float = 0.0
    """Added to both."""

    def scores(self, features: FloatArray) -> npt.NDArray[np.float32]:
        """Presence scores ``[...]``, 0 to 1, of features ``[..., 2]`` from :func:`presence_features`."""
        logits = features @ np.array([self.image_weight, self.segment_weight]) + self.bias
        # Of logits beyond this, the exponential would overflow, and float32 knows no other score than 0 or 1.
        scores: npt.NDArray[np.float32] = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)
        return scores


@dataclass(frozen=True)
class PhotoEmbeddings:
    """What the windows of one photo are, in the joint space."""

    image: FloatArray
    """``[B, E]``, L2-normalised."""
    segments: FloatArray
    """``[B, S, E]``, L2-normalised."""
    segment_map: npt.NDArray[np.integer]
    """``[B, H, W]``: the segment of each pixel."""


def segment_pixels(segment_map: npt.NDArray[np.integer], num_segments: int) -> npt.NDArray[np.int64]:
    """Pixels of each segment ``[B, S]``, from the segment of each pixel ``[B, H, W]``."""
    return np.stack([np.bincount(window.ravel(), minlength=num_segments) for window in segment_map])


def presence_features(
    photo: PhotoEmbeddings,
    phrases: FloatArray,
    owners: Sequence[int],
    bank: FloatArray,
    own_names: npt.NDArray[np.bool_],
    logit_scale: float,
) -> npt.NDArray[np.float64]:
    """Log-odds ``[C, 2]`` of classes in a photo: of the image, and of the best segment that has any pixel.

    Args:
        photo: its windows.
        phrases: ``[P, E]`` embeddings of the classes' phrases, L2-normalised.
        owners: the class of each phrase, ascending; a class takes its best phrase.
        bank: ``[K, E]`` embeddings of the bank's names.
        own_names: ``[C, K]`` from :func:`find_own_names`.
        logit_scale: exponentiated and clamped.
    """
    starts = np.unique(owners, return_index=True)[1]
    segments = photo.segments[segment_pixels(photo.segment_map, photo.segments.shape[1]) > 0]
    features = []
    for rows in (photo.image, segments):
        scaled = rows.astype(np.float64) * logit_scale
        classes_nC = np.maximum.reduceat(scaled @ phrases.T, starts, axis=-1)
        features.append((classes_nC - _rest_of_bank(scaled @ bank.T, own_names)).max(axis=0))
    return np.stack(features, axis=-1)


def find_own_names(classes: Sequence[ClassName], bank: Sequence[str]) -> npt.NDArray[np.bool_]:
    """``[C, K]`` whether a name of the bank is a phrase of the class, compared without case."""
    names = [name.casefold() for name in bank]
    own = [{phrase.casefold() for phrase in item.phrases} for item in classes]
    return np.array([[name in phrases for name in names] for phrases in own])


def _rest_of_bank(logits_nK: FloatArray, own_names: npt.NDArray[np.bool_]) -> FloatArray:
    """``[n, C]``: log of the summed exponentials of the bank without each class's own names."""
    rest_nC = np.empty((len(logits_nK), len(own_names)))
    patterns, places = np.unique(own_names, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        # A class that has all the bank's names is compared with them as any other class is.
        others = slice(None) if pattern.all() else ~pattern
        rest_nC[:, places == index] = np.logaddexp.reduce(logits_nK[:, others], axis=-1, keepdims=True)
    return rest_nC

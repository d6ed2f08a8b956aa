"""The numbers that decide a zero-shot segmentation, in one frozen object with a hash."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixreorg.config import StrictConfig

_YOUNGER = (
    "decoding",
    "logit_scale",
    "background_phrases",
    "tile_scales",
    "flip",
    "segment_similarity",
    "refine",
)
Refinement = Literal["none", "pamr", "guided"]
"""How class scores are fitted to the photo's edges; see :mod:`mixreorg.segment.refinement`."""
MAX_SHORT_SIDE = 8192
"""Far above what any model was trained at; activations of more fit into no memory."""
MAX_TILE_SCALE = 8
"""Tiles grow with the square of their scale: 8 makes 225 of a square photo."""


class Protocol(StrictConfig):
    """How a photo is resized, windowed and turned into labels. Sizes are pixels of the resized photo."""

    name: str
    """What reports call this protocol."""
    short_side: int
    """The photo is resized to this short side, ratio kept."""
    long_side: int = 2048
    """Limit of the long side; it wins over ``short_side``."""
    window: int
    """Side of the square windows; a photo smaller than that gives smaller windows."""
    stride: int
    """Distance between neighbouring windows, at most ``window``."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """Class prompts; each has exactly one ``{}``, which takes the phrase."""
    background_threshold: float | None = None
    """A pixel whose best class scores below it becomes background; None for no background class."""
    shortlist: int = 5
    """How many classes a window keeps: those that fit its image embedding best."""
    whole: bool = False
    """Encode the whole resized photo as one window; ``window`` and ``stride`` then have no effect."""
    decoding: Literal["groupvit", "softmax"] = "groupvit"
    """``groupvit``: a softmax over all classes times one over the shortlist. ``softmax``: one softmax over all
    phrases, a class taking the largest of its phrases' probabilities, without a shortlist."""
    logit_scale: float | None = Field(None, gt=0)
    """Factor on cosine similarities; None for the model's learned one."""
    background_phrases: tuple[str, ...] = ()
    """Phrases that stand for background and, where there is a threshold, compete with the classes. The threshold
    then applies to the best scores of the merged photo instead of the segments of a window, and may be 0."""
    tile_scales: tuple[float, ...] = ()
    """Factors above 1 on the resized photo. Enlarged by each, it is cut into overlapping tiles of the size that its
    windows have without, so that more segments share it; scores are averaged over scales. For example 1.5, 2."""
    flip: bool = False
    """Encode every window mirrored as well and average."""
    segment_similarity: float | None = Field(None, gt=0, le=1)
    """Segments of all windows of a photo whose embeddings have this cosine or more are merged: one embedding names
    them all. None leaves each with its own."""
    refine: Refinement = "none"
    """Fit the class scores to the photo's edges, at the photo's size: pixel-adaptive mask refinement (``pamr``) or a
    guided filter (``guided``)."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("give the protocol a name")
        return name

    @field_validator("short_side", "long_side", "window", "stride", "shortlist")
    @classmethod
    def _check_positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("short_side")
    @classmethod
    def _check_short_side(cls, value: int) -> int:
        if value > MAX_SHORT_SIDE:
            raise ValueError(f"must be at most {MAX_SHORT_SIDE:,} pixels")
        return value

    @field_validator("templates")
    @classmethod
    def _check_templates(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates:
            raise ValueError("give at least one template, for example 'a photo of a {}.'")
        for template in templates:
            if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
                raise ValueError(f"template {template!r} must have exactly one {{}} and no other braces")
        return templates

    @field_validator("background_threshold")
    @classmethod
    def _check_threshold(cls, threshold: float | None) -> float | None:
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise ValueError("must lie between 0 and 1, or be null for no background")
        return threshold

    @field_validator("tile_scales")
    @classmethod
    def _check_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if list(scales) != sorted(set(scales)) or any(not 1 < scale <= MAX_TILE_SCALE for scale in scales):
            raise ValueError(f"name each once, ascending, above 1 and at most {MAX_TILE_SCALE}, for example 1.5, 2")
        return scales

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.long_side < self.short_side:
            raise ValueError(f"long_side {self.long_side} is smaller than short_side {self.short_side}")
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} exceeds window {self.window}: pixels would be left out")
        return self

    @property
    def decodes_as_groupvit(self) -> bool:
        """Whether decoding, logit scale and background are GroupViT's."""
        return self.decoding == "groupvit" and self.logit_scale is None and not self.background_phrases

    def changed(self, options: dict[str, Any], source: str) -> Self:
        """The protocol with the values that a command's options give.

        A larger short side raises the long side in proportion, which would else undo it on all but square photos.

        Args:
            options: values by field.
            source: what messages call them.

        Raises:
            MixreorgError: an unusable value.
        """
        values = {**self.to_dict(), **options}
        if options.get("short_side", 0) > self.short_side and "long_side" not in options:
            values["long_side"] = round(self.long_side * options["short_side"] / self.short_side)
        return type(self).from_dict(values, source=source)

    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the protocol's canonical JSON."""
        values = self.to_dict()
        for name in _YOUNGER:
            # Protocols that were hashed before these fields existed keep their hashes.
            if getattr(self, name) == type(self).model_fields[name].default:
                del values[name]
        return hash_values(values)


def hash_values(values: dict[str, Any]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of plain values as canonical JSON."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def groupvit_protocol(image_size: int = 224) -> Protocol:
    """GroupViT's published protocol without background, scaled to the size the model was trained on.

    At 224 px: short side 448, windows of 448, stride 224 (Xu et al., CVPR 2022).

    Args:
        image_size: side of the training images in pixels.
    """
    return Protocol(name="groupvit", short_side=2 * image_size, window=2 * image_size, stride=image_size)

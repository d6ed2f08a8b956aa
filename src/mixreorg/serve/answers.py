"""Forms in which a segmented photo leaves the model's process. No function here is bound to a request."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.segment.results import Segmentation

MAX_SIDE = 1024
"""Larger photos are reduced to it on the page; downloads keep their size."""


@dataclass(frozen=True)
class Groups:
    """Segments of the second grouping block over a whole photo, and what each of them is closest to."""

    segment_map: npt.NDArray[np.integer]
    """``[H, W]`` segment of each pixel of the photo, reduced to :data:`MAX_SIDE` where it is larger."""
    class_names: tuple[str, ...]
    """``S`` names: the best class of each segment."""
    scores: tuple[float, ...]
    """``S`` scores of that class, 0 to 1."""


@dataclass(frozen=True)
class SegmentedPhoto:
    """A photo with its labels; groups are computed only where an answer shows them."""

    photo: Image.Image
    segmentation: Segmentation
    find_groups: Callable[[], Groups]


def as_json(segmented: SegmentedPhoto) -> dict[str, Any]:
    """Classes with colours, shares and scores, and the label map as a PNG in base64 (``label_map_png``)."""
    return {**segmented.segmentation.to_dict(), "label_map_png": base64.b64encode(as_labels(segmented)).decode()}


def as_labels(segmented: SegmentedPhoto) -> bytes:
    """Label map as a palette PNG: pixel values are class indices."""
    return encode_image(segmented.segmentation.label_image(), "PNG")


def as_overlay(segmented: SegmentedPhoto) -> bytes:
    """PNG of the photo tinted by class, with a legend."""
    return encode_image(segmented.segmentation.overlay(segmented.photo), "PNG")


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode()


def encode_image(image: Image.Image, image_format: str) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format)
    return buffer.getvalue()

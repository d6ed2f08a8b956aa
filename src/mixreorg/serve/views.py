"""What the page shows of a segmented photo, as HTML that holds its pictures and its downloads."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.palette import class_colors, hex_color
from mixreorg.segment.drawing import draw_overlay, draw_segments
from mixreorg.segment.results import Segmentation
from mixreorg.serve.answers import MAX_SIDE, Groups, SegmentedPhoto, as_labels, as_overlay, encode_image, json_bytes

_MIN_SIDE = 384
"""Smaller photos are enlarged up to it, so that lines between classes do not cover them."""


@dataclass(frozen=True)
class LegendLine:
    """One line of a legend; its index is its value in the map beside it."""

    index: int
    name: str
    color: str
    area_share: float
    detail: str
    """What is said below the name."""


def as_views(segmented: SegmentedPhoto) -> tuple[str, str]:
    """HTML of the classes and of the groups of a photo."""
    return classes_view(segmented), groups_view(segmented.photo, segmented.find_groups())


def classes_view(segmented: SegmentedPhoto) -> str:
    """Overlay with a legend of the classes, those without pixels named below it, and the downloads."""
    photo, result = _shown_photo(segmented.photo), segmented.segmentation
    labels = _resize_labels(result.label_map, photo.size)
    overlay = draw_overlay(
        photo, labels, result.colors, clear_index=0 if result.has_background else None, max_side=MAX_SIDE
    )
    without_pixels = [name for index, name in enumerate(result.class_names) if not result.is_present[index]]
    note = f"No pixel: {', '.join(map(escape, without_pixels))}." if without_pixels else ""
    return _figure(overlay, labels, _class_lines(result), note) + _downloads(segmented)


def groups_view(photo: Image.Image, groups: Groups) -> str:
    """The segments of the second grouping block, each with the class that is closest to it."""
    shown = _shown_photo(photo)
    segments = _resize_labels(groups.segment_map, shown.size)
    shares = np.bincount(groups.segment_map.reshape(-1), minlength=len(groups.scores)) / groups.segment_map.size
    colors = class_colors(len(groups.scores), has_background=False)
    lines = [
        LegendLine(index, f"group {index + 1}", hex_color(colors[index]), float(shares[index]), f"{name} ({score:.2f})")
        for index, (name, score) in enumerate(zip(groups.class_names, groups.scores, strict=True))
        if shares[index] > 0
    ]
    note = f"{len(lines)} of {len(groups.scores)} groups have pixels. Below each: its best class and the score."
    return _figure(draw_segments(shown, segments, opacity=0.6), segments, lines, note)


def _class_lines(result: Segmentation) -> list[LegendLine]:
    lines = [
        LegendLine(
            index, name, hex_color(result.colors[index]), float(result.area_share[index]), _detail(result, index)
        )
        for index, name in enumerate(result.class_names)
        if result.is_present[index]
    ]
    return lines


def _detail(result: Segmentation, index: int) -> str:
    return "" if result.has_background and index == 0 else f"score {result.scores[index]:.2f}"


def _figure(overlay: Image.Image, labels: npt.NDArray[np.integer], lines: Sequence[LegendLine], note: str) -> str:
    """A picture whose parts light up, and are named, under the pointer: page.js does that with the hidden map.

    ``note`` is HTML.
    """
    width, height = overlay.size
    ordered = sorted(lines, key=lambda line: -line.area_share)
    return (
        f'<figure class="view" style="--ratio: {width / height:.4f}">'
        f'<div class="picture"><img class="overlay" alt="The photo, tinted" src="{_image_url(overlay, "WEBP")}">'
        f'<img class="map" alt="" hidden src="{_image_url(Image.fromarray(labels.astype(np.uint8)), "PNG")}">'
        f'<canvas class="veil" width="{width}" height="{height}"></canvas><output class="tip" hidden></output></div>'
        f'<figcaption><ul class="legend">{"".join(map(_legend_item, ordered))}</ul><p>{note}</p></figcaption></figure>'
    )


def _legend_item(line: LegendLine) -> str:
    return (
        f'<li tabindex="0" data-index="{line.index}"><i style="background: {line.color}"></i>'
        f"<b>{escape(line.name)}</b> <span>{_percent(line.area_share)}</span> <small>{escape(line.detail)}</small></li>"
    )


def _percent(share: float) -> str:
    return "under 1 %" if share < 0.005 else f"{100 * share:.0f} %"


def _downloads(segmented: SegmentedPhoto) -> str:
    files = (
        ("overlay.png", "image/png", as_overlay(segmented), "Overlay (PNG)"),
        ("labels.png", "image/png", as_labels(segmented), "Label map (PNG)"),
        ("segmentation.json", "application/json", json_bytes(segmented.segmentation.to_dict()), "Classes (JSON)"),
    )
    links = (
        f'<a download="{name}" href="{_data_url(media_type, content)}">{text}</a>'
        for name, media_type, content, text in files
    )
    return f'<nav class="downloads">{"".join(links)}</nav>'


def _shown_photo(photo: Image.Image) -> Image.Image:
    scale = min(MAX_SIDE / max(photo.size), max(1, _MIN_SIDE // max(photo.size)))
    if scale == 1:
        return photo
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _resize_labels(labels: npt.NDArray[np.integer], size: tuple[int, int]) -> npt.NDArray[np.integer]:
    return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _image_url(image: Image.Image, image_format: str) -> str:
    return _data_url(f"image/{image_format.lower()}", encode_image(image, image_format))


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

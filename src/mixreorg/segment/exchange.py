"""Labels in the forms that other tools read: masks, boxes, run lengths, polygons."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    import supervision

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]

_LABELME_VERSION = "5.5.0"


@dataclass(frozen=True, eq=False)
class Region:
    """All pixels of one class."""

    index: int
    """Of the class."""
    name: str
    score: float
    mask: Mask
    """``[H, W]``."""


def to_detections(regions: Sequence[Region]) -> "supervision.Detections":
    """One detection per region, with box ``[x0, y0, x1, y1]`` in pixels, mask, class index, name and score.

    Raises:
        MixreorgError: the library is missing.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise _missing(error, "supervision") from error
    if not regions:
        return supervision.Detections.empty()
    masks = np.stack([region.mask for region in regions])
    return supervision.Detections(
        xyxy=np.array([_box(mask) for mask in masks], dtype=np.float32),
        mask=masks,
        confidence=np.array([region.score for region in regions], dtype=np.float32),
        class_id=np.array([region.index for region in regions]),
        data={"class_name": np.array([region.name for region in regions])},
    )


def to_coco_rle(regions: Sequence[Region], image_id: int) -> list[dict[str, Any]]:
    """One entry of a COCO result file per region, with a compressed run-length mask; ready for ``json.dump``.

    Without a box, which pycocotools makes of the mask: beside one that is there, ``loadRes`` takes the area of the box
    for that of the mask, and counts small regions as large.

    Raises:
        MixreorgError: the library is missing.
    """
    try:
        from pycocotools import mask as coco
    except ModuleNotFoundError as error:
        raise _missing(error, "pycocotools") from error
    entries = []
    for region in regions:
        # COCO counts runs column by column.
        encoded = coco.encode(np.asfortranarray(region.mask, dtype=np.uint8))
        entries.append(
            {
                "image_id": image_id,
                "category_id": region.index,
                "category_name": region.name,
                "score": region.score,
                "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
                "area": int(region.mask.sum()),
                "iscrowd": 0,
            }
        )
    return entries


def to_polygons(mask: Mask) -> list[Ring]:
    """Outlines of a mask as polygons without holes.

    Marching squares (``contourpy``): a pixel's middle lies inside of the polygons exactly if its mask is set. Corners
    are cut at half a pixel. Where a part has holes, its outline runs to each hole and back along one line, so that a
    single ring encloses the same pixels.

    Args:
        mask: ``[H, W]``.

    Returns:
        One ``[n, 2]`` array of (x, y) per connected part, in pixels; the middle of the top left pixel is (0.5, 0.5).

    Raises:
        MixreorgError: the library is missing.
    """
    try:
        import contourpy
    except ModuleNotFoundError as error:
        raise _missing(error, "contourpy") from error
    height, width = mask.shape
    # A frame of unset pixels closes outlines at the border of the photo.
    framed = np.pad(mask, 1).astype(np.float64)
    generator = contourpy.contour_generator(
        x=np.arange(width + 2) - 0.5,
        y=np.arange(height + 2) - 0.5,
        z=framed,
        fill_type=contourpy.FillType.OuterOffset,
    )
    filled: Any = generator.filled(0.5, np.inf)
    points, offsets = filled
    rings = []
    for part, starts in zip(points, offsets, strict=True):
        # Each ring repeats its first point at its end.
        outer, *holes = (part[start : stop - 1] for start, stop in itertools.pairwise(starts))
        rings.append(_without_middles(_joined(outer, holes)))
    return rings


def to_labelme(polygons: Mapping[str, Sequence[Ring]], size: tuple[int, int], photo_name: str | None) -> dict[str, Any]:
    """Contents of a LabelMe file: one polygon per ring; ready for ``json.dump``.

    Args:
        polygons: by class name.
        size: width and height of the photo.
        photo_name: path of the photo, as seen from the folder of the file.
    """
    return {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": [
            {
                "label": name,
                "points": ring.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            for name, rings in polygons.items()
            for ring in rings
        ],
        "imagePath": photo_name,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }


def _box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the set pixels; the last two lie outside of them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _joined(outer: Ring, holes: Sequence[Ring]) -> Ring:
    """One ring that runs round the outline and, over a line there and back, round every hole."""
    ring = outer
    for hole in holes:
        start = int(hole[:, 0].argmin())
        turned = np.roll(hole, -start, axis=0)
        at = int(((ring - turned[0]) ** 2).sum(axis=1).argmin())
        ring = np.concatenate([ring[: at + 1], turned, turned[:1], ring[at:]])
    return ring


def _without_middles(ring: Ring) -> Ring:
    """Leave out points on the straight line between their neighbours."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    first, second = ring - before, after - ring
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    # A line there and back turns by half a circle, where the cross product is zero, too.
    turns = (cross != 0) | ((first * second).sum(axis=1) < 0)
    kept: Ring = ring[turns]
    return kept


def _missing(error: ModuleNotFoundError, library: str) -> MixreorgError:
    return MixreorgError(
        f"this needs {error.name or library}, which the extra 'results' brings: pip install 'mixreorg[results]'"
    )

"""What a segmentation is: labels, names, scores; and how it is written to files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically, write_json
from mixreorg.palette import Color, class_colors, hex_color
from mixreorg.segment import exchange
from mixreorg.segment.background import BackgroundChoice
from mixreorg.segment.drawing import LegendEntry, add_legend, draw_overlay
from mixreorg.segment.protocol import Protocol
from mixreorg.text.class_list import ClassName

if TYPE_CHECKING:
    import supervision

BACKGROUND = "background"
"""Name of the class that a background threshold, negatives or abstention add in front of the given ones."""


def result_names(classes: Sequence[ClassName], *, has_background: bool) -> tuple[str, ...]:
    """Names of a segmentation's classes: background first where there is one.

    Raises:
        MixreorgError: a class called background beside the one that is added.
    """
    names = tuple(item.name for item in classes)
    if not has_background:
        return names
    if BACKGROUND in (name.casefold() for name in names):
        raise MixreorgError(
            f"the class list names {BACKGROUND!r}, which a background threshold, negatives and abstention add by "
            "themselves; leave it out, or segment without them"
        )
    return (BACKGROUND, *names)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Every pixel of a photo labelled with one of the class names.

    Raises:
        ValueError: labels outside the class list, or fields whose shapes do not fit each other.
    """

    label_map: npt.NDArray[np.integer]
    """``[H, W]`` indices into ``class_names``, kept in the smallest unsigned type that holds them all."""
    class_names: tuple[str, ...]
    """``C`` names; where there is background, the first is ``"background"``."""
    scores: npt.NDArray[np.float32]
    """``[C]`` best score any pixel gives each class, 0 to 1; 0 for a class no window shortlisted."""
    protocol: Protocol
    """How the labels were made."""
    background: BackgroundChoice | None = None
    """Which rule made pixels background, and its threshold; the protocol's where it has one and nothing is said."""
    presence_scores: npt.NDArray[np.floating] | None = None
    """``[C]`` how sure the model is that each class is in the photo, 0 to 1, whatever other classes were asked for;
    not a number for background. None where the model does not say (classes baked into an export)."""
    absent: tuple[str, ...] = ()
    """Classes without a pixel because their presence score was too low: not in the picture."""
    negative_pixels: Mapping[str, int] = field(default_factory=dict)
    """Pixels that each negative took, by name; they are background."""
    calibrated_on: str | None = None
    """The split that presence scores were calibrated on; None for scores that were not."""

    def __post_init__(self) -> None:
        """Check the fields against each other and shrink the label map."""
        num_classes = len(self.class_names)
        threshold = self.protocol.background_threshold
        if self.background is None and threshold is not None:
            object.__setattr__(self, "background", BackgroundChoice("protocol", threshold, "the protocol's"))
        if self.label_map.ndim != 2 or not np.issubdtype(self.label_map.dtype, np.integer) or not self.label_map.size:
            raise ValueError(f"label_map must be [H, W] integers, not {self.label_map.shape} {self.label_map.dtype}")
        if self.scores.shape != (num_classes,):
            raise ValueError(f"{num_classes} class names need as many scores, not {self.scores.shape}")
        if self.presence_scores is not None and self.presence_scores.shape != (num_classes,):
            raise ValueError(f"{num_classes} class names need as many presence scores")
        if int(self.label_map.min()) < 0 or int(self.label_map.max()) >= num_classes:
            raise ValueError(f"label_map holds {self.label_map.max()}, but there are {num_classes} classes")
        if self.has_background and self.class_names[0] != BACKGROUND:
            raise ValueError(f"where there is background the first class is {BACKGROUND!r}")
        smallest = np.min_scalar_type(num_classes - 1)
        object.__setattr__(self, "label_map", self.label_map.astype(smallest, copy=False))

    @property
    def has_background(self) -> bool:
        """Whether the first class is background."""
        return self.background is not None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo in pixels."""
        height, width = self.label_map.shape
        return width, height

    @cached_property
    def area_share(self) -> npt.NDArray[np.float64]:
        """``[C]`` share of the photo's pixels with each label, 0 to 1."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=len(self.class_names))
        return counts / self.label_map.size

    @property
    def is_present(self) -> npt.NDArray[np.bool_]:
        """``[C]`` whether any pixel has the label."""
        return self.area_share > 0

    @cached_property
    def colors(self) -> tuple[Color, ...]:
        """``C`` colours, the same in every file about this photo."""
        return class_colors(len(self.class_names), has_background=self.has_background)

    def overlay(self, photo: Image.Image) -> Image.Image:
        """Draw the labels over the photo, with a legend of the classes present and those said to be absent.

        Background stays untinted.

        Photos over 2,048 px are reduced to that long side, very small ones are enlarged.

        Raises:
            MixreorgError: a photo of another size than the label map.
        """
        if photo.size != self.size:
            raise MixreorgError(
                f"the photo has {photo.width} x {photo.height} pixels, its labels "
                f"{self.size[0]} x {self.size[1]}; give the photo as read_photo returns it"
            )
        picture = draw_overlay(photo, self.label_map, self.colors, clear_index=0 if self.has_background else None)
        entries = [
            LegendEntry(name, self.colors[index], float(self.area_share[index]))
            for index, name in enumerate(self.class_names)
            if self.is_present[index]
        ]
        return add_legend(picture, entries, self.absent)

    def palette_image(self) -> Image.Image:
        """Return the label map as a palette image: pixel values are class indices, the palette their colours.

        Raises:
            MixreorgError: more than 256 classes, which a palette cannot hold.
        """
        if len(self.class_names) > 256:
            raise MixreorgError(
                f"a palette image holds 256 classes, not {len(self.class_names)}; "
                "use label_image(), which is 16-bit then"
            )
        image = Image.fromarray(self.label_map).convert("P")
        image.putpalette([value for color in self.colors for value in color])
        return image

    def label_image(self) -> Image.Image:
        """Return the label map as an image: a palette image up to 256 classes, 16-bit grey above."""
        if len(self.class_names) <= 256:
            return self.palette_image()
        return Image.fromarray(self.label_map.astype(np.uint16))

    def to_dict(self, photo_name: str | None = None) -> dict[str, Any]:
        """Return plain values: photo, protocol, background, calibration, negatives; and what is known of each class."""
        width, height = self.size
        return {
            "photo": photo_name,
            "size": {"width": width, "height": height},
            "protocol": {
                "name": self.protocol.name,
                "hash": self.protocol.hash(),
                "background_threshold": self.protocol.background_threshold,
            },
            "background": asdict(self.background) if self.background else None,
            "calibrated_on": self.calibrated_on,
            "negatives": [{"name": name, "pixels": pixels} for name, pixels in self.negative_pixels.items()],
            "classes": [
                {
                    "name": name,
                    "index": index,
                    "color": hex_color(self.colors[index]),
                    "area_share": float(self.area_share[index]),
                    "score": float(self.scores[index]),
                    "present": bool(self.is_present[index]),
                    "presence_score": self._presence_score(index),
                    "absent": name in self.absent,
                }
                for index, name in enumerate(self.class_names)
            ],
        }

    def _presence_score(self, index: int) -> float | None:
        if self.presence_scores is None or np.isnan(self.presence_scores[index]):
            return None
        return float(self.presence_scores[index])

    def to_masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Masks ``[H, W]`` of the classes that any pixel has, by name; the background is one of them."""
        return {name: self.label_map == index for index, name in enumerate(self.class_names) if self.is_present[index]}

    def to_detections(self) -> "supervision.Detections":
        """One detection per class present, without background, for ``supervision`` (the extra ``results``).

        Raises:
            MixreorgError: the library is missing.
        """
        return exchange.to_detections(self._regions())

    def to_coco_rle(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Entries of a COCO result file, one per class present, without background (the extra ``results``).

        Args:
            image_id: of the photo in the data set. The ``category_id`` is the index in :attr:`class_names`.

        Raises:
            MixreorgError: ``pycocotools`` is missing.
        """
        return exchange.to_coco_rle(self._regions(), image_id)

    def to_polygons(self) -> dict[str, list[npt.NDArray[np.float64]]]:
        """Outlines of the classes present, without background, by name (the extra ``results``).

        Returns:
            One ``[n, 2]`` array of (x, y) per connected part, in pixels; a flat list of it is a COCO polygon. See
            :func:`~mixreorg.segment.exchange.to_polygons`.

        Raises:
            MixreorgError: ``contourpy`` is missing.
        """
        return {region.name: exchange.to_polygons(region.mask) for region in self._regions()}

    def to_labelme(self, photo_name: str | None = None) -> dict[str, Any]:
        """Contents of a LabelMe file: the outlines of :meth:`to_polygons`.

        Args:
            photo_name: path of the photo, as seen from the folder of the file.

        Raises:
            MixreorgError: ``contourpy`` is missing.
        """
        return exchange.to_labelme(self.to_polygons(), self.size, photo_name)

    def _regions(self) -> list[exchange.Region]:
        """The classes present, without background, largest index last."""
        return [
            exchange.Region(index, self.class_names[index], float(self.scores[index]), self.label_map == index)
            for index in np.flatnonzero(self.is_present).tolist()
            if not (self.has_background and index == 0)
        ]

    def save(
        self,
        folder: Path | str,
        stem: str,
        photo: Image.Image,
        photo_name: str | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> tuple[Path, ...]:
        """Write ``STEM_labels.png``, ``STEM_overlay.png`` and ``STEM.json``, each whole or not at all.

        Args:
            folder: made when it is not there.
            stem: what the file names begin with.
            photo: as :func:`~mixreorg.segment.photos.read_photo` returned it.
            photo_name: what the JSON calls the photo; ``stem`` by default.
            further: plain values that the JSON gets beside those of :meth:`to_dict`.

        Returns:
            The three paths, in that order. The JSON is written last: where it is, the pictures are.

        Raises:
            MixreorgError: a photo of another size, a stem that is no file name, or a folder that cannot be
                written.
        """
        if not stem or Path(stem).name != stem:
            raise MixreorgError(f"{stem!r} cannot begin a file name; give a name without folders")
        folder = Path(folder)
        paths = folder / f"{stem}_labels.png", folder / f"{stem}_overlay.png", folder / f"{stem}.json"
        overlay = self.overlay(photo)
        write_atomically(paths[0], lambda path: self.label_image().save(path, format="PNG"))
        # Three times as fast as the default level for files a tenth larger: it is most of the time of a small model.
        write_atomically(paths[1], lambda path: overlay.save(path, format="PNG", compress_level=1))
        write_json(paths[2], {**self.to_dict(photo_name or stem), **(further or {})})
        return paths

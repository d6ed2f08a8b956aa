"""COCO-Object from the instances JSON of COCO, for those without the maps of COCO-Stuff."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.class_table import class_table
from mixreorg.files import read_json

_HINT = "take the file of annotations_trainval2017.zip"


class InstancesFile:
    """The instances of all photos of a split, ready to be drawn as masks of COCO-Object."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Args:
            path: for example ``annotations/instances_val2017.json``.

        Raises:
            MixreorgError: missing, not JSON, or without the tables of COCO's instances.
        """
        self._path = path
        content = read_json(path)
        # The category id of COCO is the label in the maps of COCO-Stuff plus 1.
        self._dense = {label + 1: place for place, label in enumerate(class_table("coco_object").labels(), start=1)}
        self._images: dict[str, dict[str, Any]] = {}
        self._annotations: dict[int, list[dict[str, Any]]] = {}
        try:
            for image in content["images"]:
                self._images[Path(image["file_name"]).stem] = image
            for annotation in content["annotations"]:
                # Looked up here, so that captions and keypoint files are refused before anything is drawn.
                _ = annotation["segmentation"], annotation["area"]
                if annotation["category_id"] not in self._dense:
                    raise MixreorgError(
                        f"{path} has the category {annotation['category_id']!r}, which COCO's 80 things lack; {_HINT}"
                    )
                self._annotations.setdefault(annotation["image_id"], []).append(annotation)
        except (KeyError, TypeError) as error:
            raise MixreorgError(f"{path} is not an instances file of COCO (no {error}); {_HINT}") from error

    def __contains__(self, stem: object) -> bool:
        """Whether the file has a photo of this stem, with or without instances."""
        return stem in self._images

    def draw(self, stem: str) -> npt.NDArray[np.uint8]:
        """Draw the mask of a photo.

        Crowds lie below, then instances from large to small: where two overlap, the smaller one shows.

        Returns:
            ``[H, W]``: 1 .. 80, and 0 for background.

        Raises:
            MixreorgError: a photo that the file lacks, or an outline that cannot be drawn.
        """
        from pycocotools import mask as coco_mask  # in the extra "benchmarks": only this conversion draws outlines

        image = self._images.get(stem)
        if image is None:
            raise MixreorgError(f"{self._path} lacks the photo {stem}; take photos and annotations of one split")
        try:
            height, width = image["height"], image["width"]
            labels = np.zeros((height, width), dtype=np.uint8)
            annotations = self._annotations.get(image["id"], [])
            for item in sorted(annotations, key=lambda item: (not item.get("iscrowd", 0), -item["area"])):
                outline = item["segmentation"]
                if isinstance(outline, list):  # polygons of one instance, in several parts where it is occluded
                    outline = coco_mask.merge(coco_mask.frPyObjects(outline, height, width)) if outline else None
                elif isinstance(outline["counts"], list):  # run lengths as the official files write them
                    outline = coco_mask.frPyObjects(outline, height, width)
                if outline is None:
                    continue
                labels[coco_mask.decode(outline) > 0] = self._dense[item["category_id"]]
        except Exception as error:  # the library raises whatever it happens to meet in damaged outlines
            raise MixreorgError(f"{self._path}: cannot draw the instances of {stem} ({error}); {_HINT}") from error
        return labels

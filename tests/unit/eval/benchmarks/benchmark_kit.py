"""Small data sets in the official formats, made on the fly."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixreorg.palette import voc_color

WIDTH, HEIGHT = 12, 8


def write_photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


def write_mask(path: Path, values: Any, *, palette: bool = False) -> None:
    """Write an 8-bit mask, grey or with VOC's palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if palette:
        image.putpalette([channel for index in range(256) for channel in voc_color(index)])
    image.save(path)


def stripes(labels: Sequence[int]) -> np.ndarray:
    """A mask with the given labels as vertical stripes, repeated until they fill it."""
    return np.tile(np.resize(np.array(labels), WIDTH), (HEIGHT, 1))


def make_voc(root: Path, masks: Mapping[str, np.ndarray], *, year: int = 2012) -> Path:
    folder = root / "VOCdevkit" / f"VOC{year}"
    for stem, mask in masks.items():
        write_photo(folder / "JPEGImages" / f"{stem}.jpg", mask.shape[::-1])
        write_mask(folder / "SegmentationClass" / f"{stem}.png", mask, palette=True)
    listed = folder / "ImageSets" / "Segmentation" / "val.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{stem}\n" for stem in masks))
    return folder


def make_context(root: Path, label_maps: Mapping[str, np.ndarray]) -> Path:
    """VOC 2010 with the label files of trainval.tar.gz unpacked into it."""
    import scipy.io

    folder = root / "VOCdevkit" / "VOC2010"
    (folder / "trainval").mkdir(parents=True)
    for stem, labels in label_maps.items():
        write_photo(folder / "JPEGImages" / f"{stem}.jpg", labels.shape[::-1])
        path = folder / "trainval" / f"{stem}.mat"
        scipy.io.savemat(path, {"LabelMap": labels.astype(np.uint16)}, do_compression=True)
    listed = folder / "ImageSets" / "Main" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("".join(f"{stem}\n" for stem in label_maps))
    return folder


def make_coco(root: Path, maps: Mapping[str, np.ndarray]) -> Path:
    """val2017.zip, and stuffthingmaps_trainval2017.zip in a folder of its own."""
    folder = root / "coco"
    for stem, labels in maps.items():
        write_photo(folder / "val2017" / f"{stem}.jpg", labels.shape[::-1])
        write_mask(folder / "stuffthingmaps" / "val2017" / f"{stem}.png", labels)
    return folder


def make_instances(
    root: Path, annotations: Sequence[Mapping[str, Any]], stems: Sequence[str] = ("000000000009",)
) -> Path:
    """val2017.zip, and an instances file whose annotations all belong to the first photo."""
    folder = root / "coco"
    for stem in stems:
        write_photo(folder / "val2017" / f"{stem}.jpg")
    images = [{"id": int(stem), "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT} for stem in stems]
    full = [{"image_id": int(stems[0]), "iscrowd": 0, "id": place, **item} for place, item in enumerate(annotations)]
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": full, "categories": []}))
    return folder


def make_cityscapes(root: Path, masks: Mapping[str, np.ndarray]) -> Path:
    """Stems such as ``frankfurt/frankfurt_000000_000294``."""
    folder = root / "cityscapes"
    for stem, labels in masks.items():
        write_photo(folder / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png", labels.shape[::-1])
        write_mask(folder / "gtFine" / "val" / f"{stem}_gtFine_labelIds.png", labels)
    return folder


def make_ade(root: Path, masks: Mapping[str, np.ndarray]) -> Path:
    folder = root / "ADEChallengeData2016"
    for stem, labels in masks.items():
        write_photo(folder / "images" / "validation" / f"{stem}.jpg", labels.shape[::-1])
        write_mask(folder / "annotations" / "validation" / f"{stem}.png", labels)
    return folder

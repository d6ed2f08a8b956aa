"""Writing scenes in real formats: img2dataset shards for training, the VOC layout for validation and test."""

import io
import json
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixreorg.data.scenes.compose import Scene, SceneComposer, Split
from mixreorg.palette import voc_color

SHARD_SIZE = 2500


def write_train_shard(composer: SceneComposer, folder: Path, shard: int, count: int) -> None:
    """Write ``scenes-NNNNNN.tar`` (jpg, txt and json per scene) and its ``_stats.json``, as img2dataset does.

    Args:
        composer: draws the scenes.
        folder: an existing folder.
        shard: number of the shard; its first scene has index ``shard * SHARD_SIZE``.
        count: number of scenes in it.
    """
    name = f"scenes-{shard:06d}"
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for index in range(shard * SHARD_SIZE, shard * SHARD_SIZE + count):
            scene = composer.compose("train", index)
            key = f"{index:09d}"
            metadata = json.dumps(scene_record(scene, key), ensure_ascii=False)
            _add(archive, f"{key}.jpg", encode_jpeg(scene.image, composer.config.jpeg_quality))
            _add(archive, f"{key}.txt", scene.caption.encode())
            _add(archive, f"{key}.json", metadata.encode())
    stats = {
        "count": count,
        "successes": count,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "status_dict": {"success": count},
    }
    (folder / f"{name}_stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")


def write_eval_scenes(
    composer: SceneComposer, folder: Path, split: Split, start: int, count: int
) -> list[dict[str, Any]]:
    """Write images and label maps of scenes ``start`` to ``start + count`` of a split into a VOC-layout folder.

    Returns:
        Per scene, its record: image name, caption, objects.
    """
    records = []
    for index in range(start, start + count):
        scene = composer.compose(split, index)
        name = f"{split}_{index:06d}"
        jpeg = encode_jpeg(scene.image, composer.config.jpeg_quality)
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg)
        png = encode_label_map(scene.label_map, composer.config.num_bits)
        (folder / "SegmentationClass" / f"{name}.png").write_bytes(png)
        records.append({"image": name, **scene_record(scene, name)})
    return records


def scene_record(scene: Scene, key: str) -> dict[str, Any]:
    """The JSON of one scene: img2dataset's fields, then what is in the picture."""
    height, width = scene.label_map.shape
    return {
        "caption": scene.caption,
        "key": key,
        "status": "success",
        "width": width,
        "height": height,
        "objects": [
            {"name": item.name, "picture": item.picture, "box": list(item.box), "visible": item.visible}
            for item in scene.objects
        ],
        "stuff": scene.stuff,
    }


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of ``[H, W, 3]`` RGB, without chroma subsampling: the objects are a few pixels wide."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_label_map(label_map: NDArray[np.uint16], num_bits: int) -> bytes:
    """PNG bytes of ``[H, W]`` labels: 8 bits with VOC's palette, or 16 bits of grey where labels go beyond 254."""
    buffer = io.BytesIO()
    if num_bits == 16:
        Image.fromarray(label_map).save(buffer, "PNG")
    else:
        image = Image.fromarray(label_map.astype(np.uint8)).convert("P")
        image.putpalette(voc_colours().tobytes())
        image.save(buffer, "PNG")
    return buffer.getvalue()


@cache
def voc_colours() -> NDArray[np.uint8]:
    """VOC's colour of each label, ``[256, 3]`` RGB."""
    return np.array([voc_color(label) for label in range(256)], dtype=np.uint8)


def write_split_lists(folder: Path, split: Split, records: Sequence[dict[str, Any]]) -> None:
    """Write the split's image list and its captions (``captions_<split>.jsonl``)."""
    names = "".join(f"{record['image']}\n" for record in records)
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names, encoding="utf-8")
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / f"captions_{split}.jsonl").write_text(lines, encoding="utf-8")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo's defaults hold no time, owner or mode of this machine: equal scenes give equal bytes.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))

"""A small VOC-layout folder and ways to evaluate on it, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("dog", "cat", "car")


def blobs(random: np.random.Generator, height: int, width: int, num_classes: int) -> np.ndarray:
    """Labels in blocks of 8 pixels."""
    coarse = random.integers(0, num_classes, (height // 8 + 1, width // 8 + 1))
    return np.kron(coarse, np.ones((8, 8), dtype=np.int64))[:height, :width]


def write_voc(root: Path, split: str = "val", count: int = 5, seed: int = 0) -> Path:
    """A split of small photos of mixed sizes with void at the top; returns its folder."""
    random = np.random.default_rng(seed)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    stems = [f"{split}{index}" for index in range(count)]
    for index, stem in enumerate(stems):
        size = [(32, 32), (32, 48), (40, 32)][index % 3]
        photo = np.kron(random.integers(0, 255, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1)))
        Image.fromarray(photo.astype(np.uint8)).save(root / f"JPEGImages/{stem}.jpg")
        mask = blobs(random, *size, 4).astype(np.uint8)
        mask[:2] = 255
        Image.fromarray(mask).save(root / f"SegmentationClass/{stem}.png")
    (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (root / "classes.txt").write_text("background\n" + "".join(f"{name}\n" for name in NAMES))
    return root


ADAPTER = """
import numpy as np

def load(protocol, device):
    def predict(photo, names):
        grey = np.asarray(photo.convert("L")).astype(int)
        return grey * len(names) // 256
    return predict

def wrong_shape(protocol, device):
    return lambda photo, names: np.zeros((2, 2), dtype=int)

def wrong_labels(protocol, device):
    return lambda photo, names: np.full((photo.height, photo.width), len(names))

def nothing(protocol, device):
    return None
"""
"""An adapter file: labels by grey value, and three that are wrong."""

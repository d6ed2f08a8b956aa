"""A tiny photo, classes and targets for the tests of exports."""

import numpy as np
from PIL import Image

from mixreorg.text.class_list import parse_class_list

CLASSES = parse_class_list("dog, cat=cat|kitten, car")
TARGETS = {"onnx": ".onnx", "openvino": ".xml"}


def photo(width: int = 100, height: int = 75, seed: int = 0) -> Image.Image:
    """Coarse coloured noise, so that segments are larger than pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)

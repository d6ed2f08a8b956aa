"""The published augmentation done the plain way, one picture at a time with Pillow, read by webdataset."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from mixreorg.models.pixels import IMAGE_MEAN, IMAGE_STD, to_uint8

SIDE = 224
BICUBIC = Image.Resampling.BICUBIC
FILL = tuple(round(255 * mean) for mean in IMAGE_MEAN)
JITTER = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)

Operation = Callable[[Image.Image, float, int], Image.Image]


def pillow_batches(folder: Path, batch: int, encode: Callable[[str], Tensor]) -> Iterator[list[Tensor]]:
    """Batches of ``[B, 3, 224, 224]`` float32 images and token ids from a folder of shards."""
    import webdataset

    transform = PillowTransform()
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return iter(
        webdataset.WebDataset(urls, shardshuffle=False)
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(transform, encode)
        .batched(batch, collation_fn=lambda rows: [torch.stack(column) for column in zip(*rows, strict=True)])
    )


class PillowTransform:
    """Crop, flip, RandAugment (m9, std 0.5, 2 operations), colour jitter 0.4, normalisation, erasing 0.25."""

    def __init__(self) -> None:
        self.choose = random.Random(0)

    def __call__(self, image: Image.Image) -> Tensor:
        """``[3, 224, 224]`` float32."""
        image = image.resize((SIDE, SIDE), BICUBIC, box=self.box(*image.size, (0.08, 1.0), (3 / 4, 4 / 3)))
        if self.choose.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for operation in self.choose.choices(list(OPERATIONS.values()), k=2):
            if self.choose.random() < 0.5:
                level = min(max(self.choose.gauss(9, 0.5), 0), 10) / 10
                image = operation(image, level, self.choose.choice((-1, 1)))
        for enhancer in self.choose.sample(JITTER, 3):
            image = enhancer(image).enhance(self.choose.uniform(0.6, 1.4))
        pixels = to_uint8(image).contiguous().float().div_(255)
        pixels.sub_(torch.tensor(IMAGE_MEAN).view(3, 1, 1)).div_(torch.tensor(IMAGE_STD).view(3, 1, 1))
        if self.choose.random() < 0.25:
            left, top, right, bottom = self.box(SIDE, SIDE, (0.02, 1 / 3), (0.3, 1 / 0.3))
            pixels[:, top:bottom, left:right] = torch.randn(3, bottom - top, right - left)
        return pixels

    def box(
        self, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
    ) -> tuple[int, int, int, int]:
        """A random box that fits; the whole picture after ten attempts."""
        for _ in range(10):
            area = width * height * self.choose.uniform(*scale)
            shape = math.exp(self.choose.uniform(math.log(ratio[0]), math.log(ratio[1])))
            box_width, box_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < box_width <= width and 0 < box_height <= height:
                left, top = self.choose.randint(0, width - box_width), self.choose.randint(0, height - box_height)
                return left, top, left + box_width, top + box_height
        return 0, 0, width, height


def affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Pillow's affine map from output to input pixels."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, BICUBIC, fillcolor=FILL)


def enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """A blend as an operation."""
    return lambda image, level, sign: enhancer(image).enhance(1 + sign * 0.9 * level)


def solarise_add(image: Image.Image, amount: int) -> Image.Image:
    """Add to the dark levels."""
    return image.point([min(255, level + amount) if level < 128 else level for level in range(256)] * 3)


OPERATIONS: dict[str, Operation] = {
    "brightness": enhance(ImageEnhance.Brightness),
    "contrast": enhance(ImageEnhance.Contrast),
    "colour": enhance(ImageEnhance.Color),
    "sharpness": enhance(ImageEnhance.Sharpness),
    "auto_contrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalise": lambda image, level, sign: ImageOps.equalize(image),
    "invert": lambda image, level, sign: ImageOps.invert(image),
    "posterise": lambda image, level, sign: ImageOps.posterize(image, max(1, 4 - int(4 * level))),
    "solarise": lambda image, level, sign: ImageOps.solarize(image, 256 - int(256 * level)),
    "solarise_add": lambda image, level, sign: solarise_add(image, int(110 * level)),
    "rotate": lambda image, level, sign: image.rotate(sign * 30 * level, BICUBIC, fillcolor=FILL),
    "shear_x": lambda image, level, sign: affine(image, 1, sign * 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda image, level, sign: affine(image, 1, 0, 0, sign * 0.3 * level, 1, 0),
    "translate_x": lambda image, level, sign: affine(image, 1, 0, sign * 0.45 * level * SIDE, 0, 1, 0),
    "translate_y": lambda image, level, sign: affine(image, 1, 0, 0, 0, 1, sign * 0.45 * level * SIDE),
}
"""RandAugment's operations: a picture, a level in 0..1 and a sign."""

"""From a picture to the tensor a model trains on: crop, flip, colours, erasing, normalisation.

Every draw comes from the generator that is handed in, so an augmentation is a pure function of its key.
"""

import math
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageEnhance
from pydantic import Field, model_validator
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.models.pixels import normalise, to_uint8

_CROP_ATTEMPTS = 10
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


class ImageTransformConfig(StrictConfig):
    """Augmentation of training pictures. The defaults are the published recipe without RandAugment and erasing."""

    image_size: int = Field(224, gt=0)
    """Side of the square that the model sees, in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the picture's area in the crop; (1, 1) for the whole picture."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the crop."""
    flip: bool = True
    """Mirror half of the pictures."""
    colour_jitter: float = Field(0.4, ge=0)
    """Brightness, contrast and saturation each change by a factor in 1 - jitter .. 1 + jitter."""
    erase_probability: float = Field(0.0, ge=0, le=1)
    """Share of pictures in which a rectangle is replaced by noise; 0.25 in the published recipe."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale {self.crop_scale} must rise within 0 (excluded) .. 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {self.crop_ratio} must be positive and rise")
        return self


def train_transform(image: Image.Image, config: ImageTransformConfig, generator: np.random.Generator) -> Tensor:
    """Augment a picture.

    Args:
        image: RGB, any size.
        config: what to do and how strongly.
        generator: source of all draws.

    Returns:
        ``[3, S, S]`` float32, ImageNet mean and standard deviation taken out, ``S = config.image_size``.
    """
    box = random_crop_box(image.width, image.height, config.crop_scale, config.crop_ratio, generator)
    image = _resized_crop(image, box, config.image_size)
    if generator.random() < 0.5 and config.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _jitter(image, config.colour_jitter, generator)
    return _erase(eval_tensor(image), config.erase_probability, generator)


def eval_tensor(image: Image.Image) -> Tensor:
    """``[3, H, W]`` float32 of an RGB picture as it is, ImageNet mean and standard deviation taken out."""
    return normalise(to_uint8(image)).contiguous()


def random_crop_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: np.random.Generator,
) -> Box:
    """Draw a crop of random area and shape, as the Inception networks were trained (Szegedy et al., 2015).

    Shapes that do not fit into the picture are drawn again; after ten the largest central crop of an allowed
    shape is taken.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height; drawn on a logarithmic scale.
        generator: source of the draws.
    """
    areas = width * height * generator.uniform(*scale, size=_CROP_ATTEMPTS)
    ratios = np.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1]), size=_CROP_ATTEMPTS))
    x, y = generator.random(2)
    widths = np.rint(np.sqrt(areas * ratios)).astype(int)
    heights = np.rint(np.sqrt(areas / ratios)).astype(int)
    for crop_width, crop_height in zip(widths.tolist(), heights.tolist(), strict=True):
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(x * (width - crop_width + 1))
            top = int(y * (height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width = min(width, max(1, round(height * ratio[1])))
    crop_height = min(height, max(1, round(width / ratio[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _resized_crop(image: Image.Image, box: Box, side: int) -> Image.Image:
    if (box[2] - box[0], box[3] - box[1]) == (side, side):
        return image.crop(box)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


def _jitter(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    factors = generator.uniform(max(0.0, 1 - strength), 1 + strength, size=3)
    order = generator.permutation(3)
    if strength == 0:
        return image
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in order:
        image = enhancers[index](image).enhance(float(factors[index]))
    return image


def _erase(pixels: Tensor, probability: float, generator: np.random.Generator) -> Tensor:
    """Replace a rectangle by Gaussian noise, in place (random erasing, Zhong et al., 2017)."""
    if generator.random() >= probability:
        return pixels
    height, width = pixels.shape[1:]
    left, top, right, bottom = random_crop_box(width, height, _ERASED_AREA, _ERASED_RATIO, generator)
    noise = generator.standard_normal((3, bottom - top, right - left), dtype=np.float32)
    pixels[:, top:bottom, left:right] = torch.from_numpy(noise)
    return pixels

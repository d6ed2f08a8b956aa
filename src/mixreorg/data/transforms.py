"""From a picture to the tensor a model trains on.

Reading processes crop, resize and flip, and hand over 8-bit pixels: a quarter of the bytes, and nothing that a device
does faster. :func:`augment` does the rest to whole batches where the model is. Every draw comes from the sample's key.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from mixreorg.config import StrictConfig
from mixreorg.data.decode import Box, Pixels, decode_crop
from mixreorg.data.erasing import draw_erasures, erase
from mixreorg.data.rand_augment import RandAugmentConfig, Stage, apply_stages, jitter_stages, rand_augment_stages
from mixreorg.data.random_box import BOX_NUMBERS, RandomBox
from mixreorg.models.pixels import normalise, to_uint8

_MOST_TOGETHER = 256


class ImageTransformConfig(StrictConfig):
    """Augmentation of training pictures. The defaults are the published recipe without RandAugment and erasing."""

    image_size: int = Field(224, gt=0)
    """Side of the square that the model sees, in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the picture's area in the crop; (1, 1) for the largest crop that ``crop_ratio``
    allows, which is the whole picture where its own ratio is allowed."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the crop."""
    flip: bool = True
    """Mirror half of the pictures."""
    rand_augment: RandAugmentConfig | None = None
    """Random operations on colours and geometry; on, with its defaults, in the published recipe."""
    colour_jitter: float = Field(0.4, ge=0)
    """Brightness, contrast and saturation each change by a factor in 1 - jitter .. 1 + jitter, after RandAugment."""
    erase_probability: float = Field(0.0, ge=0, le=1)
    """Share of pictures in which a rectangle is replaced by noise; 0.25 in the published recipe."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale {self.crop_scale} must rise within 0 (excluded) .. 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {self.crop_ratio} must be positive and rise")
        return self


@dataclass(frozen=True)
class View:
    """Crop and flip of one visit to a picture; a :class:`~mixreorg.data.decode.Crop`."""

    crop: RandomBox
    side: int
    """Side of the result in pixels."""
    mirrored: bool

    def box(self, width: int, height: int) -> Box:
        """The crop in a picture of this size."""
        return self.crop.box(width, height)

    def decode(self, data: bytes) -> Tensor:
        """Decode an image file, crop, resize and flip.

        Returns:
            ``[3, S, S]`` uint8, ``S = side``.

        Raises:
            UnusableSampleError: damaged anywhere, or not an image to be read.
        """
        pixels = resized_crop(*decode_crop(data, self), self.side)
        return pixels.flip(-1) if self.mirrored else pixels


def random_view(config: ImageTransformConfig, generator: np.random.Generator) -> View:
    """Draw crop and flip of one visit."""
    crop = RandomBox.from_uniform(generator.random(BOX_NUMBERS), config.crop_scale, config.crop_ratio)
    return View(crop, config.image_size, bool(generator.random() < 0.5) and config.flip)


def augment(images: Tensor, keys: Tensor, config: ImageTransformConfig) -> Tensor:
    """RandAugment, colour jitter, normalisation and erasing of a batch.

    A picture's result depends on its pixels and its key alone, to float rounding also not on the device.

    Args:
        images: ``[B, 3, S, S]`` uint8, on the device that shall do the work.
        keys: ``[B]`` int64, one per visit. On the CPU they spare an accelerator the wait for what is drawn here.
        config: what to do and how strongly; crop and flip have taken place.

    Returns:
        ``[B, 3, S, S]`` float32, ImageNet mean and standard deviation taken out.
    """
    keys = keys.cpu()
    stages: list[Stage] = []
    if config.rand_augment is not None:
        stages += rand_augment_stages(keys, config.rand_augment)
    if config.colour_jitter:
        stages += jitter_stages(keys, config.colour_jitter)
    stages = [stage.to(images.device) for stage in stages]
    erasures = draw_erasures(keys, config.erase_probability, images.shape[3], images.shape[2])
    pixels = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    size = _chunk(images)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        pixels[part] = normalise(apply_stages(images[part].float(), [stage[part] for stage in stages]))
    erase(pixels, erasures)
    return pixels


def _chunk(images: Tensor) -> int:
    """Pictures that go through the stages together.

    One stays in a core's cache from one operation to the next. An accelerator takes many, but not a whole share of a
    batch of thousands: the stages need 12 bytes a value beside what goes in and comes out.
    """
    return 1 if images.device.type == "cpu" else min(len(images), _MOST_TOGETHER)


def resized_crop(image: Pixels, box: Box, side: int) -> Tensor:
    """Cut out a part and resize it bicubically, smoothed where it shrinks.

    Args:
        image: ``[H, W, 3]``.
        box: the part.
        side: of the result, in pixels.

    Returns:
        ``[3, S, S]`` uint8.
    """
    left, top, right, bottom = box
    if min(right - left, bottom - top) < side:
        # Pillow looks beyond the edge of the crop, which counts when there are few pixels.
        return to_uint8(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box))
    pixels = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1)
    if pixels.shape[1:] == (side, side):
        return pixels
    # The same filter several times faster; it rounds a little differently.
    return F.interpolate(pixels[None], (side, side), mode="bicubic", antialias=True)[0]

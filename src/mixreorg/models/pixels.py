"""From RGB pictures to the normalised tensors that the image encoder reads."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""ImageNet mean per RGB channel, of pixels in 0..1."""
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet standard deviation per RGB channel."""


def to_uint8(image: Image.Image) -> Tensor:
    """``[3, H, W]`` uint8 of an RGB picture."""
    # A copy: PIL's buffer is read-only, which torch warns about.
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalise(pixels: Tensor) -> Tensor:
    """Pixels ``[..., 3, H, W]`` in 0..255 to float32 with ImageNet mean and standard deviation taken out."""
    mean = torch.tensor(IMAGE_MEAN, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGE_STD, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std

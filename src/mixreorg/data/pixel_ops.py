"""Colour and geometry operations on batches, the building blocks of augmentation.

All take ``[B, 3, H, W]`` float32 pixels in 0..255 and, where an operation has a strength, one argument per picture,
``[B]`` on the same device; all return pixels of that form and leave their input alone. A picture's result does not
depend on the others of its batch. Each does what Pillow's operation of the same name does, without rounding to whole
grey levels in between.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mixreorg.models.pixels import IMAGE_MEAN

# ITU-R 601 luma, as in Pillow's conversion to grey.
_LUMA = (0.299, 0.587, 0.114)
_FILL = tuple(round(255 * mean) for mean in IMAGE_MEAN)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: ``factor`` 0 is black, 1 the picture, above 1 brighter."""
    return (pixels * _per_picture(factor)).clamp_(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the picture's mean grey level, a whole number."""
    mean = _grey(pixels.mean((2, 3), keepdim=True)).add_(0.5).floor_()
    return _blend(mean, pixels, factor)


def colour(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey picture: ``factor`` 0 is grey, above 1 more saturated."""
    return _blend(_grey(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the picture smoothed by a 3 x 3 kernel (5 in the centre, 1 around, over 13; the edge stays)."""
    smooth = pixels.clone()
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.mul_(4).add_(rows[..., :-2]).add_(rows[..., 1:-1]).add_(rows[..., 2:]).div_(13)
    return _blend(smooth, pixels, factor)


def auto_contrast(pixels: Tensor) -> Tensor:
    """Stretch every channel to 0..255; a channel of one level stays."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    flat = high <= low
    scale = 255 / torch.where(flat, 255, high - low)
    return ((pixels - low.masked_fill(flat, 0)) * scale).clamp_(0, 255)


def equalise(pixels: Tensor) -> Tensor:
    """Give every channel a flat histogram, over whole grey levels."""
    channels = pixels.round().to(torch.int64).flatten(2).flatten(0, 1)
    histogram = torch.zeros(len(channels), 256, dtype=torch.int64, device=pixels.device)
    histogram.scatter_add_(1, channels, torch.ones_like(channels))
    last = channels.amax(1, keepdim=True)
    step = (channels.shape[1] - histogram.gather(1, last)) // 255
    below = histogram.cumsum(1) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step == 0, torch.arange(256, device=pixels.device), table)
    return table.gather(1, channels).to(torch.float32).view(pixels.shape)


def invert(pixels: Tensor) -> Tensor:
    """The negative."""
    return 255 - pixels


def posterise(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading ``bits`` (whole numbers in 0..8) of each grey level; 0 bits leave black."""
    step = _per_picture(torch.exp2(8 - bits))
    return (pixels.round() / step).floor_().mul_(step)


def solarise(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the levels from ``threshold`` on."""
    # Products with a mask: a choice per pixel costs a processor many wrong guesses.
    return pixels + (pixels >= _per_picture(threshold)) * (255 - 2 * pixels)


def solarise_add(pixels: Tensor, amount: Tensor) -> Tensor:
    """Add ``amount`` to the levels below 128."""
    return (pixels + (pixels < 128) * _per_picture(amount)).clamp_(0, 255)


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Turn around the centre, anticlockwise."""
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    height, width = pixels.shape[2:]
    zero = torch.zeros_like(cos)
    # In units of half the picture, so that a turn of an oblong one is no shear.
    return _affine(pixels, _matrix(cos, -sin * height / width, zero, sin * width / height, cos, zero))


def shear_x(pixels: Tensor, slope: Tensor) -> Tensor:
    """Output ``(x, y)`` shows input ``(x + slope y, y)``, in pixels from the top left corner."""
    scaled = slope * pixels.shape[2] / pixels.shape[3]
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return _affine(pixels, _matrix(one, scaled, scaled, zero, one, zero))


def shear_y(pixels: Tensor, slope: Tensor) -> Tensor:
    """Output ``(x, y)`` shows input ``(x, y + slope x)``, in pixels from the top left corner."""
    scaled = slope * pixels.shape[3] / pixels.shape[2]
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return _affine(pixels, _matrix(one, zero, zero, scaled, one, scaled))


def translate_x(pixels: Tensor, share: Tensor) -> Tensor:
    """Output ``(x, y)`` shows input ``(x + share W, y)``."""
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _affine(pixels, _matrix(one, zero, 2 * share, zero, one, zero))


def translate_y(pixels: Tensor, share: Tensor) -> Tensor:
    """Output ``(x, y)`` shows input ``(x, y + share H)``."""
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _affine(pixels, _matrix(one, zero, zero, zero, one, 2 * share))


def _per_picture(argument: Tensor) -> Tensor:
    return argument.view(-1, 1, 1, 1)


def _grey(pixels: Tensor) -> Tensor:
    """``[B, 1, H, W]`` luma."""
    # Sums, not a matrix product: the precision of that is a setting of the device and of autocast.
    red, green, blue = (pixels[:, index : index + 1] for index in range(3))
    grey = red * _LUMA[0]
    return grey.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _blend(other: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    factor = _per_picture(factor)
    return (pixels * factor).add_(other * (1 - factor)).clamp_(0, 255)


def _matrix(*rows: Tensor) -> Tensor:
    """``[B, 2, 3]`` of six ``[B]``."""
    return torch.stack(rows, 1).view(-1, 2, 3)


def _affine(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Resample bicubically; beyond the picture's edge lies the mean colour of ImageNet.

    Args:
        pixels: ``[B, 3, H, W]``.
        matrix: ``[B, 2, 3]`` from output to input coordinates, both -1..1 from edge to edge.
    """
    height, width = pixels.shape[2:]
    x = (torch.arange(width, device=pixels.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=pixels.device) * 2 + 1) / height - 1
    grid = pixels.new_empty(len(pixels), height, width, 2)
    for axis, row in enumerate(matrix[..., None, None].unbind(1)):
        torch.add(row[:, 0] * x, row[:, 1] * y[:, None] + row[:, 2], out=grid[..., axis])
    # The sampler continues with zeros: the mean colour becomes zero for its sake.
    fill = torch.tensor(_FILL, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
    moved = F.grid_sample(pixels - fill, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return moved.add_(fill).clamp_(0, 255)

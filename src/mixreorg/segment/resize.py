"""Bilinear resizing in numpy: the same grey levels on every device and without torch."""

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.integer]


def resize_bilinear(values: npt.NDArray[np.float32 | np.uint8], size: tuple[int, int]) -> FloatArray:
    """Resize ``[..., h, w]`` to ``[..., H, W]`` as ``torch.nn.functional.interpolate`` does.

    Bilinear, ``align_corners=False``, no antialiasing. The order of the sums is torch's, so results differ from it
    by rounding at most.

    Args:
        values: float32 or uint8.
        size: height and width ``(H, W)``.
    """
    top, bottom, down = _neighbours(values.shape[-2], size[0])
    left, right, across = _neighbours(values.shape[-1], size[1])
    # When a photo is reduced, most of its rows are not looked at.
    rows = np.union1d(top, bottom)
    used = values[..., rows, :].astype(np.float32, copy=False)
    widened = used[..., left] * (1 - across)
    widened += used[..., right] * across
    resized = widened[..., np.searchsorted(rows, top), :] * (1 - down)[:, None]
    resized += widened[..., np.searchsorted(rows, bottom), :] * down[:, None]
    return resized


def resize_photo(image: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """``[3, height, width]`` grey levels of an RGB photo: bilinear without antialiasing, rounded to 8 bits.

    This is how the published evaluation resizes. It is done here and not by torch because a level half-way between
    two integers is common, and kernels that sum in another order round it the other way.
    """
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    if pixels.shape[1:] == (height, width):
        return pixels
    return np.rint(resize_bilinear(pixels, (height, width))).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[IntArray, IntArray, FloatArray]:
    """For each of ``new`` positions: the two of ``old`` positions around it, and the second one's weight."""
    # As torch: a scale in float32, one rounding of the position (its compilers fuse product and difference).
    scale = float(np.float32(old) / np.float32(new))
    source = np.maximum(scale * (np.arange(new) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(source.astype(np.int64), old - 1)
    weight = np.clip(source - first.astype(np.float32), 0, 1, dtype=np.float32)
    return first, np.minimum(first + 1, old - 1), weight

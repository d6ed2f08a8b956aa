"""Image files from strangers into RGB pictures, no larger than the crop of them needs."""

import functools
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.data.problems import UnusableSampleError
from mixreorg.data.shards import IMAGE_FORMATS
from mixreorg.models.rgb import orientation_of, to_rgb, upright

_REDUCTIONS = (8, 4, 2)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

Pixels = npt.NDArray[np.uint8]
"""``[H, W, 3]`` RGB."""


class Crop(Protocol):
    """Which part of a picture is wanted, and in which size."""

    @property
    def side(self) -> int:
        """Side in pixels of the square that the part is going to be resized to."""

    def box(self, width: int, height: int) -> Box:
        """The part of a picture of this size."""


def decode_image(data: bytes, min_side: int = 0) -> Image.Image:
    """Decode an image file into RGB, upright by its EXIF orientation, transparency on white.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, GIF (first picture) or BMP.
        min_side: a JPEG is decoded at a half, a quarter or an eighth of its size as long as its short side keeps
            this many pixels; 0 for full size.

    Raises:
        UnusableSampleError: damaged, in another format, or so large that Pillow suspects an attack.
    """
    with _opened(data) as image:
        if min_side:
            _reduce(image, min(image.size) / min_side)
        return _upright_rgb(image)


def decode_crop(data: bytes, crop: Crop) -> tuple[Pixels, Box]:
    """Decode an image file for the sake of a part of it.

    A JPEG is decoded at a half, a quarter or an eighth of its size where the part keeps ``crop.side`` pixels in both
    directions; by simplejpeg where it is installed, which gives Pillow's pixels in less time. Damage anywhere in the
    file counts, so whether a file is usable does not depend on the crop.

    Args:
        data: as for :func:`decode_image`.
        crop: asked once, for the upright size of the full picture.

    Returns:
        The whole picture, perhaps reduced, with the colours and the orientation of :func:`decode_image`, and the
        part's place in it.

    Raises:
        UnusableSampleError: as for :func:`decode_image`.
    """
    with _opened(data) as image:
        width, height = image.size
        full_size = (height, width) if orientation_of(image) >= 5 else (width, height)
        left, top, right, bottom = crop.box(*full_size)
        _reduce(image, min(right - left, bottom - top) / crop.side)
        pixels = _decode_quickly(data, image)
        if pixels is None:
            pixels = np.array(_upright_rgb(image))
    (full_width, full_height), (height, width) = full_size, pixels.shape[:2]
    # Rounded outwards: the part has at least the pixels that it was promised.
    return pixels, (
        left * width // full_width,
        top * height // full_height,
        -(-right * width // full_width),
        -(-bottom * height // full_height),
    )


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """An image file of an allowed format; whatever happens to it inside the block is damage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableSampleError("image too large") from error
    except Exception as error:  # damaged data raises whatever the decoder of its format happens to meet
        raise UnusableSampleError("damaged image") from error


def _reduce(image: Image.Image, most: float) -> None:
    """Have a JPEG that is not loaded yet decoded at the largest reduction that is at most this one."""
    factor = next((factor for factor in _REDUCTIONS if factor <= most), 1)
    if factor > 1:
        image.draft(None, (max(image.width // factor, 1), max(image.height // factor, 1)))


def _decode_quickly(data: bytes, image: Image.Image) -> Pixels | None:
    """The pixels of a usual JPEG by simplejpeg in the size that ``image`` is set to; None to leave it to Pillow.

    Both are built on libjpeg-turbo, whose decoder gives the same bits everywhere. Damage is for Pillow to judge.
    """
    decode = _simplejpeg_decoder()
    if decode is None or image.format != "JPEG" or image.mode not in ("L", "RGB") or orientation_of(image) != 1:
        return None
    try:
        pixels = decode(
            data, "RGB", fastdct=False, fastupsample=False, min_height=image.height, min_width=image.width, min_factor=1
        )
    except ValueError:
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


@functools.cache
def _simplejpeg_decoder() -> Callable[..., Pixels] | None:
    try:
        import simplejpeg
    except ImportError:  # in the extra "train": whoever reads a picture or two does not need it
        return None
    decoder: Callable[..., Pixels] = simplejpeg.decode_jpeg
    return decoder


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    # Both conversions copy the picture even where they have nothing to do.
    if orientation_of(image) != 1:
        image = upright(image)
    return image if image.mode == "RGB" and not image.has_transparency_data else to_rgb(image)

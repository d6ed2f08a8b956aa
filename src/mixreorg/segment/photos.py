"""Any photo a person may have, as 8-bit RGB the right way up, or one clear error."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mixreorg.errors import MixreorgError
from mixreorg.models.rgb import to_rgb, upright

MAX_PIXELS = 178_956_970
"""Largest photo read by default: Pillow's own limit, a guard against decompression bombs."""

PhotoSource = str | Path | bytes | Image.Image | npt.NDArray[Any]

# Pillow hands these to an external program to be drawn: not photos, and not safe with files from strangers.
_VECTOR_FORMATS = frozenset({"EPS", "WMF"})


def read_photo(source: PhotoSource, max_pixels: int = MAX_PIXELS, *, name: str | None = None) -> Image.Image:
    """Read a photo as an 8-bit RGB image.

    - The EXIF orientation is applied; unreadable EXIF data is passed over.
    - Transparency is composited on white.
    - CMYK is converted with its embedded colour profile where it has a usable one, otherwise by Pillow's
      formula.
    - More than 8 bits of grey are scaled to 8 without stretching: full scale is 65535 for integers (the
      largest value, if that is larger), and the smallest of 1, 255 and 65535 that holds all values for
      floats.
    - Of an animation or a multi-page file, the first picture.

    Args:
        source: a path, the bytes of an image file, a Pillow image (which is not changed) or an ``[H, W, 3]``
            uint8 array in RGB order.
        max_pixels: refuse larger photos before decoding them. Pillow's own limit holds as well.
        name: how errors call a photo that is no array. Default: by its path, or as the bytes or the image given.

    Raises:
        MixreorgError: missing, unreadable, truncated or too large, not an image, or an array of another form.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    what = name or _describe(source)
    with warnings.catch_warnings():
        # Pillow warns of large photos and odd metadata; the limit below and the decoding itself decide.
        warnings.simplefilter("ignore")
        if isinstance(source, Image.Image):
            return _decode(source, what, max_pixels)
        with _open(source, what, max_pixels) as image:
            return _decode(image, what, max_pixels)


def _describe(source: object) -> str:
    if isinstance(source, str | Path):
        return f"the photo {source}"
    return "the given image" if isinstance(source, Image.Image) else "the given bytes"


def _open(source: str | Path | bytes, what: str, max_pixels: int) -> Image.Image:
    if not isinstance(source, str | Path | bytes):
        raise MixreorgError(f"a photo cannot be a {type(source).__name__}; give a path, bytes, image or array")
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombError as error:
        raise MixreorgError(f"{what} is too large: {error}; {_remedy(max_pixels)}") from error
    except UnidentifiedImageError as error:
        raise MixreorgError(f"{what} is not an image in any format Pillow reads") from error
    except OSError as error:
        raise MixreorgError(f"cannot read {what}: {error.strerror or error}") from error
    except MemoryError:
        raise MixreorgError(f"there is not enough memory to read {what}; make it smaller first") from None
    except Exception as error:  # a header that breaks Pillow's parser, or a path with a NUL
        raise MixreorgError(f"cannot read {what}: {error}") from error
    if image.format in _VECTOR_FORMATS:
        image.close()
        raise MixreorgError(f"{what} is a {image.format} drawing; save it as PNG or JPEG first")
    return image


def _decode(image: Image.Image, what: str, max_pixels: int) -> Image.Image:
    _check_size(image.width, image.height, what, max_pixels)
    try:
        image.load()
        return to_rgb(upright(image))
    except MemoryError:
        size = f"{image.width} x {image.height} pixels"
        raise MixreorgError(f"there is not enough memory to read {what} of {size}; make it smaller first") from None
    except Exception as error:  # damaged data raises whatever the format's decoder happens to meet
        raise MixreorgError(f"{what} is damaged or truncated ({error}); restore the file") from error


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    what = "the given array"
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise MixreorgError(
            f"{what} has shape {array.shape} and type {array.dtype}; a photo is [height, width, 3] uint8 in RGB order"
        )
    _check_size(array.shape[1], array.shape[0], what, max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))


def _check_size(width: int, height: int, what: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise MixreorgError(f"{what} is empty: {width} x {height} pixels")
    if width * height > max_pixels:
        raise MixreorgError(f"{what} is too large: {width} x {height} pixels; {_remedy(max_pixels)}")


def _remedy(max_pixels: int) -> str:
    return f"the limit is {max_pixels:,} pixels, so make it smaller first"

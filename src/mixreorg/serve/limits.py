"""What a request may bring, checked before any work is done for it; needs no torch."""

import io
import math
import warnings
from typing import Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.text.class_list import ClassName, parse_class_list

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats a server reads: what cameras and browsers write, and not all the decoders of Pillow."""


class Limits(StrictConfig):
    """Bounds of requests. What waits in memory is bounded by ``max_waiting`` times ``max_bytes``; of the names of
    earlier requests, the model's process keeps :data:`~mixreorg.segment.phrase_memory.PHRASES_KEPT` embeddings."""

    max_bytes: int = Field(16 * 2**20, gt=0)
    """Largest body of a request."""
    max_pixels: int = Field(25_000_000, gt=0)
    """Largest photo, and the most pixels that photos of one batch have together."""
    max_classes: int = Field(100, gt=0, le=255)
    """Most classes of a request."""
    max_phrases: int = Field(400, gt=0)
    """Most phrases of all classes of a request together."""
    max_seconds: float = Field(30.0, gt=0, allow_inf_nan=False)
    """Longest time from the first byte of a request to its answer."""
    max_waiting: int = Field(64, gt=0)
    """Most requests that are accepted and not yet answered."""
    max_batch: int = Field(8, gt=0)
    """Most photos that the model works on at once."""


class RefusalError(MixreorgError):
    """A request that is not answered, with the HTTP status that says why."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        """Set message, status and, where trying again makes sense, seconds to wait before."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def check_photo(content: bytes, limits: Limits) -> int:
    """Read the header of an image file and nothing more.

    Args:
        content: bytes of the file.
        limits: of its size.

    Returns:
        How many pixels the photo has.

    Raises:
        RefusalError: empty (422), none of :data:`FORMATS` (415), too many bytes or pixels (413), a broken header (422).
    """
    if not content:
        raise RefusalError(422, "the photo is empty; send the bytes of an image file")
    if len(content) > limits.max_bytes:
        raise too_many_bytes(limits)
    try:
        width, height = _header_size(content)
    except Image.DecompressionBombError as error:
        raise RefusalError(413, f"the photo is too large: {error}; {_pixel_remedy(limits)}") from error
    except UnidentifiedImageError as error:
        raise RefusalError(415, f"the photo is in none of the formats {', '.join(FORMATS)}; convert it") from error
    except Exception as error:  # a damaged header raises whatever the format's parser happens to meet
        raise RefusalError(422, f"the photo is damaged ({error}); send the file again") from error
    if width * height > limits.max_pixels:
        raise RefusalError(413, f"the photo is too large: {width} x {height} pixels; {_pixel_remedy(limits)}")
    return width * height


def check_names(text: str, limits: Limits) -> tuple[ClassName, ...]:
    """Read a class list that a stranger wrote.

    Args:
        text: ``"dog, cat=cat|kitten"``. Files of names (``@file``) belong to the command line: here they would be
            files of the server.
        limits: of the number of classes and phrases.

    Raises:
        RefusalError: too many classes or phrases, a file, HTML.
        MixreorgError: see :func:`~mixreorg.text.class_list.parse_class_list`.
    """
    if text.lstrip().startswith("@"):
        raise RefusalError(422, "a class list cannot be read from a file here; send the names themselves")
    entries = text.split(",")
    if len(entries) > limits.max_classes:
        raise RefusalError(422, f"the class list has {len(entries):,} classes; at most {limits.max_classes} are read")
    num_phrases = len(entries) + text.count("|")
    if num_phrases > limits.max_phrases:
        raise RefusalError(422, f"the class list has {num_phrases:,} phrases; at most {limits.max_phrases} are read")
    if "<" in text or ">" in text:
        raise RefusalError(422, "the class list holds '<' or '>'; names are plain text, leave these out")
    # A list of entries, and not the text: only the text could name a file.
    return parse_class_list(entries)


def check_background(threshold: float | str | None) -> float | Literal["auto"] | None:
    """Check a background threshold: a number, perhaps as text, ``auto``, or None.

    Raises:
        RefusalError: something else, or a number outside 0 to 1.
    """
    if threshold is None:
        return None
    if threshold == "auto":
        return "auto"
    try:
        number = float(threshold)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise RefusalError(422, f"the background threshold {threshold!r} must lie between 0 and 1, or be 'auto'")
    return number


def too_many_bytes(limits: Limits) -> RefusalError:
    """The refusal of a body, or of a photo, with too many bytes."""
    return RefusalError(413, f"the request is too large; at most {limits.max_bytes:,} bytes are read")


def _header_size(content: bytes) -> tuple[int, int]:
    Image.init()
    # Older versions of Pillow lack the youngest of the formats.
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        # Pillow warns of large photos and odd metadata; the limits decide.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return image.size


def _pixel_remedy(limits: Limits) -> str:
    return f"at most {limits.max_pixels:,} pixels are read, so make it smaller first"

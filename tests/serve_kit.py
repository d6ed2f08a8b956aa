"""Photos made by code, whole and broken ones, and answers that misbehave.

The model's process imports this module, to find those answers by their names.
"""

import io
import os
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixreorg.serve.answers import SegmentedPhoto

MARKER = "MIXREORG_TEST_MARKER"
"""Variable that names the file by which :func:`hang` says that it has begun."""


def image_file(width: int = 48, height: int = 40, image_format: str = "PNG", seed: int = 0) -> bytes:
    """A photo of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((width, height)).save(buffer, format=image_format)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds hardly any data."""
    content = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", content), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.png", image_file())
    return buffer.getvalue()


BAD_PHOTOS = {
    "empty": (b"", 422),
    "text": (b"not a photo", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>', 415),
    "zip": (zip_file(), 415),
    "pdf": (b"%PDF-1.7\n", 415),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "bomb": (png_header(50_000, 50_000), 413),
    "larger than the limit": (png_header(6_000, 5_000), 413),
    "no pixels": (png_header(0, 10), 415),
}
"""Files that no photo is in, and the status of their refusal before anything is decoded."""
TRUNCATED = {image_format: image_file(200, 200, image_format)[:700] for image_format in ("JPEG", "PNG", "WEBP")}
"""Files that pass by their header, and are found damaged when they are decoded."""


def hang(segmented: SegmentedPhoto) -> Any:
    Path(os.environ[MARKER]).touch()
    time.sleep(60)


def meet_a_defect(segmented: SegmentedPhoto) -> Any:
    raise ZeroDivisionError("deliberate")


def process_id(segmented: SegmentedPhoto) -> int:
    return os.getpid()


def name_groups(segmented: SegmentedPhoto) -> Any:
    groups = segmented.find_groups()
    return groups.segment_map, groups.class_names, groups.scores


def loads_torch(segmented: SegmentedPhoto) -> bool:
    return "torch" in sys.modules

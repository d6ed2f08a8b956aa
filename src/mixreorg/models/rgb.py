"""From pictures of any mode to 8-bit RGB; needs no torch."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageOps


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, from 5 on the picture lies on its side; 1 for unreadable EXIF data."""
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF data raises errors of many types, and says nothing about the pixels
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; unreadable EXIF data is passed over."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data raises errors of many types, and says nothing about the pixels
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: transparency on white, CMYK by its profile, 16-bit and float grey scaled to 8 bits."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image)
    if image.has_transparency_data:
        # Of premultiplied grey, Pillow makes nothing but LA.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    if image.mode == "CMYK":
        return _from_cmyk(image)
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Scaled here, transparent level included, because Pillow's conversions clip at 255."""
    values = np.asarray(image)
    levels = _to_8_bit(values)
    if "transparency" in image.info:
        levels[values == image.info["transparency"]] = 255
    return Image.fromarray(levels).convert("RGB")


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):  # a broken profile, or one of another colour space
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale ``[H, W]`` integers or floats of any range to 8 bits; negative values and NaN become 0."""
    levels = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    largest = float(levels.max())
    scales = (65535.0,) if np.issubdtype(values.dtype, np.integer) else (1.0, 255.0, 65535.0)
    full_scale = next((scale for scale in scales if largest <= scale), largest)
    return np.rint(levels * (255.0 / full_scale)).astype(np.uint8)

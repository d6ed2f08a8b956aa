"""Pictures of objects as small premultiplied images, read once and drawn at any size, angle and colour."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixreorg.errors import MixreorgError

# Side of the rasterised pictures in pixels; drawing larger than this blurs.
MASTER_SIZE = 288
_SMALLEST_LEVEL = 24


@dataclass(frozen=True)
class Picture:
    """One picture, cut to its opaque box, at halving sizes."""

    levels: tuple[Image.Image, ...]
    """Premultiplied images (mode RGBa), largest first."""

    def draw(self, longer_side: float, degrees: float, mirrored: bool) -> NDArray[np.float32]:
        """Draw the picture turned, so that the longer side of its upright box is ``longer_side`` pixels.

        Returns:
            ``[h, w, 4]`` float32 in 0 to 255, premultiplied RGB and alpha; ``h`` and ``w`` are at most
            ``longer_side``, rounded.
        """
        width, height = self.levels[0].size
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        box_width = width * abs(cosine) + height * abs(sine)
        box_height = width * abs(sine) + height * abs(cosine)
        zoom = longer_side / max(box_width, box_height)
        # The level just above the wanted size: bicubic sampling of a much larger one would alias.
        level = min(max(int(math.log2(1.0 / zoom)), 0), len(self.levels) - 1) if zoom < 1.0 else 0
        source = self.levels[level]
        out_width, out_height = max(round(box_width * zoom), 1), max(round(box_height * zoom), 1)
        step_x, step_y = source.width / (width * zoom), source.height / (height * zoom)
        turn_xx, turn_xy = cosine * step_x, sine * step_x
        turn_yx, turn_yy = -sine * step_y, cosine * step_y
        if mirrored:
            turn_xx, turn_xy = -turn_xx, -turn_xy
        middle_x, middle_y = out_width / 2, out_height / 2
        coefficients = (
            turn_xx,
            turn_xy,
            source.width / 2 - turn_xx * middle_x - turn_xy * middle_y,
            turn_yx,
            turn_yy,
            source.height / 2 - turn_yx * middle_x - turn_yy * middle_y,
        )
        drawn = source.transform(
            (out_width, out_height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
        )
        return np.asarray(drawn, dtype=np.float32)


def read_svg(text: str, source: str) -> Picture:
    """Rasterise a drawing; no font of the machine is used.

    Args:
        text: the SVG document.
        source: what error messages call it.

    Raises:
        MixreorgError: resvg-py is not installed, or the drawing is broken or empty.
    """
    try:
        png = _renderer()(svg_string=text, width=MASTER_SIZE, height=MASTER_SIZE, skip_system_fonts=True)
    except ValueError as error:
        raise MixreorgError(f"{source} is not a valid SVG ({error}); replace or remove it") from error
    with Image.open(io.BytesIO(png)) as rendered:
        return _picture(rendered.convert("RGBA"), source)


def read_png(data: bytes, source: str) -> Picture:
    """Read a picture that is transparent around its object; a larger one than is ever drawn is reduced.

    Args:
        data: the file.
        source: what error messages call it.

    Raises:
        MixreorgError: the picture is damaged, empty, or has no transparency.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                raise MixreorgError(
                    f"{source} has no transparency, so nothing says where its object is; save a cut-out, as RGBA"
                )
            return _picture(image.convert("RGBA"), source)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise MixreorgError(f"{source} is not a readable PNG ({error}); replace or remove it") from error


def colour_matrix(hue_degrees: float, brightness: float) -> NDArray[np.float32]:
    """A ``[3, 3]`` matrix that turns the hue of RGB columns about the grey axis and scales them.

    It keeps the mean of the channels (up to ``brightness``) and is linear, so it may act on premultiplied colours.
    """
    cosine, sine = math.cos(math.radians(hue_degrees)), math.sin(math.radians(hue_degrees))
    mean, side = (1.0 - cosine) / 3.0, sine / math.sqrt(3.0)
    turn = [
        [cosine + mean, mean - side, mean + side],
        [mean + side, cosine + mean, mean - side],
        [mean - side, mean + side, cosine + mean],
    ]
    return np.array(turn, dtype=np.float32) * np.float32(brightness)


def missing_library(error: ImportError) -> MixreorgError:
    """The error for a library that drawing needs and this environment lacks."""
    return MixreorgError(
        f"drawing scenes needs {error.name}, which is not installed; run: pip install 'mixreorg[train]'"
    )


def _picture(image: Image.Image, source: str) -> Picture:
    # A soft halo does not count as the picture's extent.
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox()
    if box is None:
        raise MixreorgError(f"{source} shows nothing: every pixel is transparent; replace or remove it")
    # Premultiplied before any sampling: colours hidden in transparent pixels must not bleed into the edges.
    largest = image.crop(box).convert("RGBa")
    largest.thumbnail((MASTER_SIZE, MASTER_SIZE), Image.Resampling.BOX)
    levels = [largest]
    while max(levels[-1].size) > _SMALLEST_LEVEL:
        levels.append(levels[-1].reduce(2))
    return Picture(tuple(levels))


@cache
def _renderer() -> Callable[..., bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise missing_library(error) from error
    return svg_to_bytes

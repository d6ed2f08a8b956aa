"""Procedural textures of background stuff.

Each public function draws one texture, ``[512, 512, 3]`` RGB uint8, from a generator. Details are mostly 3 to 60
pixels wide: a scene shows a cut-out of 0.8 to 2 times its own side, so they are visible at 64 px as well as at 224.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEXTURE_SIZE = 512

Plane = NDArray[np.float32]
Texture = NDArray[np.uint8]
Colour = tuple[int, int, int]


def grass(rng: np.random.Generator) -> Texture:
    """Blades: noise drawn out vertically, in greens."""
    blades = 0.65 * _noise(rng, 3.0, 14.0) + 0.35 * _noise(rng, 40.0)
    return _ramp(blades, [(24, 92, 20), (60, 148, 40), (104, 188, 60), (150, 214, 90)])


def sand(rng: np.random.Generator) -> Texture:
    """Fine grain on soft dunes."""
    values = 0.55 * _noise(rng, 70.0, 24.0) + 0.45 * _noise(rng, 1.5)
    return _ramp(values, [(196, 158, 104), (226, 194, 140), (242, 218, 170)])


def water(rng: np.random.Generator) -> Texture:
    """Horizontal ripples with bright crests."""
    ripples = _noise(rng, 34.0, 7.0)
    crest = np.abs(ripples - 0.5) * 2.0
    return _ramp(0.6 * crest + 0.4 * _noise(rng, 90.0, 40.0), [(150, 214, 240), (44, 140, 206), (16, 90, 168)])


def brick(rng: np.random.Generator) -> Texture:
    """A running bond of bricks, each of its own shade, with mortar between them."""
    return _masonry(rng, 64, 32, 0.5, 4, [(132, 50, 38), (176, 78, 56), (200, 104, 78)], (206, 198, 186))


def sky(rng: np.random.Generator) -> Texture:
    """Soft clouds on blue."""
    return _ramp(_noise(rng, 110.0, 60.0) ** 1.4, [(84, 158, 228), (132, 190, 240), (208, 230, 250), (250, 252, 255)])


def wood(rng: np.random.Generator) -> Texture:
    """Planks with a grain along them."""
    rows, row = _rows(64, 3)
    grain = 0.7 * _noise(rng, 90.0, 3.0) + 0.3 * rng.random(TEXTURE_SIZE // 64).astype(np.float32)[row]
    return _paint(_ramp(grain, [(104, 62, 30), (150, 96, 50), (190, 134, 80)]), rows, (62, 36, 18))


def snow(rng: np.random.Generator) -> Texture:
    """White with blue hollows and a little sparkle."""
    values = 0.8 * _noise(rng, 60.0, 40.0) + 0.2 * _noise(rng, 2.0)
    return _ramp(values, [(196, 212, 236), (232, 240, 250), (255, 255, 255)])


def tiles(rng: np.random.Generator) -> Texture:
    """Square tiles of two shades with joints."""
    return _masonry(rng, 64, 64, 0.0, 5, [(120, 190, 196), (150, 212, 214), (216, 238, 236)], (244, 244, 240))


def cobblestone(rng: np.random.Generator) -> Texture:
    """Rounded grey stones in dark joints."""
    return _stones(rng, 48, [(96, 98, 104), (134, 136, 140), (172, 172, 172)], (46, 46, 50))


def soil(rng: np.random.Generator) -> Texture:
    """Dark brown clods."""
    values = 0.5 * _noise(rng, 12.0) + 0.5 * _noise(rng, 4.0)
    return _ramp(values, [(40, 24, 14), (78, 50, 30), (112, 76, 46)])


def tablecloth(rng: np.random.Generator) -> Texture:
    """Red and white gingham."""
    stripe = (np.arange(TEXTURE_SIZE) // 32 % 2).astype(np.float32)
    values = 0.46 * (stripe[:, None] + stripe[None, :]) + 0.08 * _noise(rng, 2.0)
    return _ramp(values, [(252, 248, 244), (226, 110, 108), (190, 26, 36)])


def hedge(rng: np.random.Generator) -> Texture:
    """Small dark leaves, lighter in their middle."""
    return _stones(rng, 22, [(28, 84, 48), (44, 112, 58), (84, 144, 70)], (10, 40, 26))


def pebbles(rng: np.random.Generator) -> Texture:
    """Small stones of many colours."""
    colours: list[Colour] = [
        (120, 96, 84),
        (206, 196, 182),
        (150, 160, 172),
        (232, 222, 206),
        (176, 140, 116),
    ]
    return _stones(rng, 26, colours, (86, 74, 66))


def straw(rng: np.random.Generator) -> Texture:
    """Crossing yellow stalks."""
    stalks = np.maximum(_noise(rng, 46.0, 3.0), np.roll(_noise(rng, 3.0, 46.0), 17, axis=0))
    return _ramp(stalks**2, [(120, 84, 20), (206, 160, 50), (244, 212, 104)])


def asphalt(rng: np.random.Generator) -> Texture:
    """Dark grey with speckles."""
    values = 0.7 * _noise(rng, 2.0) + 0.3 * _noise(rng, 60.0)
    return _ramp(values, [(40, 42, 46), (70, 72, 76), (112, 114, 118)])


def lava(rng: np.random.Generator) -> Texture:
    """Glowing cracks in black crust."""
    crack = np.abs(_noise(rng, 36.0) - 0.5) * 2.0
    return _ramp(crack, [(255, 222, 80), (250, 110, 20), (120, 20, 10), (36, 14, 14), (28, 14, 14)])


def outer_space(rng: np.random.Generator) -> Texture:
    """Stars and faint nebulae on black."""
    texture = _ramp(_noise(rng, 110.0), [(4, 4, 18), (16, 10, 44), (54, 24, 84)])
    for row, column in rng.integers(0, TEXTURE_SIZE - 3, size=(420, 2)):
        side = int(rng.integers(1, 4))
        texture[row : row + side, column : column + side] = 255 - int(rng.integers(0, 90))
    return texture


def sheet_metal(rng: np.random.Generator) -> Texture:
    """Corrugated steel with brushed streaks."""
    wave = 0.5 + 0.5 * np.sin(np.arange(TEXTURE_SIZE, dtype=np.float32) * (2 * np.pi / 32))
    values = 0.7 * wave[None, :] + 0.3 * _noise(rng, 2.0, 60.0)
    return _ramp(values, [(92, 102, 112), (158, 168, 178), (222, 228, 234)])


def carpet(rng: np.random.Generator) -> Texture:
    """A purple weave with diamonds."""
    line = np.abs((np.arange(TEXTURE_SIZE) % 64) - 32).astype(np.float32)
    diamond = ((line[:, None] + line[None, :]) % 32 < 10).astype(np.float32)
    values = 0.6 * diamond + 0.4 * _noise(rng, 2.0)
    return _ramp(values, [(74, 24, 84), (124, 44, 122), (216, 164, 96)])


def marble(rng: np.random.Generator) -> Texture:
    """Dark green veins on white-green."""
    vein = np.abs(_noise(rng, 80.0, 30.0) - 0.5) * 2.0
    return _ramp(np.sqrt(vein), [(70, 84, 80), (150, 164, 158), (226, 230, 222), (246, 246, 240)])


def _noise(rng: np.random.Generator, width: float, height: float | None = None) -> Plane:
    """Smooth periodic noise in [0, 1] whose blobs are about ``width`` by ``height`` pixels."""
    height = width if height is None else height
    spectrum = np.fft.rfft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE)))
    rows = np.fft.fftfreq(TEXTURE_SIZE)[:, None] * height
    columns = np.fft.rfftfreq(TEXTURE_SIZE)[None, :] * width
    field = np.fft.irfft2(spectrum * np.exp(-2.0 * (rows**2 + columns**2)), s=(TEXTURE_SIZE, TEXTURE_SIZE))
    field -= field.mean()
    noise: Plane = np.clip(0.5 + field / (5.0 * field.std()), 0.0, 1.0).astype(np.float32)
    return noise


def _ramp(values: Plane, colours: Sequence[Colour]) -> Texture:
    """Map [0, 1] through equally spaced colours."""
    stops = np.linspace(0.0, 1.0, len(colours))
    channels = [np.interp(values, stops, [colour[channel] for colour in colours]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _paint(texture: Texture, mask: NDArray[np.bool_], colour: Colour) -> Texture:
    texture[mask] = colour
    return texture


def _rows(height: int, joint: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Joints of horizontal courses, ``[512, 512]``, and the course of each row, ``[512, 1]``."""
    row = np.arange(TEXTURE_SIZE)[:, None]
    joints = np.broadcast_to(row % height < joint, (TEXTURE_SIZE, TEXTURE_SIZE))
    return joints, row // height


def _masonry(
    rng: np.random.Generator,
    width: int,
    height: int,
    offset: float,
    joint: int,
    colours: Sequence[Colour],
    mortar: Colour,
) -> Texture:
    """Courses of ``width`` by ``height`` blocks; every other course is shifted by ``offset`` blocks."""
    joints, course = _rows(height, joint)
    column = (np.arange(TEXTURE_SIZE)[None, :] + (course % 2) * int(offset * width)) % TEXTURE_SIZE
    shade = rng.random((TEXTURE_SIZE // height, TEXTURE_SIZE // width)).astype(np.float32)
    values = 0.75 * shade[course, column // width] + 0.25 * _noise(rng, 3.0)
    return _paint(_ramp(values, colours), joints | (column % width < joint), mortar)


def _stones(rng: np.random.Generator, width: int, colours: Sequence[Colour], joint: Colour) -> Texture:
    """Cells around one jittered point per square of about ``width`` pixels (periodic Worley noise)."""
    count = TEXTURE_SIZE // width
    pitch = TEXTURE_SIZE / count
    points = rng.uniform(0.15, 0.85, size=(count, count, 2))
    shade = rng.random((count, count)).astype(np.float32)
    position = (np.arange(TEXTURE_SIZE) + 0.5) / pitch
    cell = position.astype(np.int64)
    nearest = np.full((TEXTURE_SIZE, TEXTURE_SIZE), np.inf)
    second = nearest.copy()
    values = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            rows, columns = (cell + down)[:, None], (cell + right)[None, :]
            point = points[rows % count, columns % count]
            distance = np.hypot(position[:, None] - rows - point[..., 0], position[None, :] - columns - point[..., 1])
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            nearest = np.where(closer, distance, nearest)
            values = np.where(closer, shade[rows % count, columns % count], values)
    rounding = np.clip(second - nearest, 0.0, 0.4) / 0.4
    texture = _ramp(values, colours).astype(np.float32) * (0.72 + 0.28 * rounding[..., None])
    return _paint(texture.astype(np.uint8), rounding < 0.28, joint)

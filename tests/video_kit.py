"""Small clips made by PyAV, and a labeller that needs no model."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.segment.protocol import Protocol
from mixreorg.segment.results import Segmentation

Pixels = npt.NDArray[np.uint8]
PROTOCOL = Protocol(name="test", short_side=32, window=32, stride=16)
TICKS = 1000


def write_clip(
    path: Path,
    frames: Sequence[Pixels],
    times: Sequence[float] | None = None,
    rate: int = 10,
    codec: str = "libx264",
    last: float | None = None,
) -> Path:
    """A clip of ``[H, W, 3]`` frames at ``times`` in seconds, or at the rate; the format is that of the suffix.

    The last frame is shown for ``last`` seconds, by default as long as the rate says.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        stream.options = {"crf": "0", "preset": "ultrafast"} if codec == "libx264" else {}
        stream.codec_context.time_base = Fraction(1, TICKS)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round((number / rate if times is None else times[number]) * TICKS)
            frame.time_base, frame.duration = Fraction(1, TICKS), TICKS // rate
            if last is not None and number == len(frames) - 1:
                frame.duration = round(last * TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: Sequence[int]) -> None:
    """Write a display matrix [a b; c d] into an MP4 file, as phones held upright do."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def shades(count: int, height: int = 48, width: int = 64) -> list[Pixels]:
    """Frames of one grey each, brighter and brighter."""
    return [np.full((height, width, 3), 20 + number * 200 // max(1, count - 1), np.uint8) for number in range(count)]


def read_back(path: Path) -> list[tuple[float, Pixels]]:
    """Times and pixels of a video's frames."""
    with av.open(str(path)) as container:
        assert not container.streams.audio
        return [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def label_bright(image: Image.Image) -> Segmentation:
    """Pixels over 128: day; others: night."""
    labels = (np.asarray(image)[..., 0] > 128).astype(np.uint8)
    return Segmentation(labels, ("night", "day"), np.ones(2, np.float32), PROTOCOL)

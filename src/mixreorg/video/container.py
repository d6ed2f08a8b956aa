"""Video files and cameras through PyAV (the extra ``video``): frames the right way up, at their times."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    import av

_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_TICKS = 90_000
"""Ticks per second of written times, as in MPEG: every usual frame rate falls on whole ones."""
_LEAST_SHARE = 0.95
"""Share of the frames that a file announces below which it is truncated; edit lists may cut off a few."""


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    index: int
    """Place among all frames of the video, from 0."""
    seconds: float
    """Time after the first frame."""
    image: Image.Image
    """RGB, the right way up; all frames of a video have one size."""


class VideoReader:
    """An open video file or camera.

    >>> with contextlib.closing(VideoReader("clip.mp4")) as reader:
    ...     for frame in reader.frames():
    ...         ...
    """

    def __init__(self, source: str, *, camera: bool = False) -> None:
        """Open.

        Args:
            source: path of a file; of a camera its device (``/dev/video0``; ``0`` on macOS; ``video=NAME`` on Windows).
            camera: whether it is a camera.

        Raises:
            MixreorgError: missing, not a video, or a device that cannot be opened.
            ModuleNotFoundError: PyAV is missing.
        """
        self._name = f"the camera {source}" if camera else f"the video {source}"
        self._is_camera = camera
        self._container = self._open_camera(source) if camera else self._open_file(Path(source))
        if not self._container.streams.video or self._container.format.name.endswith(("_pipe", "image2")):
            self.close()
            raise MixreorgError(f"{source} holds no video; photos are for `mixreorg segment`")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"

    def close(self) -> None:
        """Close the file or give back the camera."""
        self._container.close()

    @property
    def rate(self) -> Fraction:
        """Frames per second: the average, or what the file says, or 25."""
        return self._stream.average_rate or self._stream.guessed_rate or Fraction(25)

    @property
    def num_frames(self) -> int | None:
        """Number of frames that the file announces or its length gives; None where nothing tells, as of cameras."""
        if self._is_camera:
            return None
        if self._stream.frames:
            return self._stream.frames
        length = self._container.duration
        return None if length is None else max(1, round(length / 1e6 * self.rate))

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every ``every``-th frame, in order of time.

        Raises:
            MixreorgError: damaged data, or an end before the announced one; all frames before were given.
        """
        import av

        index, first, size = -1, None, None
        end, longest = None, float(1 / self.rate)
        try:
            for index, frame in enumerate(self._container.decode(self._stream)):
                if frame.time is not None:
                    # A picture may stay, the last one longer than all others; it then says for how long.
                    since = 0.0 if end is None else frame.time - end
                    own = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
                    longest, end = max(longest, since, own), frame.time
                if index % every:
                    continue
                first = frame.time if first is None else first
                known = frame.time is not None and first is not None
                image = _upright(frame)
                size = size or image.size
                image = image if image.size == size else image.resize(size)
                yield Frame(index, frame.time - first if known else float(index / self.rate), image)
        except av.error.FFmpegError as error:
            raise MixreorgError(
                f"{self._name} is damaged after {index + 1} frames ({error.strerror}); restore the file"
            ) from error
        announced = self._stream.frames
        if index < 0 or index + 1 < _LEAST_SHARE * announced:
            many = f"{index + 1} of {announced} frames" if announced else f"{index + 1} frames"
            raise MixreorgError(f"{self._name} is truncated: it ends after {many}; restore the file")
        length = self._announced_length()
        if length is not None and end is not None and end + longest < _LEAST_SHARE * length:
            raise MixreorgError(
                f"{self._name} is truncated: it ends after {end:.1f} of {length:.1f} s; restore the file"
            )

    def _announced_length(self) -> float | None:
        """Seconds of the video by the header of a Matroska or WebM file, which counts no frames; else None.

        Of other formats without a count FFmpeg takes the length from what is left of the file.
        """
        if self._stream.frames or "matroska" not in self._container.format.name:
            return None
        hours, _, rest = self._stream.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        try:
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        except ValueError:
            pass
        # The whole is as long as the longest of its streams.
        whole = self._container.duration
        return None if whole is None or len(self._container.streams) > 1 else whole / 1e6

    def _open_file(self, path: Path) -> "av.container.InputContainer":
        import av

        if not path.is_file():
            raise MixreorgError(f"there is no video at {path}; a camera needs --camera")
        try:
            # FFmpeg lets what a file lists be files alone: a playlist does not reach the network.
            return av.open(str(path.absolute()))
        except av.error.FFmpegError as error:
            raise MixreorgError(
                f"{self._name} is truncated, or not a video in any format FFmpeg reads ({error.strerror}); restore the "
                "file, or name a video"
            ) from error

    def _open_camera(self, device: str) -> "av.container.InputContainer":
        import av

        form = _CAMERA_FORMATS.get(sys.platform, "v4l2")
        try:
            return av.open(device, format=form)
        except (av.error.FFmpegError, ValueError) as error:
            reason = error.strerror if isinstance(error, av.error.FFmpegError) else str(error)
            raise MixreorgError(
                f"cannot open {self._name} by {form}: {reason}; give its device, on Linux for example /dev/video0, "
                "and see that no other program uses it"
            ) from error


class VideoWriter:
    """An MP4 file without sound, H.264 where PyAV has an encoder for it, else MPEG-4."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        """Open for writing; the first frame decides the size.

        Args:
            path: what to write.
            rate: frames per second to expect; every frame has its own time all the same.
        """
        import av

        self._rate, self._last = rate, -1
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None

    def add(self, picture: Image.Image, seconds: float) -> None:
        """Append a picture that is shown from ``seconds`` on, or right after the one before.

        Args:
            picture: RGB; an odd last row or column is cut off, for the format stores colours of 2 x 2 pixels.
            seconds: after the beginning.

        Raises:
            MixreorgError: a full disk, or a picture that the encoder does not take.
        """
        import av

        even = picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))
        if self._stream is None:
            self._stream = self._new_stream(even.size)
        frame = av.VideoFrame.from_ndarray(np.asarray(even), format="rgb24")
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        frame.duration = round(_TICKS / self._rate)
        self._mux(frame)

    def close(self) -> None:
        """Finish the file.

        Raises:
            MixreorgError: a full disk.
        """
        import av

        if self._stream is not None:
            self._mux(None)
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise MixreorgError(f"cannot write the video: {error.strerror}") from error

    def _new_stream(self, size: tuple[int, int]) -> Any:
        import av

        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, rate=self._rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "veryfast"}
        else:
            # MPEG-4 has at most 65,535 ticks per second.
            stream.codec_context.time_base = Fraction(1, _TICKS // 9)
            stream.options = {"qscale": "3"}
        return stream

    def _mux(self, frame: "av.VideoFrame | None") -> None:
        import av

        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except av.error.FFmpegError as error:
            raise MixreorgError(f"cannot write the video: {error.strerror}") from error


def _upright(frame: "av.VideoFrame") -> Image.Image:
    """The picture, turned as its display matrix says."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)

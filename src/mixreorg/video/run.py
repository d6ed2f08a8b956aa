"""Segment a video: an overlay video with a legend, a JSON file, and label maps of the frames on request."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically, write_json
from mixreorg.palette import hex_color
from mixreorg.segment.drawing import draw_legend, draw_overlay
from mixreorg.segment.results import Segmentation
from mixreorg.video.container import Frame, VideoReader, VideoWriter

Label = Callable[[Image.Image], Segmentation]


@dataclass(frozen=True)
class VideoJob:
    """What is to be done with a video."""

    label: Label
    """Called frame by frame, in order."""
    out: Path
    """Folder of the results."""
    stem: str
    """What their names begin with."""
    every: int = 1
    """Of so many frames one is segmented and shown; the video keeps its length."""
    max_frames: int | None = None
    """Stop after so many segmented frames; a camera has no end of its own."""
    labels: bool = False
    """Write the label map of every segmented frame."""

    @property
    def overlay_path(self) -> Path:
        """The overlay video."""
        return self.out / f"{self.stem}_overlay.mp4"

    def label_path(self, frame: Frame) -> Path:
        """The label map of a frame; the number is that among all frames, from 0."""
        return self.out / f"{self.stem}_labels" / f"{frame.index:06d}.png"


@dataclass
class VideoTotals:
    """What is counted while a video runs; nothing grows with its length."""

    num_frames: int = 0
    """Segmented."""
    seconds: float = 0.0
    """Time of the last one after the first."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the frames in pixels."""
    area_share: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """``[C]`` sum over the frames."""
    changed: float = 0.0
    """Sum over the frames but the first: share of pixels with another label than in the frame before."""
    interrupted: bool = False
    """Whether the video was stopped before its end."""

    def add(self, frame: Frame, result: Segmentation, before: Segmentation | None) -> None:
        """Count a frame and the one before it."""
        self.area_share = result.area_share + (self.area_share if before else 0)
        if before is not None:
            self.changed += float(np.mean(result.label_map != before.label_map))
        self.num_frames += 1
        self.seconds, self.size = frame.seconds, result.size

    def to_dict(self, result: Segmentation) -> dict[str, Any]:
        """Plain values; ``result`` is that of any frame, for the names and colours."""
        pairs = max(1, self.num_frames - 1)
        return {
            "size": {"width": self.size[0], "height": self.size[1]},
            "num_frames": self.num_frames,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "changed_share": self.changed / pairs,
            "classes": [
                {"name": name, "index": index, "color": hex_color(color), "area_share": share / self.num_frames}
                for index, (name, color, share) in enumerate(
                    zip(result.class_names, result.colors, self.area_share.tolist(), strict=True)
                )
            ],
        }


def segment_video(
    reader: VideoReader, job: VideoJob, made_by: dict[str, Any], advance: Callable[[], None] | None = None
) -> VideoTotals:
    """Segment a video and write ``STEM_overlay.mp4``, ``STEM.json`` and, if asked for, ``STEM_labels/*.png``.

    An interruption (``KeyboardInterrupt``), a damaged frame or a truncated end finish the files with the frames until
    then.

    Args:
        reader: the opened video or camera.
        job: what to do.
        made_by: plain values that the JSON says the labels come from.
        advance: called after every segmented frame.

    Returns:
        What was counted.

    Raises:
        MixreorgError: damaged or truncated video, after writing what could be read; a full disk.
    """
    run = _Run(job, advance)
    write_atomically(job.overlay_path, lambda path: run.write(reader, path))
    assert run.last is not None
    if job.labels:
        _remove_earlier_maps(job, run.last_index)
    write_json(job.out / f"{job.stem}.json", {**run.totals.to_dict(run.last), "made_by": made_by})
    if run.error is not None:
        raise MixreorgError(f"{run.error}; until there it is in {job.overlay_path}") from run.error
    return run.totals


class _Run:
    """The state of one video."""

    def __init__(self, job: VideoJob, advance: Callable[[], None] | None) -> None:
        self.job, self.advance = job, advance
        self.totals = VideoTotals()
        self.last: Segmentation | None = None
        self.last_index = -1
        self.error: MixreorgError | None = None
        self.legend: Image.Image | None = None

    def write(self, reader: VideoReader, path: Path) -> None:
        """Fill the overlay video."""
        writer = VideoWriter(path, Fraction(reader.rate / self.job.every))
        # One thread each: the frames of a video are read and written in order.
        with ThreadPoolExecutor(1, "write") as pool:
            frames = _read_ahead(reader.frames(self.job.every))
            try:
                self._segment(frames, writer, pool)
            except KeyboardInterrupt:
                if self.last is None:
                    raise
                self.totals.interrupted = True
            except MixreorgError as error:
                if self.last is None:
                    raise
                self.error = error
            finally:
                frames.close()
        writer.close()

    def _segment(self, frames: Iterator[Frame], writer: VideoWriter, pool: ThreadPoolExecutor) -> None:
        written: Future[None] | None = None
        for frame in frames:
            result = self.job.label(frame.image)
            self.totals.add(frame, result, self.last)
            self.last, self.last_index = result, frame.index
            if written is not None:
                written.result()
            written = pool.submit(self._write_frame, frame, result, writer)
            if self.advance is not None:
                self.advance()
            if self.totals.num_frames == self.job.max_frames:
                break
        if written is not None:
            written.result()

    def _write_frame(self, frame: Frame, result: Segmentation, writer: VideoWriter) -> None:
        if self.legend is None:
            self.legend = _legend(result, frame.image.size)
        writer.add(_with_legend(_overlay(frame.image, result), self.legend), frame.seconds)
        if self.job.labels:
            write_atomically(self.job.label_path(frame), lambda path: result.label_image().save(path, format="PNG"))


def _remove_earlier_maps(job: VideoJob, last_index: int) -> None:
    """Remove what another call left between and behind this one's maps: a folder holds those of one call."""
    for path in (job.out / f"{job.stem}_labels").glob("*.png"):
        if path.stem.isdecimal() and (int(path.stem) > last_index or int(path.stem) % job.every):
            path.unlink()


def _read_ahead(frames: Iterator[Frame]) -> Generator[Frame]:
    """The same frames, each decoded by a thread while the one before is used."""
    with ThreadPoolExecutor(1, "read") as pool:
        coming = pool.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = pool.submit(next, frames, None)
            yield frame


def _overlay(image: Image.Image, result: Segmentation) -> Image.Image:
    clear = 0 if result.has_background else None
    return draw_overlay(image, result.label_map, result.colors, clear_index=clear, min_side=0, max_side=max(image.size))


def _legend(result: Segmentation, size: tuple[int, int]) -> Image.Image:
    """The same below every frame: all classes, in the order of the list."""
    first = 1 if result.has_background else 0
    entries = list(zip(result.class_names, result.colors, strict=True))[first:]
    return draw_legend(entries, size[0], max(13, round(max(size) / 48)))


def _with_legend(picture: Image.Image, legend: Image.Image) -> Image.Image:
    width = max(picture.width, legend.width)
    canvas = Image.new("RGB", (width, picture.height + legend.height), (255, 255, 255))
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    canvas.paste(legend, (0, picture.height))
    return canvas

"""Frames at their times and the right way up; files that are no videos, damaged or truncated."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.video.container import Frame, VideoReader, VideoWriter
from video_kit import read_back, shades, turn, write_clip


@contextlib.contextmanager
def opened(path: Path) -> Iterator[VideoReader]:
    with contextlib.closing(VideoReader(str(path))) as reader:
        yield reader


def frames(path: Path, every: int = 1) -> list[Frame]:
    with opened(path) as reader:
        return list(reader.frames(every))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_come_in_order_with_their_times(suffix: str, tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.25, 0.3, 0.9]
    clip = write_clip(tmp_path / f"clip.{suffix}", shades(5), times)
    found = frames(clip)
    assert [frame.index for frame in found] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in found] == pytest.approx(times, abs=0.002)
    greys = [np.asarray(frame.image)[20, 20, 0] for frame in found]
    assert greys == pytest.approx([20, 70, 120, 170, 220], abs=3)


def test_the_number_of_frames_is_known_beforehand(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):  # one says it, the other says its length
        with opened(write_clip(tmp_path / f"clip.{suffix}", shades(7))) as reader:
            assert reader.num_frames == 7
            assert reader.rate == 10


def test_every_third_frame(tmp_path: Path) -> None:
    found = frames(write_clip(tmp_path / "clip.mp4", shades(8)), every=3)
    assert [frame.index for frame in found] == [0, 3, 6]
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.3, 0.6], abs=0.002)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    # Where the upper left corner of the stored frame is shown. Angles clockwise: 0, 90 (a phone held upright), ...
    [
        ((1, 0, 0, 1), "upper left"),
        ((0, 1, -1, 0), "upper right"),
        ((-1, 0, 0, -1), "lower right"),
        ((0, -1, 1, 0), "lower left"),
    ],
)
def test_frames_are_turned_the_right_way_up(matrix: tuple[int, ...], corner: str, tmp_path: Path) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:16, :16] = 255
    turn(write_clip(tmp_path / "clip.mp4", [stored] * 3), matrix)
    image = frames(tmp_path / "clip.mp4")[0].image
    assert image.size == ((64, 48) if matrix[0] else (48, 64))
    pixels = np.asarray(image)[..., 0]
    rows = pixels if corner.startswith("upper") else pixels[::-1]
    shown = rows if corner.endswith("left") else rows[:, ::-1]
    assert shown[8, 8] > 250
    assert pixels.mean() < 40


def test_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.jpg")
    for name in ("noise.mp4", "empty.mp4"):
        with pytest.raises(MixreorgError, match="truncated, or not a video"):
            VideoReader(str(tmp_path / name))
    for name in ("photo.png", "photo.jpg"):
        with pytest.raises(MixreorgError, match="mixreorg segment"):
            VideoReader(str(tmp_path / name))
    with pytest.raises(MixreorgError, match="there is no video at"):
        VideoReader(str(tmp_path / "nowhere.mp4"))


def test_a_truncated_file_gives_its_frames_and_then_an_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = tmp_path / "whole.mp4"
    writer = VideoWriter(path, Fraction(10))
    for number, pixels in enumerate(noise):
        writer.add(Image.fromarray(pixels), number / 10)
    writer.close()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found = []
    with opened(path) as reader, pytest.raises(MixreorgError, match="truncated: it ends after") as caught:
        found.extend(reader.frames())
    assert 5 < len(found) < 25
    assert "whole.mp4" in str(caught.value)
    assert "restore the file" in str(caught.value)


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_truncated_file_that_counts_no_frames_is_known_by_its_length(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = write_clip(tmp_path / f"whole.{suffix}", noise, codec="libvpx" if suffix == "webm" else "libx264")
    assert len(frames(path)) == 30
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found = []
    with opened(path) as reader, pytest.raises(MixreorgError, match=r"truncated: it ends after \d\.\d of 3\.0 s"):
        found.extend(reader.frames())
    assert 5 < len(found) < 25


def test_a_last_picture_that_stays_is_no_truncation(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "slides.mkv", shades(4), [0.0, 2.0, 4.0, 6.0])
    assert [frame.seconds for frame in frames(clip)] == pytest.approx([0, 2, 4, 6])
    for count in (1, 3):
        clip = write_clip(tmp_path / "held.mkv", shades(count), [2.0 * number for number in range(count)], last=10.0)
        assert len(frames(clip)) == count


def test_a_playlist_does_not_reach_the_network(tmp_path: Path) -> None:
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, address = server.accept()
                    asked.append(address)
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.ts"
        playlist = tmp_path / "list.m3u8"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(MixreorgError, match="not a video"):
            frames(playlist)
        server.shutdown(socket.SHUT_RDWR)
    assert asked == []


def test_a_camera_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match=r"cannot open the camera .*/dev/video0"):
        VideoReader(str(tmp_path / "video99"), camera=True)


def test_written_frames_keep_times_and_pictures(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", Fraction(10))
    times = [0.0, 0.1, 0.1, 0.5]
    for pixels, seconds in zip(shades(4, 49, 65), times, strict=True):
        writer.add(Image.fromarray(pixels), seconds)
    writer.close()
    found = read_back(tmp_path / "out.mp4")
    # A time that does not advance is moved by a tick: formats want every frame to have its own.
    assert [seconds for seconds, _ in found] == pytest.approx(times, abs=0.001)
    assert {pixels.shape for _, pixels in found} == {(48, 64, 3)}
    assert [int(pixels.mean()) for _, pixels in found] == pytest.approx([20, 86, 153, 220], abs=4)

"""Photos in numbers: rows in order, failures apart, what is done kept, interruptions, how far reading runs ahead."""

import csv
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from mixreorg.batch import reading
from mixreorg.batch.inputs import PhotoInput
from mixreorg.batch.reading import read_ahead
from mixreorg.batch.run import BatchJob, kept_rows, segment_photos
from mixreorg.batch.summary import COLUMNS, PhotoRow, write_summary
from mixreorg.errors import MixreorgError
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.results import Segmentation

PROTOCOL = Protocol(name="test", short_side=16, window=16, stride=16)


def label(image: Image.Image) -> Segmentation:
    """Left of the photo's width in tenths: dog; the rest: =cat, a name that a table must quote."""
    if image.width == 13:
        raise MixreorgError("thin")
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    labels[:, image.width // 4 :] = 1
    return Segmentation(labels, ("dog", 'cat, "tabby"', "car"), np.array([0.5, 0.9, 0], np.float32), PROTOCOL)


def job(tmp_path: Path, workers: int = 2, segment: Callable[[Image.Image], Segmentation] = label) -> BatchJob:
    return BatchJob(segment, tmp_path / "out", {"model": "m", "classes": [["dog"]]}, workers)


@pytest.fixture
def photos(tmp_path: Path) -> list[PhotoInput]:
    """Nine photos; the fourth is damaged, the sixth too thin for the model."""
    found = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (13 if number == 5 else 20, 10), (number, 0, 0)).save(path)
        if number == 3:
            path.write_bytes(path.read_bytes()[:50])
        found.append(PhotoInput(path, PurePath("folder", str(number))))
    return found


def run(task: BatchJob, photos: list[PhotoInput]) -> list[PhotoRow]:
    rows: dict[PhotoInput, PhotoRow] = {}
    segment_photos(task, photos, rows.__setitem__)
    assert list(rows) == photos
    return list(rows.values())


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_photo_has_a_row_in_order(workers: int, tmp_path: Path, photos: list[PhotoInput]) -> None:
    rows = run(job(tmp_path, workers), photos)
    assert [row.results for row in rows] == [f"folder/{number}" for number in range(9)]
    assert [row.status for row in rows].count("segmented") == 7
    assert "3.png is damaged" in str(rows[3].error)
    assert rows[5].error == "thin"
    assert [(item.name, item.area_share) for item in rows[0].classes] == [('cat, "tabby"', 0.75), ("dog", 0.25)]
    assert rows[0].classes[0].score == pytest.approx(0.9)
    assert len(list((tmp_path / "out" / "folder").iterdir())) == 7 * 3


def test_what_is_done_is_kept_and_nothing_else(tmp_path: Path, photos: list[PhotoInput]) -> None:
    task = job(tmp_path)
    assert kept_rows(task, photos) == {}
    rows = run(task, photos)
    kept = kept_rows(task, photos)
    assert [photo for photo in photos if photo in kept] == [photos[i] for i in (0, 1, 2, 4, 6, 7, 8)]
    assert kept[photos[0]].classes == rows[0].classes
    assert kept[photos[0]].status == "kept"
    other = BatchJob(label, task.out, {**task.made_by, "model": "another"})
    assert kept_rows(other, photos) == {}


def test_a_changed_photo_and_missing_or_damaged_results_are_made_again(
    tmp_path: Path, photos: list[PhotoInput]
) -> None:
    task = job(tmp_path)
    run(task, photos)
    Image.new("RGB", (30, 10)).save(photos[0].path)
    (task.out / "folder" / "1_overlay.png").unlink()
    (task.out / "folder" / "2.json").write_text("{")
    (task.out / "folder" / "4.json").write_text("[]")
    assert set(kept_rows(task, photos)) == {photos[6], photos[7], photos[8]}
    # Another photo of the same name does not pass for the one that was done.
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(photos[6].path.read_bytes())
    assert kept_rows(task, [PhotoInput(moved, photos[6].name)]) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interruption_leaves_whole_results_and_their_rows(
    workers: int, tmp_path: Path, photos: list[PhotoInput]
) -> None:
    def interrupted(image: Image.Image) -> Segmentation:
        if image.getpixel((0, 0)) == (7, 0, 0):
            raise KeyboardInterrupt
        return label(image)

    task = job(tmp_path, workers, interrupted)
    rows: dict[PhotoInput, PhotoRow] = {}
    with pytest.raises(KeyboardInterrupt):
        segment_photos(task, photos, rows.__setitem__)
    assert list(rows) == photos[:7]
    assert [row.results for row in rows.values()] == [f"folder/{number}" for number in range(7)]
    assert len(kept_rows(task, photos)) == 5
    assert len(list((tmp_path / "out" / "folder").iterdir())) == 5 * 3


def test_an_interruption_while_a_photo_is_written_leaves_its_row(
    tmp_path: Path, photos: list[PhotoInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for what is written is where a batch mostly is."""
    asked = 0
    result = Future.result

    def interrupt_once(self: Future[PhotoRow], timeout: float | None = None) -> PhotoRow:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt
        return result(self, timeout)

    task = job(tmp_path, workers=0)
    rows: dict[PhotoInput, PhotoRow] = {}
    monkeypatch.setattr(Future, "result", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        segment_photos(task, photos, rows.__setitem__)
    assert list(rows) == photos[: len(rows)]
    assert [row.results for row in rows.values()] == [f"folder/{number}" for number in range(len(rows))]
    assert len(rows) >= 3
    assert len(list((task.out / "folder").iterdir())) == 3 * len(rows)


def test_a_photo_too_large_for_the_memory_fails_alone(tmp_path: Path, photos: list[PhotoInput]) -> None:
    def hungry(image: Image.Image) -> Segmentation:
        number = image.getpixel((0, 0))[0]  # type: ignore[index]
        if number == 1:
            raise MemoryError
        if number == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if number == 4:
            raise Exception("[ONNXRuntimeError] : Failed to allocate memory for requested buffer of size 9")
        return label(image)

    rows = run(job(tmp_path, segment=hungry), [*photos[:3], photos[4]])
    assert [row.status for row in rows] == ["segmented", "failed", "failed", "failed"]
    for row in rows[1:]:
        assert "not enough memory to segment a photo of 20 x 10 pixels" in str(row.error)

    def broken(_: Image.Image) -> Segmentation:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        run(job(tmp_path, segment=broken), photos[:1])


def test_reading_runs_ahead_of_the_model_but_not_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: list[PhotoInput]
) -> None:
    read: list[Path] = []
    fourth = threading.Event()

    def note(path: Path) -> Image.Image:
        read.append(path)
        if len(read) == 4:
            fourth.set()
        return Image.new("RGB", (20, 10))

    monkeypatch.setattr(reading, "read_photo", note)
    ahead = read_ahead(photos, 2)
    assert next(ahead)[0] == photos[0]
    assert fourth.wait(30)  # nobody has asked for it
    assert len(read) <= 5
    ahead.close()
    assert len(read) <= 5


def test_a_full_disk_fails_the_photo_and_is_named(tmp_path: Path, photos: list[PhotoInput]) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    rows = run(job(tmp_path), photos[:2])
    assert all("cannot write" in str(row.error) for row in rows)


def test_summaries(tmp_path: Path, photos: list[PhotoInput]) -> None:
    task = job(tmp_path)
    rows = run(task, photos[:4])
    write_summary(task.out, task.made_by, rows, num_photos=9)
    content = json.loads((task.out / "summary.json").read_text())
    assert (content["photos_given"], content["segmented"], content["failed"], content["kept"]) == (9, 3, 1, 0)
    assert content["interrupted"]
    assert content["made_by"] == task.made_by
    assert content["photos"][1]["classes"][0] == {
        "name": 'cat, "tabby"',
        "area_share": 0.75,
        "score": pytest.approx(0.9),
    }
    assert set(content["photos"][3]) == {"photo", "status", "error"}
    with (task.out / "summary.csv").open(newline="") as stream:
        header, *lines = csv.reader(stream)
    assert tuple(header) == COLUMNS
    assert [line[2] for line in lines] == ['cat, "tabby"', "dog"] * 3 + [""]
    assert lines[0][3] == "0.750000"
    assert "damaged" in lines[-1][-1]

"""Segment many photos: threads read and write while the model works; what is done already is kept."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mixreorg.batch.identity import photo_identity
from mixreorg.batch.inputs import PhotoInput
from mixreorg.batch.reading import read_ahead
from mixreorg.batch.summary import PhotoRow, printable
from mixreorg.errors import MixreorgError, is_out_of_memory
from mixreorg.files import read_json
from mixreorg.segment.protocol import hash_values
from mixreorg.segment.results import Segmentation


@dataclass(frozen=True)
class BatchJob:
    """What is to be done with photos, and where the results go."""

    segment: Callable[[Image.Image], Segmentation]
    """Called for one photo at a time, always from one thread."""
    out: Path
    """Folder of the results."""
    made_by: Mapping[str, Any]
    """Plain values that decide the results: model, classes, protocol, options. Results of others are made again."""
    workers: int = 2
    """Threads that read, and as many that write; 0 does one thing after the other."""

    def origin(self, photo: PhotoInput) -> dict[str, Any]:
        """What the JSON of a photo says of how it was made."""
        source = {"path": printable(str(photo.path.absolute())), **photo_identity(photo.path)}
        return {"made_by": {"hash": hash_values(dict(self.made_by)), "photo": source}}


def kept_rows(job: BatchJob, photos: Sequence[PhotoInput]) -> dict[PhotoInput, PhotoRow]:
    """Photos whose results are there and are what this job would make: same values, same file, all three results."""
    kept = {}
    for photo in photos:
        path = _path(job, photo, ".json")
        if not all(_path(job, photo, ending).is_file() for ending in ("_labels.png", "_overlay.png", ".json")):
            continue
        try:
            content = read_json(path)
            if content["made_by"] == job.origin(photo)["made_by"]:
                kept[photo] = PhotoRow.segmented(photo, "kept", content)
        except (MixreorgError, KeyError, TypeError):
            continue  # damaged, or written by something else: it is made again
    return kept


def segment_photos(job: BatchJob, photos: Sequence[PhotoInput], report: Callable[[PhotoInput, PhotoRow], None]) -> None:
    """Segment photos and write their results; a photo that cannot be done has a row that says why.

    An interruption (``KeyboardInterrupt``) comes through when the photos that are being written are finished.

    Args:
        job: what to do.
        photos: in this order.
        report: called with each photo and its row, in their order, when its files are written.
    """
    waiting: deque[tuple[PhotoInput, Future[PhotoRow]]] = deque()

    def report_first() -> None:
        # An interruption may come while this waits: the photo stays in line until it is reported.
        photo, row = waiting[0]
        report(photo, row.result())
        waiting.popleft()

    reading = read_ahead(photos, job.workers)
    try:
        with ThreadPoolExecutor(max(1, job.workers), thread_name_prefix="write") as pool:
            for photo, image in reading:
                waiting.append((photo, pool.submit(_save, job, photo, _segment(job, image))))
                while waiting and (waiting[0][1].done() or len(waiting) > 2 * job.workers):
                    report_first()
    finally:
        reading.close()
        while waiting:
            report_first()


def _segment(job: BatchJob, image: Image.Image | MixreorgError) -> tuple[Image.Image, Segmentation] | MixreorgError:
    if isinstance(image, MixreorgError):
        return image
    try:
        return image, job.segment(image)
    except MixreorgError as error:
        return error
    except Exception as error:  # of a type that each library chooses
        if not is_out_of_memory(error):
            raise
        return MixreorgError(
            f"there is not enough memory to segment a photo of {image.width} x {image.height} pixels; take a smaller "
            "photo or short side, or fewer tiles"
        )


def _save(job: BatchJob, photo: PhotoInput, segmented: tuple[Image.Image, Segmentation] | MixreorgError) -> PhotoRow:
    if isinstance(segmented, MixreorgError):
        return PhotoRow.failed(photo, segmented)
    image, result = segmented
    folder, name = job.out / photo.name.parent, printable(photo.path.name)
    try:
        result.save(folder, photo.name.name, image, name, job.origin(photo))
    except MixreorgError as error:
        return PhotoRow.failed(photo, error)
    return PhotoRow.segmented(photo, "segmented", result.to_dict(name))


def _path(job: BatchJob, photo: PhotoInput, ending: str) -> Path:
    return job.out / photo.name.parent / f"{photo.name.name}{ending}"

"""What runs in the model's process: loading the model, and batches of photos from bytes to answers."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy.typing as npt
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.export.backends import needing_torch, require_cpu
from mixreorg.export.decoding import map_segments
from mixreorg.export.runtime import ExportedSegmenter, find_export
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.request import Threshold
from mixreorg.segment.window_plan import plan_windows
from mixreorg.serve.answers import MAX_SIDE, Groups, SegmentedPhoto
from mixreorg.text.class_list import ClassName

if TYPE_CHECKING:
    from mixreorg.segment.segmenter import Segmenter

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """One photo to segment. It is sent to another process, so ``render`` is a function of a module."""

    photo: bytes
    """An image file."""
    classes: tuple[ClassName, ...]
    background: Threshold
    """Threshold below which a pixel becomes background; None for the model's own."""
    render: Callable[[SegmentedPhoto], T]
    """Makes the answer."""
    negatives: tuple[ClassName, ...] = ()
    """Names whose pixels are background."""


@dataclass(frozen=True)
class ModelFacts:
    """What the rest of the server knows of the model."""

    process_id: int
    protocol: Protocol


@dataclass(frozen=True)
class _Model:
    segmenter: "Segmenter | ExportedSegmenter"
    score_segments: Callable[[Image.Image, Sequence[ClassName]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    """Segment of each pixel ``[H, W]`` of a photo as one window, at the size of the page, and the classes' scores
    ``[S, C]`` in each."""
    max_pixels: int

    def find_groups(self, photo: Image.Image, classes: Sequence[ClassName]) -> Groups:
        segment_map, scores = self.score_segments(photo, classes)
        return Groups(
            segment_map=segment_map,
            class_names=tuple(classes[index].name for index in scores.argmax(axis=1).tolist()),
            scores=tuple(scores.max(axis=1).tolist()),
        )


_models: list[_Model] = []


def load(model: str, device: str, window_batch: int, max_pixels: int) -> ModelFacts:
    """Load the model that this process then keeps.

    Args:
        model: what :func:`mixreorg.load_model` reads, or the folder of an export.
        device: where it works.
        window_batch: windows encoded at once.
        max_pixels: refuse larger photos.

    Raises:
        MixreorgError: no such model, torch missing for it, or an export that takes neither all names nor all shapes
            of photos.
    """
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    read = _load_trained if find_export(Path(model)) is None else _load_export
    segmenter, score_segments = read(model, device, window_batch)
    _models[:] = [_Model(segmenter, score_segments, max_pixels)]
    return ModelFacts(os.getpid(), segmenter.protocol)


def _load_trained(model: str, device: str, window_batch: int) -> tuple["Segmenter", Callable[..., Any]]:
    with needing_torch(model):
        from mixreorg.interop.loading import load_model
        from mixreorg.segment import class_maps
        from mixreorg.segment.segmenter import Segmenter

    segmenter = Segmenter(load_model(model, device), window_batch=window_batch)
    whole = Segmenter(segmenter.model, _as_one_window(segmenter.protocol))

    def score_segments(photo: Image.Image, classes: Sequence[ClassName]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        output = whole.encode([photo])
        encoding = output.encoding
        scores = whole.decode(output, plan_windows(whole.protocol, *photo.size), classes).segment_scores[0]
        segments = class_maps.map_segments(encoding.patch_assignment, encoding.grid, _shown_size(photo))
        return segments[0].cpu().numpy(), scores.cpu().numpy()

    return segmenter, score_segments


def _load_export(model: str, device: str, window_batch: int) -> tuple[ExportedSegmenter, Callable[..., Any]]:
    require_cpu(device)
    segmenter = ExportedSegmenter(model, window_batch=window_batch)
    if segmenter.manifest.classes is not None:
        raise MixreorgError(f"{model} has its classes baked in, and callers name their own; export without --classes")
    if segmenter.manifest.size is not None:
        raise MixreorgError(f"{model} takes windows of one size, and photos have all shapes; export without --size")
    whole = copy(segmenter)
    whole.protocol = _as_one_window(segmenter.protocol)

    def score_segments(photo: Image.Image, classes: Sequence[ClassName]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        output = whole.encode([photo])
        segments = map_segments(output.assignment, _shown_size(photo))
        return segments[0], whole.segment_scores(output, classes)[0]

    return segmenter, score_segments


def _as_one_window(protocol: Protocol) -> Protocol:
    """The protocol without windows, to show the groups of the whole photo at once."""
    return protocol.updated(whole=True, background_threshold=None, tile_scales=(), flip=False, refine="none")


def _shown_size(photo: Image.Image) -> tuple[int, int]:
    """Height and width of a photo as the page shows it: maps of all segments at full size would fill the memory."""
    scale = min(1, MAX_SIDE / max(photo.size))
    return max(1, round(photo.height * scale)), max(1, round(photo.width * scale))


def segment_batch(jobs: Sequence[Job[Any]]) -> list[Any]:
    """Segment several photos, whose windows are encoded together.

    Returns:
        For each job its answer, or the exception that stands in the way of this one answer.
    """
    model = _models[0]
    photos = [_attempt(partial(read_photo, job.photo, model.max_pixels, name="the photo")) for job in jobs]
    read = [index for index, photo in enumerate(photos) if isinstance(photo, Image.Image)]
    outputs = dict(zip(read, _encode(model.segmenter, [photos[index] for index in read]), strict=True))
    answers = list(photos)
    for index, output in outputs.items():
        answers[index] = output
        if not isinstance(output, Exception):
            answers[index] = _attempt(partial(_answer, model, jobs[index], photos[index], output))
    return answers


def _encode(segmenter: "Segmenter | ExportedSegmenter", photos: list[Image.Image]) -> list[Any]:
    try:
        return [*segmenter.encode_each(photos)]
    except Exception:  # the one photo that it belongs to raises it again, and is answered by it
        # One photo that cannot be encoded (thinner than a patch, too large for the memory) takes no other along.
        return [_attempt(partial(segmenter.encode, [photo])) for photo in photos]


def _answer(model: _Model, job: Job[T], photo: Image.Image, output: Any) -> T:
    request = model.segmenter.request(job.classes, job.negatives or None, job.background)
    segmentation = model.segmenter.decode_photo(output, photo, request)
    return job.render(SegmentedPhoto(photo, segmentation, partial(model.find_groups, photo, job.classes)))


def _attempt(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, or the exception it raises: defects are logged with their traceback."""
    try:
        return work()
    except MixreorgError as error:
        return error
    except Exception as error:
        logging.getLogger(__name__).exception("a request met a defect")
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_the_server() -> None:
    """Where the server is killed, this process would wait for work for ever."""
    server = parent_process()
    if server is not None:
        server.join()
        os._exit(1)

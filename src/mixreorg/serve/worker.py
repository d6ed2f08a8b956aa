"""What runs in the model's process: loading the model, and batches of photos from bytes to answers."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.request import Threshold
from mixreorg.serve.answers import Groups, SegmentedPhoto
from mixreorg.text.class_list import ClassName

if TYPE_CHECKING:
    from mixreorg.models.dual_encoder import ImageOutput
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
    segmenter: "Segmenter"
    whole: "Segmenter"
    """The same model without windows: shows the groups of the whole photo at once."""
    max_pixels: int

    def find_groups(self, photo: Image.Image, classes: Sequence[ClassName]) -> Groups:
        from mixreorg.segment.class_maps import map_segments
        from mixreorg.segment.window_plan import plan_windows

        output = self.whole.encode([photo])
        plan = plan_windows(self.whole.protocol, photo.width, photo.height)
        best = self.whole.decode(output, plan, classes).segment_scores[0].max(dim=1)
        segments = map_segments(output.encoding.patch_assignment, output.encoding.grid, (photo.height, photo.width))
        return Groups(
            segment_map=segments[0].cpu().numpy(),
            class_names=tuple(classes[index].name for index in best.indices.tolist()),
            scores=tuple(best.values.tolist()),
        )


_models: list[_Model] = []


def load(model: str, device: str, window_batch: int, max_pixels: int) -> ModelFacts:
    """Load the model that this process then keeps.

    Args:
        model: what :func:`mixreorg.load_model` reads.
        device: where it works.
        window_batch: windows encoded at once.
        max_pixels: refuse larger photos.

    Raises:
        MixreorgError: no such model.
    """
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    from mixreorg.interop.loading import load_model
    from mixreorg.segment.segmenter import Segmenter

    segmenter = Segmenter(load_model(model, device), window_batch=window_batch)
    one_window = segmenter.protocol.updated(
        whole=True, background_threshold=None, tile_scales=(), flip=False, refine="none"
    )
    whole = Segmenter(segmenter.model, one_window)
    _models[:] = [_Model(segmenter, whole, max_pixels)]
    return ModelFacts(os.getpid(), segmenter.protocol)


def segment_batch(jobs: Sequence[Job[Any]]) -> list[Any]:
    """Segment several photos, whose windows are encoded together.

    Returns:
        For each job its answer, or the exception that stands in the way of this one answer.
    """
    model = _models[0]
    photos = [_attempt(partial(read_photo, job.photo, model.max_pixels)) for job in jobs]
    read = [index for index, photo in enumerate(photos) if isinstance(photo, Image.Image)]
    outputs = dict(zip(read, _encode(model.segmenter, [photos[index] for index in read]), strict=True))
    answers = list(photos)
    for index, output in outputs.items():
        answers[index] = output
        if not isinstance(output, Exception):
            answers[index] = _attempt(partial(_answer, model, jobs[index], photos[index], output))
    return answers


def _encode(segmenter: "Segmenter", photos: list[Image.Image]) -> "list[ImageOutput | Exception]":
    try:
        return [*segmenter.encode_each(photos)]
    except MixreorgError:
        # One photo that cannot be encoded (thinner than a patch) takes no other along.
        return [_attempt(partial(segmenter.encode, [photo])) for photo in photos]


def _answer(model: _Model, job: Job[T], photo: Image.Image, output: "ImageOutput") -> T:
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

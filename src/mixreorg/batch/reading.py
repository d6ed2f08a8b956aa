"""Photos decoded by threads while the model works on earlier ones."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from mixreorg.batch.inputs import PhotoInput
from mixreorg.errors import MixreorgError
from mixreorg.segment.photos import read_photo

Read = tuple[PhotoInput, Image.Image | MixreorgError]
"""A photo and its pixels, or why there are none."""


def read_ahead(photos: Iterable[PhotoInput], workers: int) -> Generator[Read]:
    """Read photos in the order given; Pillow's decoders let other threads run meanwhile.

    Args:
        photos: to read.
        workers: threads; each is at most two photos ahead. 0 reads a photo when it is asked for.
    """
    if not workers:
        yield from map(_read, photos)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    waiting: deque[Future[Read]] = deque()
    try:
        for photo in photos:
            waiting.append(pool.submit(_read, photo))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(photo: PhotoInput) -> Read:
    try:
        return photo, read_photo(photo.path)
    except MixreorgError as error:
        return photo, error

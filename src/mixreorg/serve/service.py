"""The one way from a photo and names to an answer, which the API and the page share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from mixreorg.segment.request import MaskRequest, read_names
from mixreorg.serve.answers import SegmentedPhoto
from mixreorg.serve.batching import BatchingQueue
from mixreorg.serve.limits import Limits, RefusalError, check_background, check_names, check_photo
from mixreorg.serve.metrics import Metrics
from mixreorg.serve.model_process import ModelProcess, timed_out
from mixreorg.serve.worker import Job

T = TypeVar("T")


class Service:
    """Admits requests, checks them and has them served."""

    def __init__(self, process: ModelProcess, limits: Limits) -> None:
        """Set up a server's parts around a model whose process is started."""
        self.process = process
        self.limits = limits
        self.protocol = process.facts.protocol
        self.metrics = Metrics()
        self.queue = BatchingQueue(process, limits, self.metrics)
        self._num_admitted = 0
        self.metrics.watch(lambda: self._num_admitted, lambda: process.restarts)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Serve the queue while the block lasts."""
        work = asyncio.create_task(self.queue.work())
        try:
            yield
        finally:
            work.cancel()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Give a request a place and a time for its block.

        Raises:
            RefusalError: no place is free (503), or the time is over (504).
        """
        if self._num_admitted >= self.limits.max_waiting:
            raise RefusalError(503, f"{self._num_admitted} requests wait already; try again in a second", retry_after=1)
        self._num_admitted += 1
        try:
            async with asyncio.timeout(self.limits.max_seconds):
                yield
        except TimeoutError as error:
            raise timed_out(self.limits.max_seconds) from error
        finally:
            self._num_admitted -= 1

    async def segment(
        self,
        photo: bytes,
        names: str,
        background: float | str | None,
        render: Callable[[SegmentedPhoto], T],
        negatives: str | None = None,
    ) -> T:
        """Check a request and have it served.

        Args:
            photo: an image file.
            names: class list as text.
            background: threshold, ``auto``, or None for the model's own.
            render: makes the answer; a function of a module.
            negatives: class list of names whose pixels are background.

        Raises:
            RefusalError: the request is outside the limits, or the model failed.
            MixreorgError: a class list, or a photo, that cannot be used.
        """
        num_pixels = check_photo(photo, self.limits)
        classes = check_names(names, self.limits)
        threshold = check_background(background)
        rest = check_names(negatives, self.limits) if negatives else None
        # Refuses what the model's process would, before a photo waits for it.
        request = MaskRequest(*read_names(classes, rest), self.protocol, threshold)
        return await self.queue.submit(Job(photo, classes, threshold, render, request.negatives), num_pixels)

"""Requests that wait at the same time become one batch of the model."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mixreorg.errors import MixreorgError
from mixreorg.serve.limits import Limits, RefusalError
from mixreorg.serve.metrics import Metrics
from mixreorg.serve.model_process import ModelProcess
from mixreorg.serve.worker import Job

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Waiting:
    job: Job[Any]
    num_pixels: int
    answer: asyncio.Future[Any]


class BatchingQueue:
    """Collects jobs while the model is at work, and gives it what has gathered as its next batch.

    No job waits for others to come: a lone request is served at once, and batches grow with the load alone.
    """

    def __init__(self, process: ModelProcess, limits: Limits, metrics: Metrics) -> None:
        self._process = process
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def submit(self, job: Job[T], num_pixels: int) -> T:
        """Wait for a job's answer; a cancelled wait takes the job out of the queue.

        Args:
            job: what to do.
            num_pixels: of its photo: the photos of a batch are in memory together.

        Raises:
            RefusalError: the model's process died of the job, or was ended for taking too long.
            MixreorgError: what the model's process says about the photo or the names.
        """
        waiting = _Waiting(job, num_pixels, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        try:
            answer: T = await waiting.answer
        except asyncio.CancelledError:
            # Its photo would stay in memory until the model is free.
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)
            raise
        return answer

    async def work(self) -> None:
        """Serve the queue until cancelled."""
        while True:
            while not (batch := self._next_batch()):
                self._arrived.clear()
                await self._arrived.wait()
            await self._serve(batch)
            try:
                await self._process.revive()
            except Exception:  # also OSError, where descriptors or memory are short: the next batch tries again
                logging.getLogger(__name__).exception("the model cannot be loaded again")

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        num_pixels = 0
        while self._waiting and len(batch) < self._limits.max_batch:
            if self._waiting[0].answer.done():  # its request is over: out of time
                self._waiting.popleft()
                continue
            num_pixels += self._waiting[0].num_pixels
            if batch and num_pixels > self._limits.max_pixels:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        for waiting, answer in zip(batch, await self._answers(batch), strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

    async def _answers(self, batch: Sequence[_Waiting]) -> list[Any]:
        self._metrics.count_batch(len(batch))
        try:
            return await self._process.segment([waiting.job for waiting in batch])
        except RefusalError as error:
            if error.status == 503 and len(batch) > 1:
                # One of them ended the process. Alone, it can do that to itself only.
                return [answer for waiting in batch for answer in await self._answers([waiting])]
            return [error] * len(batch)
        except MixreorgError as error:
            return [RefusalError(503, f"the model cannot be loaded: {error}", retry_after=10)] * len(batch)
        except Exception as error:  # nobody else hears of it: without an answer these requests and all after them wait
            logging.getLogger(__name__).exception("a batch met a defect")
            return [error] * len(batch)

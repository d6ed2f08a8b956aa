"""The model's process, started again when it dies.

A photo from a stranger may do what no exception reports: crash a decoder, or use up the memory. Then a process ends,
and it must not be the one that holds the connections. Their event loop is also free while the model works.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mixreorg.errors import MixreorgError
from mixreorg.processes import WorkerPool
from mixreorg.serve.limits import Limits, RefusalError
from mixreorg.serve.worker import Job, ModelFacts, load, segment_batch

_GONE = "the model's process ended while it worked on the request, and is being started again"


class ModelProcess:
    """One model in one process."""

    def __init__(self, model: str, device: str, limits: Limits) -> None:
        # Its last part: a path of the server is nobody else's business.
        self.model_name = Path(model).name or model
        self.restarts = 0
        self._load = partial(load, model, device, limits.max_batch, limits.max_pixels)
        self._max_seconds = limits.max_seconds
        self._executor: WorkerPool | None = None
        self._facts: ModelFacts | None = None

    def start(self) -> None:
        """Start the process and load the model; takes seconds.

        Raises:
            MixreorgError: the model cannot be loaded, or the process died of it.
        """
        executor = WorkerPool(1)
        try:
            self._facts = executor.submit(self._load).result()
        except BrokenProcessPool as error:
            raise MixreorgError(f"the process that loads {self.model_name} died; is there memory enough?") from error
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
        self._executor = executor

    @property
    def facts(self) -> ModelFacts:
        """What the last start returned."""
        assert self._facts is not None, "not started"
        return self._facts

    @property
    def process_id(self) -> int | None:
        """Of the process, while it lives."""
        child = self._child()
        return None if child is None else child.pid

    async def revive(self) -> None:
        """Start the process again if it is gone.

        Raises:
            MixreorgError: it cannot be started again.
        """
        if self.process_id is None:
            self.restarts += 1
            self.close()
            await asyncio.to_thread(self.start)

    async def segment(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Segment a batch: see :func:`~mixreorg.serve.worker.segment_batch`.

        A process that died while it had no work is replaced first. After an error the process is gone.

        Raises:
            RefusalError: the process died of the batch (503), or worked longer than a request may take and was
                ended (504).
            MixreorgError: it cannot be started again.
        """
        await self.revive()
        assert self._executor is not None
        try:
            future = self._executor.submit(segment_batch, jobs)
            async with asyncio.timeout(self._max_seconds):
                return await asyncio.wrap_future(future)
        except BrokenProcessPool as error:
            self.close()
            raise RefusalError(503, f"{_GONE}; send it again", retry_after=1) from error
        except TimeoutError as error:
            self.close()
            raise timed_out(self._max_seconds) from error

    def close(self) -> None:
        """End the process, at work or not."""
        child = self._child()
        if child is not None:
            child.kill()
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    def _child(self) -> BaseProcess | None:
        # By the list of living children, and not by the number alone, which another process may have by now.
        children = (child for child in active_children() if self._facts and child.pid == self._facts.process_id)
        return next(children, None)


def timed_out(max_seconds: float) -> RefusalError:
    """The refusal of a request that takes too long."""
    return RefusalError(504, f"no answer within {max_seconds:g} seconds; send a smaller photo, or try later")

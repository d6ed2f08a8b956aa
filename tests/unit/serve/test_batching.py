"""The queue in front of the model, with a stand-in for its process."""

import asyncio
import errno
from collections.abc import Sequence
from typing import Any

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.serve.answers import as_labels
from mixreorg.serve.batching import BatchingQueue
from mixreorg.serve.limits import Limits, RefusalError
from mixreorg.serve.metrics import Metrics
from mixreorg.serve.worker import Job
from mixreorg.text.class_list import ClassName


class Process:
    """Answers with the photos; dies of those that are b"die"."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.revived = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def segment(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        self.batches.append([job.photo for job in jobs])
        await self.gate.wait()
        if any(job.photo == b"die" for job in jobs):
            raise RefusalError(503, "died")
        return [MixreorgError("damaged") if job.photo == b"bad" else job.photo for job in jobs]

    async def revive(self) -> None:
        self.revived += 1


def job(photo: bytes) -> Job[bytes]:
    return Job(photo, (ClassName("dog"),), None, as_labels)


async def serve(
    photos: Sequence[bytes], pixels: int = 1, cancelled: Sequence[int] = (), **limits: int
) -> tuple[Process, list[Any]]:
    """The first photo is at work alone while the others arrive."""
    process = Process()
    queue = BatchingQueue(process, Limits(**limits), Metrics())  # type: ignore[arg-type]
    work = asyncio.create_task(queue.work())
    process.gate.clear()
    waits = [asyncio.create_task(queue.submit(job(photos[0]), pixels))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waits += [asyncio.create_task(queue.submit(job(photo), pixels)) for photo in photos[1:]]
    await asyncio.sleep(0)
    for index in cancelled:
        waits[index].cancel()
    await asyncio.sleep(0)
    process.gate.set()
    answers = await asyncio.gather(*waits, return_exceptions=True)
    work.cancel()
    return process, list(answers)


def test_what_gathers_while_the_model_works_is_one_batch() -> None:
    photos = [b"%d" % number for number in range(7)]
    process, answers = asyncio.run(serve(photos, max_batch=4))
    assert process.batches == [[b"0"], [b"1", b"2", b"3", b"4"], [b"5", b"6"]]
    assert answers == photos


def test_the_photos_of_a_batch_fit_the_pixel_limit_together() -> None:
    process, answers = asyncio.run(serve([b"a", b"b", b"c", b"d"], pixels=400, max_pixels=1000))
    assert process.batches == [[b"a"], [b"b", b"c"], [b"d"]]
    assert answers == [b"a", b"b", b"c", b"d"]


def test_a_photo_at_the_limit_goes_alone() -> None:
    process, _ = asyncio.run(serve([b"a", b"b", b"c"], pixels=1000, max_pixels=1000))
    assert process.batches == [[b"a"], [b"b"], [b"c"]]


def test_a_wait_that_is_over_takes_no_work() -> None:
    process, answers = asyncio.run(serve([b"a", b"b", b"c"], cancelled=[1]))
    assert process.batches == [[b"a"], [b"c"]]
    assert isinstance(answers[1], asyncio.CancelledError)


def test_an_error_belongs_to_its_own_photo() -> None:
    _, answers = asyncio.run(serve([b"a", b"b", b"bad", b"c"]))
    assert [answers[0], answers[1], answers[3]] == [b"a", b"b", b"c"]
    assert isinstance(answers[2], MixreorgError)


def test_a_photo_that_ends_the_process_takes_no_other_along() -> None:
    process, answers = asyncio.run(serve([b"a", b"b", b"die", b"c"]))
    assert process.batches == [[b"a"], [b"b", b"die", b"c"], [b"b"], [b"die"], [b"c"]]
    assert [answers[0], answers[1], answers[3]] == [b"a", b"b", b"c"]
    with pytest.raises(RefusalError, match="died") as caught:
        raise answers[2]
    assert caught.value.status == 503
    assert process.revived == 2


def test_a_defect_ends_no_more_than_its_batch() -> None:
    class Faulty(Process):
        async def segment(self, jobs: Sequence[Job[Any]]) -> list[Any]:
            if len(self.batches) == 0:
                self.batches.append([])
                raise MemoryError("Unable to allocate 9 GiB")
            return await super().segment(jobs)

    async def ask() -> list[Any]:
        queue = BatchingQueue(Faulty(), Limits(), Metrics())  # type: ignore[arg-type]
        work = asyncio.create_task(queue.work())
        answers = [await asyncio.gather(queue.submit(job(photo), 1), return_exceptions=True) for photo in (b"a", b"b")]
        work.cancel()
        return [answer for (answer,) in answers]

    first, second = asyncio.run(asyncio.wait_for(ask(), 20))
    assert isinstance(first, MemoryError)
    assert second == b"b"


def test_a_process_that_cannot_be_started_for_now_does_not_end_the_queue() -> None:
    class Short(Process):
        async def revive(self) -> None:
            await super().revive()
            if self.revived == 1:
                raise OSError(errno.EMFILE, "Too many open files")

    async def ask() -> list[Any]:
        queue = BatchingQueue(Short(), Limits(), Metrics())  # type: ignore[arg-type]
        work = asyncio.create_task(queue.work())
        answers = [await queue.submit(job(photo), 1) for photo in (b"a", b"b")]
        work.cancel()
        return answers

    assert asyncio.run(asyncio.wait_for(ask(), 20)) == [b"a", b"b"]


def test_a_model_that_cannot_be_loaded_again_is_a_503() -> None:
    class Broken(Process):
        async def segment(self, jobs: Sequence[Job[Any]]) -> list[Any]:
            raise MixreorgError("no such file")

        revive = segment  # type: ignore[assignment]

    async def ask() -> None:
        queue = BatchingQueue(Broken(), Limits(), Metrics())  # type: ignore[arg-type]
        work = asyncio.create_task(queue.work())
        try:
            await queue.submit(job(b"a"), 1)
        finally:
            work.cancel()

    with pytest.raises(RefusalError, match="no such file") as caught:
        asyncio.run(ask())
    assert (caught.value.status, caught.value.retry_after) == (503, 10)

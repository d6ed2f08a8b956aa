"""The model's process: it gives what the model gives, and it is replaced whatever ends it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serve_kit
from mixreorg.errors import MixreorgError
from mixreorg.interop.loading import load_model
from mixreorg.segment.segmenter import Segmenter
from mixreorg.serve import worker
from mixreorg.serve.answers import as_json, as_labels
from mixreorg.serve.limits import Limits, RefusalError
from mixreorg.serve.model_process import ModelProcess
from mixreorg.serve.service import Service
from mixreorg.serve.worker import Job
from mixreorg.text.class_list import parse_class_list
from serve_kit import TRUNCATED, image_file

CLASSES = parse_class_list("dog, cat=cat|kitten, grass")


def job(photo: bytes, render: Callable[..., Any] = as_json, background: float | None = None) -> Job[Any]:
    return Job(photo, CLASSES, background, render)


def run(process: ModelProcess, *jobs: Job[Any]) -> list[Any]:
    return asyncio.run(process.segment(jobs))


def test_a_batch_gives_what_single_photos_give(process: ModelProcess, model_folder: Path) -> None:
    segmenter = Segmenter(load_model(model_folder))
    photos = [image_file(48, 40), image_file(40, 48, seed=1), image_file(48, 40, "BMP", seed=2)]
    answers = run(process, *(job(photo, background=0.6 if index == 1 else None) for index, photo in enumerate(photos)))
    for index, (photo, answer) in enumerate(zip(photos, answers, strict=True)):
        alone = Segmenter(segmenter.model, segmenter.protocol.updated(background_threshold=0.6 if index == 1 else None))
        expected = alone(photo, CLASSES).to_dict()
        assert [item["area_share"] for item in answer["classes"]] == [
            item["area_share"] for item in expected["classes"]
        ]
        np.testing.assert_allclose(
            [item["score"] for item in answer["classes"]], [item["score"] for item in expected["classes"]], rtol=1e-5
        )
        assert answer["protocol"] == expected["protocol"]


def test_groups_cover_the_photo(process: ModelProcess) -> None:
    [(segment_map, names, scores)] = run(process, job(image_file(90, 40), serve_kit.name_groups))
    assert segment_map.shape == (40, 90)
    assert segment_map.max() < len(names) == len(scores) == 3
    assert set(names) <= {"dog", "cat", "grass"}
    assert all(0 < score < 1 for score in scores)


def test_groups_of_a_large_photo_have_the_size_of_the_page(process: ModelProcess) -> None:
    [(segment_map, _, _)] = run(process, job(image_file(4096, 2048), serve_kit.name_groups))
    assert segment_map.shape == (512, 1024)


def test_errors_belong_to_their_photos(process: ModelProcess) -> None:
    photos = [*TRUNCATED.values(), image_file(), image_file(2000, 4)]
    answers = run(process, *map(job, photos))
    for answer in answers[:-2]:
        assert isinstance(answer, MixreorgError)
        assert re.search("damaged or truncated|cannot read", str(answer))
    assert answers[-2]["size"] == {"width": 48, "height": 40}
    assert "thinner than one patch" in str(answers[-1])


def test_a_photo_too_large_for_the_memory_takes_no_other_along() -> None:
    class Hungry:
        def encode_each(self, photos: list[Any]) -> list[Any]:
            raise MemoryError

        def encode(self, photos: list[Any]) -> Any:
            if photos == ["large"]:
                raise MemoryError("Unable to allocate 9 GiB")
            return f"encoded {photos[0]}"

    first, second = worker._encode(Hungry(), ["large", "small"])  # type: ignore[arg-type,list-item]
    assert isinstance(first, RuntimeError)
    assert "Unable to allocate" in str(first)
    assert second == "encoded small"


def test_a_defect_belongs_to_its_photo(process: ModelProcess) -> None:
    failed, answered = run(process, job(image_file(), serve_kit.meet_a_defect), job(image_file()))
    assert (type(failed), str(failed)) == (RuntimeError, "ZeroDivisionError: deliberate")
    assert answered["classes"]


async def kill_while_it_hangs(service: Service, marker: Path) -> bytes:
    """Kill the process in the middle of a request, then ask again."""
    marker.unlink(missing_ok=True)
    async with service.working():
        request = asyncio.create_task(service.segment(image_file(), "dog, cat", None, serve_kit.hang))
        while not marker.exists():
            await asyncio.sleep(0.01)
        assert service.process.process_id
        os.kill(service.process.process_id, signal.SIGKILL)
        with pytest.raises(RefusalError, match="send it again") as caught:
            await request
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        return await service.segment(image_file(), "dog, cat", None, as_labels)


def test_after_a_kill_in_mid_request_the_next_one_works(
    make_service: Callable[..., Service], process: ModelProcess, marker: Path
) -> None:
    restarts, first = process.restarts, process.process_id
    assert asyncio.run(kill_while_it_hangs(make_service(), marker)).startswith(b"\x89PNG")
    assert process.restarts == restarts + 1
    assert process.process_id not in (None, first)


def test_after_a_kill_without_work_the_next_one_works(process: ModelProcess) -> None:
    first = process.process_id
    assert first
    os.kill(first, signal.SIGKILL)
    while process.process_id is not None:
        time.sleep(0.01)
    [second] = run(process, job(image_file(), serve_kit.process_id))
    assert second == process.process_id != first


def test_work_without_end_is_ended(model_folder: Path, marker: Path) -> None:
    process = ModelProcess(str(model_folder), "cpu", Limits(max_seconds=0.3))
    process.start()
    try:
        with pytest.raises(RefusalError, match=r"0\.3 seconds") as caught:
            run(process, job(image_file(), serve_kit.hang))
        assert caught.value.status == 504
        assert process.process_id is None
    finally:
        process.close()


def test_a_killed_server_leaves_no_process(model_folder: Path) -> None:
    script = f"""
import os, signal
from mixreorg.serve.limits import Limits
from mixreorg.serve.model_process import ModelProcess
if __name__ == "__main__":
    process = ModelProcess({str(model_folder)!r}, "cpu", Limits())
    process.start()
    print(process.process_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    server = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 120
    while is_alive(int(server.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

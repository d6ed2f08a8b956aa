"""Many photos: memory after 100 and after 1,000 of them, and photos per second with reading and writing overlapped.

The photos are hard links to a few JPEG files, smooth noise of the given size; the model has the size of the scenes
recipes and random weights, or is the one given. Linux only: resident memory is read from /proc.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image

from harness import median_seconds, print_environment, print_table
from mixreorg.batch.inputs import PhotoInput
from mixreorg.batch.run import BatchJob, segment_photos
from mixreorg.batch.summary import PhotoRow
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.recipes import recipe
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import parse_class_list
from mixreorg.text.tokenizer import Tokenizer

CLASSES = parse_class_list("dog, cat, car, tree, house, apple, bird, fish, grass, sand, water, snow")
ORIGINALS = 10


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> list[PhotoInput]:
    """Photos of a width and height."""
    random = np.random.default_rng(0)
    for number in range(ORIGINALS):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"original{number}.jpg", quality=90)
    photos = []
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        os.link(folder / f"original{number % ORIGINALS}.jpg", path)
        photos.append(PhotoInput(path, PurePath(path.stem)))
    return photos


def make_segmenter(model: str | None, device: str) -> Segmenter:
    """The model given, or a random one."""
    if model is not None:
        return Segmenter(load_model(model, device))
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([f"a photo of a {item.name}." for item in CLASSES], vocab_size=600, context_length=32)
    config = recipe("scenes_groupvit").model
    text = {"vocab_size": tokenizer.vocab_size, "context_length": 32, "end_id": tokenizer.end_id}
    config = config.updated(text=config.text.updated(**text))
    return Segmenter(DualEncoder(config, tokenizer).to(device))


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(job: BatchJob, photos: list[PhotoInput]) -> None:
    """Print resident memory as the photos pass."""
    marks = [mark for mark in (1, 10, 100, 250, 500, 750, 1000) if mark <= len(photos)]
    done, rows = 0, []

    def report(row: PhotoRow) -> None:
        nonlocal done
        assert row.error is None, row.error
        done += 1
        if done in marks:
            rows.append([f"{done:,}", round(resident_mb())])

    segment_photos(job, photos, report)
    print_table(["photos done", "resident memory, MB"], rows)


def speed(jobs: dict[str, BatchJob], photos: list[PhotoInput], rounds: int) -> None:
    """Print photos per second."""

    def run(job: BatchJob) -> Callable[[], None]:
        def run_again() -> None:
            shutil.rmtree(job.out, ignore_errors=True)
            segment_photos(job, photos, lambda row: None)

        return run_again

    seconds = median_seconds({name: run(job) for name, job in jobs.items()}, rounds)
    base = next(iter(seconds.values()))
    print_table(
        ["reading and writing", "photos/s", "speed-up"],
        [[name, len(photos) / value, base / value] for name, value in seconds.items()],
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="default: random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--photos", type=int, default=1000, help="for memory")
    parser.add_argument("--per-round", type=int, default=40, help="for speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="width and height")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_environment()
    segmenter = make_segmenter(arguments.model, arguments.device)
    print(f"{arguments.size[0]} x {arguments.size[1]} pixels, {segmenter.protocol.name}, {arguments.device}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder, max(arguments.photos, arguments.per_round), tuple(arguments.size))

        def job(workers: int) -> BatchJob:
            return BatchJob(lambda image: segmenter(image, CLASSES), folder / f"out{workers}", {}, workers)

        jobs = {"one after the other": job(0), "1 thread each": job(1), "2 threads each": job(2)}
        speed(jobs, photos[: arguments.per_round], arguments.rounds)
        memory(job(2), photos[: arguments.photos])


if __name__ == "__main__":
    main()

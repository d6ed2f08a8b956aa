"""The reading side against a plain webdataset + Pillow pipeline over the same shards, and what each part of it costs.

Everything runs in one process with one thread, and processor seconds are counted: the figures are per core. The aim
is 1.5 times as many images per second. Needs webdataset: ``pip install 'mixreorg[bench]'``. The parts are also measured
with simplejpeg, OpenCV and kornia where installed.
"""

import argparse
import importlib
import importlib.metadata
import io
import math
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from harness import print_environment, print_table, require
from mixreorg.data import pixel_ops
from mixreorg.data.decode import decode_crop, decode_image
from mixreorg.data.loader import PairDataset, collate
from mixreorg.data.pairs import open_pairs
from mixreorg.data.rand_augment import RandAugmentConfig
from mixreorg.data.transforms import ImageTransformConfig, augment, random_view, resized_crop
from mixreorg.models.pixels import to_uint8
from mixreorg.randomness import numpy_generator, sample_keys
from mixreorg.text.tokenizer import Tokenizer
from pillow_pipeline import OPERATIONS, SIDE, pillow_batches

Name = TypeVar("Name", bound=Hashable)

SHARD_SIDE, SHARD_IMAGES, BATCH = 512, 128, 64
RECIPE = ImageTransformConfig(image_size=SIDE, rand_augment=RandAugmentConfig(), erase_probability=0.25)
NOTHING = ImageTransformConfig(image_size=SIDE, colour_jitter=0.0)


def median_cpu_seconds(variants: dict[Name, Callable[[int], object]], rounds: int) -> dict[Name, float]:
    """Processor seconds of every variant, which is told the round: interleaved, after one round of warming up."""
    times: dict[Name, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            start = time.process_time()
            run(number)
            if number:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def pictures(photos: Path | None) -> Iterator[Image.Image]:
    """Endless square pictures: random zooms of photos, or noise with the spectrum of photos and some hard edges."""
    choose = random.Random(0)
    files = sorted(photos.rglob("*.jpg")) if photos else []
    while True:
        if files:
            image = Image.open(choose.choice(files)).convert("RGB")
            side = choose.uniform(0.85, 1.0) * min(image.size)
            left, top = (choose.uniform(0, length - side) for length in image.size)
            box = (left, top, left + side, top + side)
            yield image.resize((SHARD_SIDE, SHARD_SIDE), Image.Resampling.BICUBIC, box=box)
        else:
            yield natural_noise(np.random.default_rng(choose.randrange(1 << 30)))


def natural_noise(generator: np.random.Generator) -> Image.Image:
    """Noise whose amplitude falls with frequency as in photos, lighter or darker inside of a few rectangles."""
    frequency = np.hypot(np.fft.fftfreq(SHARD_SIDE)[:, None], np.fft.rfftfreq(SHARD_SIDE)[None]) ** 1.25
    frequency[0, 0] = math.inf
    grey, *tints = (
        np.fft.irfft2(np.fft.rfft2(generator.standard_normal((SHARD_SIDE, SHARD_SIDE))) / frequency) for _ in range(4)
    )
    planes = np.stack([grey + 0.2 * tint for tint in tints], -1)
    planes = 128 + 45 * planes / planes.std()
    for _ in range(12):
        left, top, right, bottom = generator.integers(0, SHARD_SIDE, 4)
        planes[top:bottom, left:right] += generator.uniform(-60, 60, 3)
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8))


def write_shards(folder: Path, count: int, photos: Path | None) -> list[bytes]:
    """Write shards as img2dataset does; return the images."""
    source, files = pictures(photos), []
    for first in range(0, count, SHARD_IMAGES):
        with tarfile.open(folder / f"{first // SHARD_IMAGES:05}.tar", "w") as archive:
            for number in range(first, min(first + SHARD_IMAGES, count)):
                buffer = io.BytesIO()
                next(source).save(buffer, "JPEG", quality=95)
                files.append(buffer.getvalue())
                for suffix, data in (("jpg", files[-1]), ("txt", f"a photo of place {number} at night".encode())):
                    member = tarfile.TarInfo(f"{number:08}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return files


def own_batches(dataset: PairDataset, epoch: int) -> Iterator[list[Tensor]]:
    """The reading process's work and, on the same core, what it leaves to the training device."""
    visits = [[(epoch, index) for index in range(at, at + BATCH)] for at in range(0, len(dataset), BATCH)]
    for batch in DataLoader(dataset, batch_sampler=visits, collate_fn=collate):
        yield [augment(batch.images, sample_keys(dataset.seed, batch.sample_ids), dataset.transform), batch.token_ids]


def compare_pipelines(folder: Path, count: int, rounds: int) -> None:
    """First table: images per second of one core."""
    tokenizer = Tokenizer.clip()
    dataset = PairDataset(open_pairs(folder), tokenizer, RECIPE, seed=0)

    def consume(batches: Iterator[list[Tensor]]) -> None:
        assert sum(images.shape[1:] == (3, SIDE, SIDE) and len(images) for images, _ in batches) == count

    seconds = median_cpu_seconds(
        {
            "webdataset + Pillow": lambda _: consume(
                pillow_batches(folder, BATCH, lambda caption: tokenizer.encode([caption])[0])
            ),
            "mixreorg": lambda epoch: consume(own_batches(dataset, epoch)),
        },
        rounds,
    )
    base = seconds["webdataset + Pillow"]
    rows: list[list[object]] = [[name, count / value, base / value] for name, value in seconds.items()]
    print_table(["pipeline", "images/s per core", "ratio"], rows)


def library(name: str) -> ModuleType | None:
    """An optional library, or None where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def measure_decoding(files: list[bytes], rounds: int) -> None:
    """Second table: what decoding and cropping cost, and what other decoders would."""
    views = [random_view(NOTHING, numpy_generator(0, number)) for number in range(len(files))]
    decoded = [decode_crop(data, view) for data, view in zip(files, views, strict=True)]

    def each(function: Callable[[bytes], object]) -> Callable[[int], object]:
        return lambda _: [function(data) for data in files]

    variants: dict[str, Callable[[int], object]] = {
        "decode: Pillow, full size": each(decode_image),
        "decode: Pillow, half size": each(lambda data: decode_image(data, SHARD_SIDE // 2)),
        "decode: mixreorg, as the crop needs": lambda _: list(map(decode_crop, files, views)),
    }
    if simplejpeg := library("simplejpeg"):
        variants["decode: simplejpeg, full size"] = each(simplejpeg.decode_jpeg)
        for eighths in (4, 5, 6):
            sides = dict.fromkeys(("min_height", "min_width"), SHARD_SIDE * eighths // 8)
            variants[f"decode: simplejpeg, {eighths}/8"] = each(
                lambda data, sides=sides: simplejpeg.decode_jpeg(data, **sides)
            )
    if cv2 := library("cv2"):
        cv2.setNumThreads(1)
        variants["decode: OpenCV, full size"] = each(
            lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        )
    images = [decode_image(data) for data in files]
    boxes = [view.box(SHARD_SIDE, SHARD_SIDE) for view in views]
    variants["crop + resize: Pillow"] = lambda _: [
        to_uint8(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
        for image, box in zip(images, boxes, strict=True)
    ]
    variants["crop + resize: mixreorg"] = lambda _: [resized_crop(image, box, SIDE) for image, box in decoded]
    seconds = median_cpu_seconds(variants, rounds)
    print_table(["part", "ms/image"], [[name, 1000 * value / len(files)] for name, value in seconds.items()])


def measure_augmentation(files: list[bytes], rounds: int) -> None:
    """Third table: what a batch costs on the device, here the same core."""
    images = torch.stack([to_uint8(decode_image(data).resize((SIDE, SIDE))) for data in files[:BATCH]])
    plain = {"colour_jitter": 0.0, "erase_probability": 0.0}
    configs = {
        "augment: all of the recipe": RECIPE,
        "augment: RandAugment": RECIPE.updated(**plain),
        "augment: colour jitter": NOTHING.updated(colour_jitter=RECIPE.colour_jitter),
        "augment: erasing": NOTHING.updated(erase_probability=RECIPE.erase_probability),
        "augment: normalisation alone": NOTHING,
    }
    seconds = median_cpu_seconds(
        {
            name: lambda number, config=config: augment(images, sample_keys(number, torch.arange(BATCH)), config)
            for name, config in configs.items()
        },
        rounds,
    )
    print_table(["part", "ms/image"], [[name, 1000 * value / BATCH] for name, value in seconds.items()])
    made = augment(images, sample_keys(0, torch.arange(BATCH)), NOTHING)
    print(f"batch of {BATCH}: {images.nbytes / 2**20:.1f} MiB as uint8, {made.nbytes / 2**20:.1f} MiB as float32\n")


def measure_operations(files: list[bytes], rounds: int) -> None:
    """Fourth table: single operations here, in Pillow and in kornia, ms per picture."""
    pictures = [decode_image(data).resize((SIDE, SIDE)) for data in files[:8]]
    pixels = torch.stack(list(map(to_uint8, pictures))).float().contiguous()
    makers = {
        "mixreorg": own_operations(pixels),
        "Pillow": {
            name: lambda operation=operation: [operation(picture, 0.7, 1) for picture in pictures]
            for name, operation in OPERATIONS.items()
        },
        "kornia": kornia_operations(pixels) if library("kornia") else {},
    }
    own = makers["mixreorg"]
    seconds = median_cpu_seconds(
        {
            (name, maker): lambda _, run=runs[name]: run()
            for maker, runs in makers.items()
            for name in own
            if name in runs
        },
        rounds,
    )
    rows = [
        [name, *(1000 * seconds[key] / len(pictures) if (key := (name, maker)) in seconds else "" for maker in makers)]
        for name in own
    ]
    print_table(["operation, ms/image", *makers], rows)


def own_operations(pixels: Tensor) -> dict[str, Callable[[], object]]:
    """Every operation with a typical strength, one picture at a time as on a processor."""
    strengths = {
        pixel_ops.brightness: 1.4,
        pixel_ops.contrast: 1.4,
        pixel_ops.colour: 1.4,
        pixel_ops.sharpness: 1.4,
        pixel_ops.auto_contrast: None,
        pixel_ops.equalise: None,
        pixel_ops.invert: None,
        pixel_ops.posterise: 2.0,
        pixel_ops.solarise: 100.0,
        pixel_ops.solarise_add: 90.0,
        pixel_ops.rotate: 20.0,
        pixel_ops.shear_x: 0.2,
        pixel_ops.translate_x: 0.3,
    }

    def runner(function: Callable[..., Tensor], strength: float | None) -> Callable[[], object]:
        given = [] if strength is None else [torch.tensor([strength])]
        return lambda: [function(picture[None], *given) for picture in pixels]

    return {function.__name__: runner(function, strength) for function, strength in strengths.items()}


def kornia_operations(pixels: Tensor) -> dict[str, Callable[[], object]]:
    """kornia's operations of the same meaning, on the same pictures as one batch."""
    import kornia.enhance as enhance
    from kornia.geometry.transform import rotate, shear, translate

    unit, count = pixels / 255, len(pixels)
    factor, zeros = torch.full((count,), 1.4), torch.zeros(count)
    return {
        "brightness": lambda: enhance.adjust_brightness_accumulative(unit, factor),
        "contrast": lambda: enhance.adjust_contrast_with_mean_subtraction(unit, factor),
        "colour": lambda: enhance.adjust_saturation_with_gray_subtraction(unit, factor),
        "sharpness": lambda: enhance.sharpness(unit, factor),
        "equalise": lambda: enhance.equalize(unit),
        "invert": lambda: enhance.invert(unit),
        "posterise": lambda: enhance.posterize(unit, torch.full((count,), 2)),
        "solarise": lambda: enhance.solarize(unit, torch.full((count,), 0.4)),
        "rotate": lambda: rotate(unit, torch.full((count,), 20.0), mode="bicubic"),
        "shear_x": lambda: shear(unit, torch.stack([torch.full((count,), 0.2), zeros], 1), mode="bicubic"),
        "translate_x": lambda: translate(unit, torch.stack([torch.full((count,), 60.0), zeros], 1), mode="bicubic"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512, help="rounded down to whole batches")
    parser.add_argument("--photos", type=Path, help="folder of JPEG photos to cut the pictures from")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    require("webdataset")
    torch.set_num_threads(1)
    print_environment()
    names = ("pillow", "webdataset", "simplejpeg", "opencv-python-headless", "kornia")
    versions = {item.name: item.version for item in importlib.metadata.distributions() if item.name.lower() in names}
    print(", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "\n")
    count = arguments.images // BATCH * BATCH
    with tempfile.TemporaryDirectory() as folder:
        files = write_shards(Path(folder), count, arguments.photos)
        size = statistics.mean(map(len, files)) / 1024
        print(f"{count} JPEG pictures of {SHARD_SIDE} x {SHARD_SIDE}, quality 95, {size:.0f} KiB each\n")
        compare_pipelines(Path(folder), count, arguments.rounds)
    files = files[:BATCH]
    measure_decoding(files, arguments.rounds)
    measure_augmentation(files, arguments.rounds)
    measure_operations(files, arguments.rounds)


if __name__ == "__main__":
    main()

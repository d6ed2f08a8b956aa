"""What this machine does in a moment of trying: seconds of real training steps, and pictures read per second."""

import io
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mixreorg.data.loader import PairDataset
from mixreorg.data.pairs import PairSource
from mixreorg.data.problems import Problems
from mixreorg.data.specs import expand
from mixreorg.data.transforms import augment
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.randomness import numpy_generator, sample_keys
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Device, Engine, StepInputs
from mixreorg.train.optim import build_optimizer
from mixreorg.train.planning.flops import flops_per_pair, noun_length
from mixreorg.train.setup import build_objective, open_nouns

WAITING = 1.5
"""Seconds by the clock per second of processor time beyond which a reading speed needs a word."""

_FIRST_BATCH = {"cpu": 8}
_FIRST_BATCH_ELSEWHERE = 32
# The larger batch should take so long, but be no more than so many times the first one.
_STEP_SECONDS = 2.0
_LARGEST_RATIO = 8
_ROUNDS = 3
_READING_SECONDS = 0.7
# Processor time comes slowly on a busy machine; nobody waits for longer than so many times the seconds above.
_LONGEST_RATIO = 10
_CAPTIONS = 2000


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step as a line through two measured batches."""

    fixed: float
    """Seconds per step, whatever its size: optimizer, clipping, launching."""
    per_pair: float
    """Seconds per pair and process."""
    batches: tuple[int, int]
    """Pairs per step that were measured."""

    def seconds(self, share: int) -> float:
        """Of a step with ``share`` pairs per process."""
        return self.fixed + self.per_pair * share


@dataclass(frozen=True)
class ReadingSpeed:
    """What one core reads."""

    per_second: float
    """Pictures: of processor time for the synthetic picture, by the clock for pairs that come from storage."""
    waiting: float
    """Seconds by the clock per second of processor time; far above 1 where storage is slow or the machine busy."""


class _Picture:
    """One picture and caption many times over; a :class:`~mixreorg.data.pairs.Part`."""

    name = "a synthetic picture of 512 x 384 px"

    def __init__(self) -> None:
        # Smooth noise takes about as many bytes as a photo of its size.
        noise = numpy_generator("picture").integers(0, 256, (48, 64, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((512, 384), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        self._data = buffer.getvalue()

    def __len__(self) -> int:
        return 1 << 20

    def key(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> tuple[bytes, str]:
        return self._data, self.caption(index)

    def caption(self, index: int) -> str:
        return "a photo of a dog and a ball on the grass in front of a house."

    def fingerprint(self) -> bytes:
        return b""


def measure_step(
    config: TrainConfig, share: int, *, text_length: int, processes: int = 1, device: Device = "auto"
) -> StepTime:
    """Time augmentation, forward, backward and optimizer steps on random pairs.

    Runs whole steps of the engine on one process, of two sizes and at most as many pairs as ``share``, but two at
    least; this takes some seconds. A gradient cache is not run but reckoned, for its chunk may be larger than what can
    be tried in seconds.

    Args:
        config: the run, its tokenizer resolved.
        share: pairs per process in the run that is planned.
        text_length: tokens per caption.
        processes: of the run on this machine; on a CPU each has its part of the threads.
        device: where to run.

    Raises:
        MixreorgError: a device or precision that this machine does not have.
    """
    plain = config.updated(engine=config.engine.updated(chunk=None))
    engine = Engine(plain, device)
    objective = build_objective(DualEncoder(plain.model).to(engine.device), plain.objective).to(engine.device)
    engine.prepare(objective, build_optimizer(objective, plain.optim))
    with _threads(max(torch.get_num_threads() // processes, 1)):
        sizes = _sizes(engine, plain, share, text_length)
        times: dict[int, list[float]] = {size: [] for size in sizes}
        for number, size in itertools.product(range(_ROUNDS), times):
            times[size].append(_step_seconds(engine, plain, size, text_length, number))
    engine.close()
    # The fastest round is the one that other processes disturbed least.
    small, large = (min(times[size]) for size in sizes)
    # Noise must not make a pair cost nothing, nor a step less than nothing.
    slope = (large - small) / (sizes[1] - sizes[0]) if sizes[1] > sizes[0] else large / sizes[1]
    per_pair = min(max(slope, 0.5 * large / sizes[1]), large / sizes[1])
    more = flops_per_pair(config, share, text_length=text_length).total_train
    more /= flops_per_pair(plain, share, text_length=text_length).total_train
    return StepTime(large - per_pair * sizes[1], per_pair * more, sizes)


def measure_reading(config: TrainConfig, tokenizer: Tokenizer, source: PairSource | None = None) -> ReadingSpeed:
    """Count the pictures that one core reads, decodes, crops and tokenizes in a moment.

    Args:
        config: the run.
        tokenizer: of the run.
        source: pairs to read from at random places; None for a synthetic picture of 512 x 384 px in memory, which is
            the same work on a busy machine.
    """
    storage = source is not None
    source = source or PairSource([("synthetic", [_Picture()])], Problems())
    # A plan does not insist on the word list that training needs.
    nouns = open_nouns(config, tokenizer) if config.data.nouns is not None else None
    dataset = PairDataset(source, tokenizer, config.data.transform, config.seed, nouns)
    places = numpy_generator("reading").integers(0, len(source), 1 << 16)
    # Reading processes have one torch thread each, and nothing else that reads starts others.
    with _threads(1):
        dataset[0, int(places[0])]
        start, used, count = time.perf_counter(), time.thread_time(), 0
        for place in places.tolist():
            dataset[0, place]
            count += 1
            seconds, processor = time.perf_counter() - start, time.thread_time() - used
            if (seconds if storage else processor) > _READING_SECONDS or seconds > _LONGEST_RATIO * _READING_SECONDS:
                break
    # Some systems count processor time in ticks of 16 ms.
    processor = max(processor, 1e-3)
    return ReadingSpeed(count / (seconds if storage else processor), seconds / processor)


def shard_bytes(specs: Sequence[str]) -> int | None:
    """Bytes of local shards; None where there are others, or captions files, which say nothing of their images."""
    files = [file for spec in specs for file in expand(spec)]
    if not all(isinstance(file, Path) and file.suffix == ".tar" for file in files):
        return None
    return sum(Path(file).stat().st_size for file in files)


def longest_caption(source: PairSource, tokenizer: Tokenizer, share: int) -> int:
    """Tokens of the longest caption to expect among ``share``, from the first ones of a source."""
    captions = list(itertools.islice(source.captions(), _CAPTIONS))
    lengths = sorted(len(ids) for ids in tokenizer.encode_ids(captions)) or [tokenizer.context_length]
    return lengths[round((len(lengths) - 1) * (1 - 1 / (share + 1)))]


def _sizes(engine: Engine, config: TrainConfig, share: int, text_length: int) -> tuple[int, int]:
    """Two batches to measure, multiples of the mixing group; warms up."""
    unit = config.objective.group_size if isinstance(config.objective, MixReorgConfig) else 1
    wanted = _FIRST_BATCH.get(engine.device.type, _FIRST_BATCH_ELSEWHERE)
    # In one process BatchNorm needs two pairs; a line through two and four leads to a share of one.
    first, most = (min(-(-wanted // unit) * unit, share), share) if share > 1 else (2, 4)
    seconds = _step_seconds(engine, config, first, text_length, 0)
    if seconds < _STEP_SECONDS:
        seconds = _step_seconds(engine, config, first, text_length, 1)
    ratio = min(max(int(_STEP_SECONDS / seconds), 1), _LARGEST_RATIO)
    return first, min(first * ratio, most)


def _step_seconds(engine: Engine, config: TrainConfig, size: int, text_length: int, step: int) -> float:
    side, text = config.model.image.image_size, config.model.text
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8).to(engine.device)
    token_ids = _random_texts(config, (size, min(text_length, text.context_length))).to(engine.device)
    nouns, loss = None, config.objective.multi_label
    if loss.is_on:
        prompts = _random_texts(config, (size, loss.num_nouns, noun_length(config)))
        nouns = NounPrompts(prompts, torch.randint(1000, prompts.shape[:2])).map(lambda ids: ids.to(engine.device))
    keys = sample_keys(0, torch.arange(size) + step * size)
    _synchronise(engine.device)
    start = time.perf_counter()
    inputs = StepInputs(augment(images, keys, config.data.transform), token_ids, keys.to(engine.device), nouns)
    # A step at which every loss counts.
    engine.step(inputs, config.steps, config.optim.lr)
    _synchronise(engine.device)
    return time.perf_counter() - start


def _random_texts(config: TrainConfig, shape: tuple[int, ...]) -> torch.Tensor:
    """Token ids of texts that all end at the last place."""
    token_ids = torch.randint(0, config.model.text.end_id, shape)
    token_ids[..., -1] = config.model.text.end_id
    return token_ids


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

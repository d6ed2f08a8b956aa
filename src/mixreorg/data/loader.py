"""From indexed pairs to batches whose content depends on (seed, position) alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mixreorg.data.order import Visit, VisitOrder
from mixreorg.data.pairs import PairSource
from mixreorg.data.problems import Problem
from mixreorg.data.transforms import ImageTransformConfig, random_view
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import trim
from mixreorg.randomness import numpy_generator
from mixreorg.text.noun_prompts import NounPrompter, NounPrompts
from mixreorg.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class PairSample:
    """One cropped pair on its way into a batch."""

    image: Tensor
    """``[3, S, S]`` uint8, cropped and flipped."""
    token_ids: Tensor
    """``[L]`` int64."""
    sample_id: int
    caption: str
    problems: list[Problem]
    nouns: NounPrompts | None = None
    """Prompts ``[T, L]`` of the caption's nouns, where the data set makes them."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs as a training step takes them."""

    images: Tensor
    """``[B, 3, S, S]`` uint8, cropped and flipped, for :func:`~mixreorg.data.transforms.augment`."""
    token_ids: Tensor
    """``[B, L]`` int64."""
    sample_ids: Tensor
    """``[B]`` int64, ``epoch * pairs + index``: one number per visit of a pair, the key of its noise."""
    captions: list[str]
    problems: list[Problem]
    """Unusable samples that the reading process met for the first time while it made this batch."""
    nouns: NounPrompts | None = None
    """Prompts ``[B, T, L]`` of the captions' nouns, where the data set makes them."""

    def to(self, device: torch.device | str) -> "PairBatch":
        """The same batch with its tensors on a device; pinned tensors are copied in the background."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PairBatch":
        """The same batch in page-locked memory; called by the data loader where it is asked to pin."""
        return self._map(lambda tensor: tensor.pin_memory())

    def trimmed(self, end_id: int) -> "PairBatch":
        """The same batch with captions, and noun prompts, cut after the longest of each.

        Args:
            end_id: id of the end of a text.
        """
        nouns = self.nouns and NounPrompts(trim(self.nouns.token_ids, end_id), self.nouns.words)
        return replace(self, token_ids=trim(self.token_ids, end_id), nouns=nouns)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "PairBatch":
        images, token_ids, sample_ids = map(function, (self.images, self.token_ids, self.sample_ids))
        nouns = self.nouns and self.nouns.map(function)
        return PairBatch(images, token_ids, sample_ids, self.captions, self.problems, nouns)


class PairDataset(Dataset[PairSample]):
    """Reads, crops and tokenizes pairs. An item is a function of (seed, epoch, index) and nothing else."""

    def __init__(
        self,
        source: PairSource,
        tokenizer: Tokenizer,
        transform: ImageTransformConfig,
        seed: int,
        nouns: NounPrompter | None = None,
    ) -> None:
        """Combine what makes an item.

        Args:
            source: the pairs.
            tokenizer: of the model that is trained.
            transform: crop and flip of the images; :func:`~mixreorg.data.transforms.augment` does the rest of it.
            seed: of the run.
            nouns: makes noun prompts of the captions; None for none.
        """
        self.source = source
        self.tokenizer = tokenizer
        self.transform = transform
        self.seed = seed
        self.nouns = nouns

    def __len__(self) -> int:
        """Number of pairs in an epoch."""
        return len(self.source)

    def __getitem__(self, visit: Visit) -> PairSample:
        """Read a pair for one epoch; an unusable one is replaced by the next usable pair in index order.

        Raises:
            MixreorgError: a shard can no longer be read, or no pair is usable.
        """
        epoch, index = visit
        view = random_view(self.transform, numpy_generator(self.seed, "augmentation", epoch, index))
        pair, problems = self.source.read_or_next(index, view.decode)
        return PairSample(
            image=pair.image,
            token_ids=self.tokenizer.encode([pair.caption])[0],
            sample_id=epoch * len(self.source) + index,
            caption=pair.caption,
            problems=problems,
            nouns=None if self.nouns is None else self.nouns(pair.caption, epoch, index),
        )


def collate(samples: Sequence[PairSample]) -> PairBatch:
    """Stack samples into a batch, in their order."""
    nouns = [sample.nouns for sample in samples if sample.nouns is not None]
    return PairBatch(
        images=torch.stack([sample.image for sample in samples]),
        token_ids=torch.stack([sample.token_ids for sample in samples]),
        sample_ids=torch.tensor([sample.sample_id for sample in samples], dtype=torch.int64),
        captions=[sample.caption for sample in samples],
        problems=[problem for sample in samples for problem in sample.problems],
        nouns=NounPrompts.stack(nouns) if nouns else None,
    )


def step_visits(
    order: VisitOrder, batch_size: int, start_step: int, num_steps: int, rank: int = 0, world: int = 1
) -> Iterator[list[Visit]]:
    """The visits of one process, step by step.

    All processes share one endless stream of visits. Step ``s`` takes its positions ``s * batch_size`` up to
    ``(s + 1) * batch_size``, so no pair is dropped at the end of an epoch, and rank ``r`` the ``r``-th of ``world``
    equal slices of them. Steps are therefore the same for every number of processes and after every restart.

    Args:
        order: the stream.
        batch_size: pairs per step over all processes.
        start_step: first step to yield; the number of steps already done when a run is resumed.
        num_steps: how many steps to yield.
        rank: of this process.
        world: number of processes.

    Returns:
        For each step a list of (epoch, index), for :class:`PairDataset`.

    Raises:
        MixreorgError: ``batch_size`` cannot be shared equally.
    """
    if batch_size % world:
        raise MixreorgError(f"the batch of {batch_size} pairs cannot be shared by {world} processes equally")
    share = batch_size // world
    steps = range(start_step, start_step + num_steps)
    return (order.visits(step * batch_size + rank * share, share) for step in steps)


def original_error(error: MixreorgError) -> MixreorgError:
    """The error that a reading process raised.

    The data loader raises it again with the worker's traceback as its message; here the message alone comes back.
    """
    marker = f"{MixreorgError.__module__}.{MixreorgError.__qualname__}: "
    return MixreorgError(str(error).rpartition(marker)[2].rstrip("\n"))

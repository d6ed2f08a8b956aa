"""Batches for the training loop: a data loader whose failures come in turn, as one clear error."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from mixreorg.data.loader import PairBatch, PairDataset, collate, original_error, step_visits
from mixreorg.data.pairs import PairSource
from mixreorg.distributed import rank, world_size
from mixreorg.errors import MixreorgError
from mixreorg.text.noun_prompts import NounPrompter
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import TrainConfig

_WATCH_SECONDS = 1.0


class DeadReaderError(MixreorgError):
    """A reading process died. Where a run is asked to stop, that is the end of the whole group and no failure."""


class BatchReader:
    """Reads this process's batches from a step on, in worker processes if the configuration asks for them."""

    def __init__(
        self,
        source: PairSource,
        tokenizer: Tokenizer,
        config: TrainConfig,
        first_step: int,
        *,
        nouns: NounPrompter | None = None,
        pin_memory: bool,
    ) -> None:
        """Start reading.

        Args:
            source: the pairs.
            tokenizer: of the model.
            config: of the run.
            first_step: number of finished steps.
            nouns: makes noun prompts of the captions; None for none.
            pin_memory: whether batches go to page-locked memory, from where CUDA copies in the background.
        """
        dataset = PairDataset(source, tokenizer, config.data.transform, config.seed, nouns)
        visits = step_visits(
            source.order(config.seed, config.data.weights, config.data.shuffle_shards),
            config.batch_size,
            start_step=first_step,
            num_steps=config.steps - first_step,
            rank=rank(),
            world=world_size(),
        )
        workers = config.data.num_workers
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=visits,
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_begin_reading,
            # A forked worker sees the death of the process it reads for; one that a fork server started, the default
            # of newer Pythons, would not.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            pin_memory=pin_memory,
        )
        previous = signal.getsignal(signal.SIGCHLD)
        self._batches: Iterator[PairBatch] = iter(loader)
        # The loader would raise the death of a worker wherever training happens to be, in the middle of a step too.
        # Without its handler it notices when the next batch does not come.
        signal.signal(signal.SIGCHLD, previous)
        self._workers = workers

    def next(self) -> PairBatch:
        """The next batch.

        Raises:
            DeadReaderError: a worker process died.
            MixreorgError: the data can no longer be read.
        """
        try:
            return next(self._batches)
        except MixreorgError as error:
            if not self._workers:
                raise
            raise original_error(error) from None
        # The loader's own error, or whatever the connection to a process says that died while it handed a batch over.
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            # What a living process raised comes with this heading and its traceback.
            if not self._workers or str(error).startswith("Caught "):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DeadReaderError(
                f"a reading process died ({reason}), perhaps for lack of memory; go on with "
                "--resume auto, with fewer reading processes (--set data.num_workers=...) if it happens again"
            ) from error

    def close(self) -> None:
        """End the worker processes; nothing can be read afterwards.

        The loader would do so when its iterator goes, which the traceback of a failure may keep until Python ends.
        Then every worker is sent one SIGTERM, which is the one that it passes over, and waited for.
        """
        shut_down = getattr(self._batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()


def _begin_reading(worker: int) -> None:
    """Reading processes leave Ctrl-C and SIGTERM to the training process, which still needs its next batch to stop."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first SIGTERM goes to the whole group. The loader sends one more to a process that does not end with it.
    signal.signal(signal.SIGTERM, _end_next_time)


def _end_with(training: int) -> None:
    """End this process when the one it reads for is gone, however that ended.

    The loader's own watch does not do: a worker that it ends waits until its batches are read, hence for ever where
    the pipe, which the other workers hold open, is full.
    """
    while os.getppid() == training:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _end_next_time(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)

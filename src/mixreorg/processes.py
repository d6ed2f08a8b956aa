"""A pool of worker processes that an interrupt at the terminal does not reach."""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class WorkerPool(ProcessPoolExecutor):
    """Processes that are started by spawning and never see SIGINT.

    Forking a process that already runs threads (torch, rich) can hang the child, and a forked one cannot use CUDA. An
    interrupt goes to every process of the terminal. It is for the first one to end the others: a worker that died of
    it, as a new one would before any line of its own runs, would break the pool while its work is being cancelled.
    """

    def __init__(
        self, num_processes: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        """Describe the processes; they start with the first task.

        Args:
            num_processes: at most so many.
            initializer: called in each when it starts.
            initargs: its arguments.
        """
        super().__init__(num_processes, multiprocessing.get_context("spawn"), initializer, initargs)

    def submit(
        self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> "Future[_Result]":
        """Give a task to the processes, which the first one starts."""
        with _interrupts_held():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep SIGINT back for a moment; processes that are started meanwhile never get it."""
    if sys.platform == "win32":
        # No signal masks; there a new process may still die of Ctrl-C.
        yield
        return
    from multiprocessing import resource_tracker

    # It starts with the first process, and ends by lifting the mask.
    resource_tracker.ensure_running()
    with _interrupts_postponed():
        # New processes inherit the mask of the thread that starts them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_postponed() -> Iterator[None]:
    """Call the handler of SIGINT when the block has ended: a mask binds one thread, and any other may take the signal.

    Handlers run in the main thread alone; elsewhere there is nothing to postpone.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)

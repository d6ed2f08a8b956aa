"""How a run goes: pairs per second, use of the device, waiting for data, memory, time left."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.cuda import Event

_GIB = 2**30


class Meter:
    """Rates over the steps since the last reading; evaluations and checkpoints are left out of them.

    A step on a CUDA device returns before the device has done it, so there the wait is the time for which the device
    itself stood idle between two steps. Elsewhere it is the time until the next batch has come.
    """

    def __init__(
        self,
        step: int,
        steps: int,
        batch_size: int,
        *,
        device: torch.device | None = None,
        peak_flops: float | None = None,
    ) -> None:
        """Start the clock.

        Args:
            step: finished steps.
            steps: of the whole run.
            batch_size: pairs per step over all processes.
            device: that this process trains on; the CPU by default.
            peak_flops: operations per second that all devices of the run could do at best, or None if unknown.
        """
        self._steps = steps
        self._batch_size = batch_size
        self._device = device or torch.device("cpu")
        self._flops = 0.0
        self._peak_flops = peak_flops
        self._done = self._since = step
        self._start = self._mark = time.perf_counter()
        self._cpu_start = self._cpu_mark = time.process_time()
        self._waited = 0.0
        self._idle: list[tuple[Event, Event]] = []
        self._step_end = self._event()

    def data_ready(self) -> None:
        """The batch of the next step has come."""
        self._waited += time.perf_counter() - self._mark
        begin = self._event()
        if self._step_end is not None and begin is not None:
            self._idle.append((self._step_end, begin))

    def step_done(self, flops_per_pair: float = 0.0) -> None:
        """A step has ended.

        Args:
            flops_per_pair: the model's floating-point operations of one pair's share of it; 0 if unknown.
        """
        self._done += 1
        self._flops += flops_per_pair * self._batch_size
        self._set_mark()

    def exclude_pause(self) -> None:
        """Leave the time since the last step (an evaluation) out of the rates."""
        before, cpu_before = self._mark, self._cpu_mark
        self._set_mark()
        self._start += self._mark - before
        self._cpu_start += self._cpu_mark - cpu_before

    def read(self) -> dict[str, float]:
        """Rates since the last reading: ``pairs_per_second`` of all processes, ``data_wait_share`` of this one.

        ``mfu``, the share of the devices' peak that the model's own operations use, is there when both the
        operations and the peak are known. ``memory_gib`` is this process's: of CUDA memory the most that was
        allocated since the last reading, otherwise what is in use now. ``cpu_cores`` are the processor cores that all
        threads of this process kept busy; reading processes are not in it.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        cpu_seconds = time.process_time() - self._cpu_start
        steps = max(self._done - self._since, 1)
        rate = steps * self._batch_size / seconds
        values = {"pairs_per_second": rate, "data_wait_share": min(self._wait_seconds() / seconds, 1.0)}
        values["cpu_cores"] = cpu_seconds / seconds
        if self._flops and self._peak_flops is not None:
            values["mfu"] = self._flops / seconds / self._peak_flops
        memory = _memory_bytes(self._device)
        if memory is not None:
            values["memory_gib"] = memory / _GIB
        values["eta_seconds"] = (self._steps - self._done) * seconds / steps
        self._since = self._done
        self._waited = self._flops = 0.0
        self._idle.clear()
        self._set_mark()
        self._start, self._cpu_start = self._mark, self._cpu_mark
        return values

    def _set_mark(self) -> None:
        """From here on the next batch is waited for."""
        self._mark = time.perf_counter()
        self._cpu_mark = time.process_time()
        self._step_end = self._event()

    def _event(self) -> "Event | None":
        """A point on the device's own clock, reached when all work given to it so far is done."""
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _wait_seconds(self) -> float:
        if not self._idle:
            return self._waited
        self._idle[-1][1].synchronize()
        milliseconds: float = sum(end.elapsed_time(begin) for end, begin in self._idle)
        return milliseconds / 1000


def _memory_bytes(device: torch.device) -> int | None:
    """Memory of this process on its device; None where it cannot be told."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _resident_bytes()


def _resident_bytes() -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return _peak_resident_bytes()
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int | None:
    """Where there is no ``/proc``: the largest resident size so far. Windows does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

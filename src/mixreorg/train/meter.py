"""How fast a run goes: pairs per second, waiting for data, time left."""

import time


class Meter:
    """Pairs per second, share of time spent waiting for data, time left."""

    def __init__(self, step: int, steps: int, batch_size: int) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._done = step
        self._since = step
        self._start = self._mark = time.perf_counter()
        self._waited = 0.0

    def data_ready(self) -> None:
        """The batch of the next step has come."""
        self._waited += time.perf_counter() - self._mark

    def step_done(self) -> None:
        """A step has ended."""
        self._done += 1
        self._mark = time.perf_counter()

    def exclude_pause(self) -> None:
        """Leave the time since the last step (an evaluation) out of the rates."""
        now = time.perf_counter()
        self._start += now - self._mark
        self._mark = now

    def read(self) -> dict[str, float]:
        """Rates since the last reading."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps = max(self._done - self._since, 1)
        rates = {
            "pairs_per_second": steps * self._batch_size / seconds,
            "data_wait_share": self._waited / seconds,
            "eta_seconds": (self._steps - self._done) * seconds / steps,
        }
        self._start = time.perf_counter()
        self._since, self._waited = self._done, 0.0
        return rates

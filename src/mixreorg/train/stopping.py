"""Signals that ask a run to stop: noted at once, obeyed between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Any, Literal, Self

Stop = Literal["interrupt", "terminate"]

EXIT_CODES: dict[Stop, int] = {"interrupt": 130, "terminate": 143}
"""Exit code of a process that was asked to stop: 128 plus the number of the signal."""


class StopSignals:
    """While entered, Ctrl-C (SIGINT) and preemption (SIGTERM) set ``asked`` instead of ending the process."""

    def __init__(self) -> None:
        self.asked: Stop | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over both signals."""
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give them back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = "terminate" if number == signal.SIGTERM else "interrupt"

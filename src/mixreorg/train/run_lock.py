"""One training run per folder: two at once would remove each other's work in progress."""

import sys
from pathlib import Path
from typing import IO

from mixreorg.errors import MixreorgError


class RunLock:
    """Holds a run folder until it is released or the process ends, in whatever way.

    On Windows, and on file systems without locks, nothing is held.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the folder, which is created if missing.

        Raises:
            MixreorgError: another live process trains in it, or it cannot be created.
        """
        try:
            self._run.mkdir(parents=True, exist_ok=True)
            self._file = (self._run / ".lock").open("ab")
        except OSError as error:
            raise MixreorgError(
                f"cannot write to {self._run}: {error.strerror or error}; choose another --out"
            ) from error
        if sys.platform == "win32":
            return
        import fcntl

        try:
            # Of this process alone: reading processes, which outlive a killed trainer for seconds, do not inherit it.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise MixreorgError(
                f"another process is training in {self._run}; wait for it, or choose another --out"
            ) from error
        except OSError:
            return  # a file system without locks

    def release(self) -> None:
        """Let others have the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None

"""A bounded folder of downloaded shards that many processes share, the longest unused making room."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mixreorg.errors import MixreorgError
from mixreorg.files import sync

# Other files that a user keeps in the folder are neither counted nor removed.
_SHARD = re.compile(r"[0-9a-f]{16}-[^/]*\.tar")
_PART = re.compile(r"(?P<name>[0-9a-f]{16}-[^/]*\.tar)\.(?P<num_bytes>\d+)\.part")
_POLL_SECONDS = 0.1


def default_cache_dir() -> Path:
    """``mixreorg/shards`` in the user's cache folder: ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixreorg" / "shards"


@dataclass(frozen=True)
class ShardCache:
    """Copies of remote shards.

    A shard is ``NAME``; while it is downloaded it is ``NAME.BYTES.part``, and counts as that many bytes. Whoever
    downloads holds the lock ``NAME.lock``; whoever makes room holds ``cache.lock``. The system lets go of both when
    a process dies. A shard may be evicted while it is read: an open file keeps its bytes.
    """

    folder: Path
    limit: int
    """Bytes that all shards together may take."""

    def open(self, name: str, num_bytes: int, download: Callable[[Path], None]) -> BinaryIO:
        """Open a cached shard, fetching it first where it is absent or has another size.

        Args:
            name: of the file in the folder: 16 hexadecimal digits, a hyphen, and anything that ends in ``.tar``.
            num_bytes: its size.
            download: fills the path it is given, or raises.

        Raises:
            MixreorgError: the shard is larger than the cache, or the folder cannot be used.
        """
        if num_bytes > self.limit:
            raise MixreorgError(
                f"a shard of {num_bytes / 1e9:.3g} GB does not fit into the cache of {self.limit / 1e9:.3g} GB; "
                "raise data.cache_gb"
            )
        try:
            with contextlib.suppress(FileNotFoundError):
                return self._open(name, num_bytes)
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(name):
                with contextlib.suppress(FileNotFoundError):  # another process fetched it meanwhile
                    return self._open(name, num_bytes)
                return self._fetch(name, num_bytes, download)
        except OSError as error:
            raise MixreorgError(
                f"cannot use the shard cache {self.folder}: {error.strerror or error}; set data.cache_dir"
            ) from error

    def _open(self, name: str, num_bytes: int) -> BinaryIO:
        path = self.folder / name
        file = path.open("rb", buffering=0)
        if os.fstat(file.fileno()).st_size != num_bytes:  # a damaged copy is as good as none
            file.close()
            raise FileNotFoundError(path)
        with contextlib.suppress(OSError):  # evicted between the two lines: the open file can still be read
            os.utime(path)
        return file

    def _fetch(self, name: str, num_bytes: int, download: Callable[[Path], None]) -> BinaryIO:
        part = self.folder / f"{name}.{num_bytes}.part"
        while not self._reserve(part, num_bytes):
            time.sleep(_POLL_SECONDS)
        try:
            download(part)
            sync(part)  # else a power failure may leave the name with holes for data
            # Opened before it can be evicted.
            file = part.open("rb", buffering=0)
            with self._lock("cache"):  # whoever counts meets it under one of its names
                part.replace(self.folder / name)
            return file
        finally:
            part.unlink(missing_ok=True)

    def _reserve(self, part: Path, num_bytes: int) -> bool:
        """Make room and take it; false while the downloads of other processes leave too little."""
        with self._lock("cache"):
            shards = sorted(self._shards())
            used = num_bytes + sum(size for _, size, _ in shards) + self._reserved(part)
            for _, size, path in shards:
                if used <= self.limit:
                    break
                path.unlink(missing_ok=True)
                used -= size
            if used <= self.limit:
                part.touch()
                return True
        return False

    def _shards(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and path of every shard."""
        for path in self.folder.iterdir():
            if _SHARD.fullmatch(path.name):
                status = path.stat()
                yield status.st_mtime, status.st_size, path

    def _reserved(self, own: Path) -> int:
        """Bytes of all downloads but one's own; those whose process died are removed."""
        from filelock import Timeout

        reserved = 0
        for path in self.folder.iterdir():
            match = _PART.fullmatch(path.name)
            if match and path != own:
                try:
                    with self._lock(match["name"], blocking=False):
                        path.unlink(missing_ok=True)
                except Timeout:
                    reserved += int(match["num_bytes"])
        return reserved

    @contextlib.contextmanager
    def _lock(self, name: str, blocking: bool = True) -> Iterator[None]:
        # torch needs filelock too, so it is always there.
        from filelock import FileLock

        with FileLock(self.folder / f"{name}.lock", blocking=blocking):
            yield

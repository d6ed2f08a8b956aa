"""Shards behind URLs: found, measured and fetched with fsspec, read from a local cache."""

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mixreorg.data.problems import Problem
from mixreorg.data.shard_cache import ShardCache
from mixreorg.data.shard_index import INDEX_SUFFIX, load_index, save_index
from mixreorg.data.shards import Shard, content_hash, file_digest, scan_file
from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically

_Result = TypeVar("_Result")
_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.5
# How file systems name what changes whenever a file does; the first that is there counts. New ones come last, so that
# copies in existing caches keep their names.
_VERSION_FIELDS = (
    *("ETag", "etag", "md5Hash", "md5", "checksum", "LastModified", "last_modified", "mtime", "updated"),
    *("Content-MD5", "Digest", "Last-Modified", "blob_id", "sha", "modify", "modified"),
)


class _CutDownloadError(Exception):
    """Fewer or more bytes came than the file has."""


@dataclass(frozen=True)
class RemoteFile:
    """A shard behind a URL, as it was when :func:`locate` asked; read from the cache, fetched when it is absent."""

    url: str
    num_bytes: int
    cached_name: str
    cache: ShardCache
    digest: str | None = None
    """:func:`~mixreorg.data.shards.file_digest` of the shard that was indexed, once it is known."""

    @property
    def name(self) -> str:
        """The URL without credentials."""
        return printable(self.url)

    @property
    def remedy(self) -> str:
        """Fetch it again."""
        return (
            f"delete {self.cache.folder / self.cached_name} and {self.index.name} there, and make the index beside the "
            "shard again, if there is one, with mixreorg data check"
        )

    @property
    def index(self) -> Path:
        """Where the cache keeps its index."""
        return self.cache.folder / (self.cached_name + INDEX_SUFFIX)

    def open(self) -> BinaryIO:
        """Open the cached copy.

        Raises:
            MixreorgError: the shard cannot be fetched, or is not the one that was indexed any more.
        """
        return self.cache.open(self.cached_name, self.num_bytes, self._download)

    def _download(self, path: Path) -> None:
        _with_retries(self.url, "fetch", lambda: self._download_once(path))

    def _download_once(self, path: Path) -> None:
        filesystem, remote_path = _filesystem(self.url)
        filesystem.get_file(remote_path, str(path))
        received = path.stat().st_size
        if received != self.num_bytes:
            raise _CutDownloadError(f"{received:,} of {self.num_bytes:,} bytes came")
        with path.open("rb") as file:
            if self.digest is not None and file_digest(file, received) != self.digest:
                self.index.unlink(missing_ok=True)
                raise MixreorgError(
                    f"{self.name} is not the file that was indexed; make the index beside it again, if there is one, "
                    "and restart"
                )


@dataclass(frozen=True)
class _HeldFile:
    """A cached shard that one thread holds open, so that others' shards cannot evict it between two readings."""

    file: RemoteFile
    stream: BinaryIO

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def remedy(self) -> str:
        return self.file.remedy

    def open(self) -> BinaryIO:
        return os.fdopen(os.dup(self.stream.fileno()), "rb", buffering=0)


def locate(url: str, cache: ShardCache) -> RemoteFile:
    """Ask for the size and the version of a shard.

    Raises:
        MixreorgError: no such file, no answer, no size, or a package is missing.
    """
    information: dict[str, Any] = _with_retries(url, "find", lambda: _information(url))
    size = information.get("size")
    if size is None:
        raise MixreorgError(
            f"{printable(url)}: its server does not tell its size, so that a cut download would go unnoticed; "
            "download the shard and name the copy"
        )
    version = next((str(information[field]) for field in _VERSION_FIELDS if information.get(field)), "")
    name = re.sub(r"[^\w.-]", "_", printable(url).rsplit("/", 1)[-1])
    return RemoteFile(url, int(size), f"{content_hash(url, str(size), version).hex()[:16]}-{name}", cache)


def open_remote(url: str, cache: ShardCache) -> tuple[Shard, list[Problem]]:
    """Index a remote shard: by the index in the cache, by one beside the shard, or by fetching and reading it.

    Args:
        url: of an uncompressed tar file.
        cache: where the shard and its index are kept.

    Returns:
        The shard, and what was left out of it.

    Raises:
        MixreorgError: the shard cannot be fetched or read.
    """
    file = locate(url, cache)
    indexed = _read_index(file)
    if indexed is None and _fetch_index(file):
        indexed = _read_index(file)
    if indexed is None:
        with file.open() as stream:
            indexed = scan_file(_HeldFile(file, stream))
            save_index(*indexed, file.index)
    shard, found = indexed
    return Shard(replace(file, digest=shard.digest), shard.table, shard.num_bytes, shard.digest), found


def list_shards(pattern: str) -> list[str]:
    """URLs that match a pattern with ``*`` or ``[...]``, sorted.

    Raises:
        MixreorgError: the file system cannot be reached or cannot list.
    """

    def find() -> list[str]:
        filesystem, path = _filesystem(pattern)
        return sorted(filesystem.unstrip_protocol(match) for match in filesystem.glob(path))

    return _with_retries(pattern, "list", find)


def printable(url: str) -> str:
    """A URL without user, password and query, which may hold secrets."""
    return re.sub(r"[?#][^\s'\"]*", "", re.sub(r"(?<=://)[^/@\s]*@", "", url))


def _read_index(file: RemoteFile) -> tuple[Shard, list[Problem]] | None:
    try:
        shard, found = load_index(file.index, file)
    except ValueError:
        return None
    return (shard, found) if shard.num_bytes == file.num_bytes else None


def _fetch_index(file: RemoteFile) -> bool:
    """Fetch the index that lies beside a remote shard; false without one."""
    path, separator, query = file.url.partition("?")
    try:
        filesystem, remote_path = _filesystem(path + INDEX_SUFFIX + separator + query)
        content = filesystem.cat_file(remote_path)
    except Exception:  # absent or unreadable for whatever reason: the shard itself will tell
        return False
    write_atomically(file.index, lambda temporary: _write(temporary, content))
    return True


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _information(url: str) -> dict[str, Any]:
    filesystem, path = _filesystem(url)
    information: dict[str, Any] = filesystem.info(path)
    return information


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it.

    Raises:
        MixreorgError: the protocol is unknown or needs a package that is not installed.
    """
    import fsspec

    options: dict[str, Any] = {}
    try:
        if url.startswith(("http://", "https://")):
            import aiohttp

            # By default a download may take five minutes in all, whatever the size of the file.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options["client_kwargs"] = {"timeout": timeout}
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise MixreorgError(f"{printable(url)}: {error}; pip install 'mixreorg[remote]'") from error
    except ValueError as error:
        raise MixreorgError(f"{printable(url)}: {error}") from error
    return filesystem, path


def _with_retries(url: str, action: str, run: Callable[[], _Result]) -> _Result:
    """Run what may fail for reasons that pass; wait twice as long before each next attempt."""
    for attempt in range(_ATTEMPTS):
        try:
            return run()
        except MixreorgError:
            raise
        except Exception as error:  # each file system raises the errors of its own library
            remedy = _remedy(error)
            if remedy or attempt == _ATTEMPTS - 1:
                reason = printable(" ".join(str(error).split())) or type(error).__name__
                remedy = remedy or "check the connection and try again"
                raise MixreorgError(f"cannot {action} {printable(url)} ({reason}); {remedy}") from error
        time.sleep(_BACKOFF_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _remedy(error: Exception) -> str:
    """What to do about an error that asking again cannot mend; empty for one that may pass."""
    # The HTTP file system calls every failure a missing file, and keeps the true one as the cause.
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if status in (401, 403) or isinstance(cause, PermissionError):
        return "log in to where it lies, or correct the URL"
    if status in (404, 410) or isinstance(cause, FileNotFoundError):
        return "every shard that is named must exist, so correct the URL or restore it"
    if isinstance(cause, NotImplementedError):
        return "name the shards with braces, as this kind of store cannot list them"
    return "free some space" if getattr(cause, "errno", None) == errno.ENOSPC else ""

"""Checksums that tell a whole folder of files from a damaged one."""

import errno
import hashlib
import os
from pathlib import Path

from pydantic import Field

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, sync, write_json

CHECKSUMS = "checksums.json"
# What a disk reports when a sector or a block of the file system is gone.
_DAMAGE_ERRORS = (errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR)


class _Checksum(StrictConfig):
    bytes: int = Field(ge=0)
    sha256: str


class _Checksums(StrictConfig):
    files: dict[str, _Checksum] = Field(min_length=1)


def seal(folder: Path) -> None:
    """Bring every file of a folder to the disk, then write ``checksums.json``: a folder that has one is whole.

    Raises:
        OSError, MixreorgError: the disk is full or fails.
    """
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    write_json(folder / CHECKSUMS, {"files": files})
    sync(folder / CHECKSUMS)
    sync(folder)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in a few words, or None where every file is as it was written.

    Raises:
        MixreorgError: a file may not be read, which says nothing about its content.
    """
    try:
        content = read_json(folder / CHECKSUMS) if (folder / CHECKSUMS).is_file() else None
        if content is None:
            return f"{CHECKSUMS} is missing"
        checksums = _Checksums.from_dict(content)
    except MixreorgError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return f"{CHECKSUMS} cannot be read"
    for name, expected in checksums.files.items():
        try:
            reason = _difference(folder / name, expected)
        except OSError as error:
            if error.errno not in _DAMAGE_ERRORS:
                raise MixreorgError(f"cannot read {folder / name}: {error.strerror or error}") from error
            reason = "is missing" if error.errno == errno.ENOENT else "cannot be read"
        if reason is not None:
            return f"{name} {reason}"
    return None


def _difference(path: Path, expected: _Checksum) -> str | None:
    size = path.stat().st_size
    if size != expected.bytes:
        return f"has {size} bytes instead of {expected.bytes}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == expected.sha256 else "has another checksum"

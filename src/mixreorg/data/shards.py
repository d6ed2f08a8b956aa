"""Webdataset shards in img2dataset's layout, indexed once so that any sample can be read at random.

A shard is an uncompressed tar. Members whose names agree up to the first dot of the file name make one
sample: an image (jpg, jpeg, png, webp) and a caption (``txt``, or ``caption`` in ``json``).
"""

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mixreorg.data.problems import Problem, Problems, UnusableSampleError
from mixreorg.errors import MixreorgError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")

_MEMBER_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_BLOCK_BYTES = 512
_TAIL_BYTES = 1 << 20

Extent = tuple[int, int]
"""Offset and size in bytes of a member's data inside its shard."""


@dataclass
class _Members:
    """Where the parts of one sample are; None where a part is missing or empty."""

    image: Extent | None = None
    text: Extent | None = None
    metadata: Extent | None = None


class Shard:
    """The usable samples of one tar file, in the order of the file."""

    def __init__(self, path: Path, keys: list[str], extents: npt.NDArray[np.int64]) -> None:
        """Describe a shard; :func:`index_shard` makes these.

        Args:
            path: the tar file.
            keys: one per sample.
            extents: ``[samples, 3, 2]`` offset and size of image, text and metadata; 0 and 0 where missing.
        """
        self.name = str(path)
        self._path = path
        # One array instead of many strings: worker processes share its memory.
        self._keys = np.array([key.encode("utf-8", "surrogateescape") for key in keys], dtype=np.bytes_)
        self._extents = extents

    def __len__(self) -> int:
        """Number of usable samples."""
        return len(self._keys)

    def key(self, index: int) -> str:
        """Key of a sample: its members' name up to the first dot."""
        key: bytes = self._keys[index]
        return key.decode("utf-8", "surrogateescape")

    def read(self, index: int) -> tuple[bytes, str]:
        """Bytes of the image file, and the caption.

        Raises:
            UnusableSampleError: no caption, or one that cannot be read.
            MixreorgError: the shard itself cannot be read.
        """
        image, text, metadata = self._read_extents(self._extents[index].tolist())
        return image, _caption(text, metadata)

    def caption(self, index: int) -> str:
        """The caption alone; raises as :meth:`read` does."""
        text, metadata = self._read_extents(self._extents[index, 1:].tolist())
        return _caption(text, metadata)

    def _read_extents(self, extents: list[Extent]) -> list[bytes]:
        try:
            # Opened for each sample: a descriptor kept open would have to survive forks, threads and a
            # thousand shards, to save a hundredth of the time that decoding takes.
            with self._path.open("rb", buffering=0) as file:
                contents = []
                for offset, size in extents:
                    file.seek(offset)
                    contents.append(file.read(size))
        except OSError as error:
            raise MixreorgError(
                f"cannot read the shard {self.name}: {error.strerror or error}; it must stay in place while it is used"
            ) from error
        if any(len(content) < size for content, (_, size) in zip(contents, extents, strict=True)):
            raise MixreorgError(f"the shard {self.name} became shorter while it was used; restore it and resume")
        return contents


def index_shard(path: Path, problems: Problems) -> Shard:
    """Index a shard in one pass over its headers.

    Samples without image or caption are left out and counted in ``problems``. So is what follows a damaged or
    missing part of the file: whole samples before it are kept.

    Args:
        path: an uncompressed tar file.
        problems: receives what was left out.

    Raises:
        MixreorgError: the file cannot be opened or does not begin as a tar file.
    """
    samples: dict[str, _Members] = {}
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            _collect_members(archive, str(path), size, samples, problems)
            _check_end(path, archive.offset, size, problems)
    except tarfile.TarError as error:
        raise MixreorgError(
            f"{path} is not an uncompressed tar file ({error}); make it again or leave it out"
        ) from error
    except OSError as error:
        raise MixreorgError(f"cannot read the shard {path}: {error.strerror or error}") from error
    keys, rows = [], []
    for key, members in samples.items():
        if members.image is None:
            problems.add(Problem("no image", str(path), key))
        elif members.text is None and members.metadata is None:
            problems.add(Problem("no caption", str(path), key))
        else:
            keys.append(key)
            rows.append([members.image, members.text or (0, 0), members.metadata or (0, 0)])
    return Shard(path, keys, np.array(rows, dtype=np.int64).reshape(len(rows), 3, 2))


def _collect_members(
    archive: tarfile.TarFile, shard: str, size: int, samples: dict[str, _Members], problems: Problems
) -> None:
    try:
        for member in archive:
            name = _MEMBER_NAME.fullmatch(member.name)
            # A sparse member's bytes do not lie in one piece; links and folders have none.
            if not member.isreg() or member.issparse() or name is None:
                continue
            key, suffix = name[1], name[2].lower()
            kind = {"txt": "text", "json": "metadata"}.get(suffix, "image" if suffix in IMAGE_SUFFIXES else "")
            # The last member of a truncated shard has a header but not all of its bytes.
            if not kind or member.offset_data + member.size > size:
                continue
            members = samples.setdefault(key, _Members())
            if getattr(members, kind) is not None:
                problems.add(Problem("duplicate member", shard, member.name))
            if member.size:
                setattr(members, kind, (member.offset_data, member.size))
    except (tarfile.TarError, ValueError) as error:
        problems.add(Problem("damaged shard", shard, f"at byte {archive.offset:,} of {size:,}: {error}"))


def _check_end(path: Path, offset: int, size: int, problems: Problems) -> None:
    """Report a shard whose headers end before the file does; ``tarfile`` takes any end for a normal one."""
    with path.open("rb") as file:
        file.seek(offset)
        tail = file.read(_TAIL_BYTES)
    if len(tail) < _BLOCK_BYTES:
        problems.add(Problem("truncated shard", str(path), f"no end mark after byte {size:,}"))
    elif any(tail):
        problems.add(Problem("damaged shard", str(path), f"unreadable after byte {offset:,} of {size:,}"))


def _caption(text: bytes, metadata: bytes) -> str:
    try:
        caption: object = text.decode("utf-8-sig").strip()
        if not caption and metadata:
            values = json.loads(metadata)
            caption = values.get("caption") if isinstance(values, dict) else None
    except ValueError as error:  # not UTF-8, or not JSON
        raise UnusableSampleError("damaged caption") from error
    if not (isinstance(caption, str) and caption.strip()):
        raise UnusableSampleError("no caption")
    return caption.strip()

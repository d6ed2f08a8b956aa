"""Webdataset shards in img2dataset's layout, indexed once so that any sample can be read at random.

A shard is an uncompressed tar. Members whose names agree up to the first dot of the file name make one
sample: an image (jpg, jpeg, png, webp) and a caption (``txt``, or ``caption`` in ``json``).
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from mixreorg.data.problems import Problem, Problems, UnusableSampleError
from mixreorg.errors import MixreorgError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
# Pillow hands other formats to external programs or reads them in ways not meant for files from strangers.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

_MEMBER_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
BLOCK_BYTES = 512
"""Members of a tar begin at multiples of this."""
_TAIL_BYTES = 1 << 20
_UINT32_END = 1 << 32
_DIGEST_PIECES, _DIGEST_PIECE_BYTES = 16, 4096

Extent = tuple[int, int]
"""Offset and size in bytes of a member's data inside its shard."""


class ShardFile(Protocol):
    """Where the bytes of a shard come from."""

    @property
    def name(self) -> str:
        """Path or URL, as messages show it."""

    @property
    def remedy(self) -> str:
        """What to do when it is not the file any more that was indexed, as messages end."""

    def open(self) -> BinaryIO:
        """The tar file, unbuffered and seekable; raises ``OSError`` or ``MixreorgError``."""


@dataclass(frozen=True)
class LocalFile:
    """A shard on a disk."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    @property
    def remedy(self) -> str:
        """Index it again."""
        return (
            "mixreorg data check, without --sample and with --index-dir where the run has data.index_dir, writes its "
            "index again"
        )

    def open(self) -> BinaryIO:
        """Open it."""
        return self.path.open("rb", buffering=0)


@dataclass(frozen=True)
class SampleTable:
    """Keys and places of a shard's usable samples, as arrays: forked processes share their memory."""

    key_bytes: npt.NDArray[np.uint8]
    """All keys, one after the other, as the bytes of their names."""
    key_ends: npt.NDArray[np.uint32]
    """``[samples]`` end of each key in ``key_bytes``."""
    extents: npt.NDArray[np.uint32]
    """``[samples, 3, 2]`` first block of :data:`BLOCK_BYTES` and size in bytes of image, text and metadata; 0 and 0
    where missing."""

    @classmethod
    def pack(cls, keys: Sequence[str], extents: Sequence[Sequence[Extent]]) -> "SampleTable":
        """Pack keys, and for each the extents of image, text and metadata."""
        encoded = [key.encode("utf-8", "surrogateescape") for key in keys]
        places = np.array(extents, dtype=np.int64).reshape(len(keys), 3, 2)
        places[:, :, 0] //= BLOCK_BYTES
        return cls(
            np.frombuffer(b"".join(encoded), dtype=np.uint8),
            np.cumsum([len(key) for key in encoded], dtype=np.uint32),
            places.astype(np.uint32),
        )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.key_ends)

    def key(self, index: int) -> str:
        """Key of a sample."""
        start = int(self.key_ends[index - 1]) if index else 0
        return self.key_bytes[start : int(self.key_ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def places(self, index: int) -> list[Extent]:
        """Extents of image, text and metadata of a sample, in bytes."""
        return [(block * BLOCK_BYTES, size) for block, size in self.extents[index].tolist()]


@dataclass
class _Members:
    """Where the parts of one sample are; None where a part is missing or empty."""

    image: Extent | None = None
    text: Extent | None = None
    metadata: Extent | None = None
    dotted: list[str] = field(default_factory=list)
    """Names of images with more dots than that of the suffix: further images of the sample, by webdataset's rule."""


class Shard:
    """The usable samples of one tar file, in the order of the file."""

    def __init__(self, file: ShardFile, table: SampleTable, num_bytes: int, digest: str) -> None:
        """Describe a shard; :func:`index_shard` and :func:`~mixreorg.data.shard_index.read_index` make these.

        Args:
            file: the tar file.
            table: its usable samples.
            num_bytes: size of the file when it was indexed.
            digest: :func:`file_digest` of it then.
        """
        self.name = file.name
        self.table = table
        self.num_bytes = num_bytes
        self.digest = digest
        self._file = file

    def __len__(self) -> int:
        """Number of usable samples."""
        return len(self.table)

    def key(self, index: int) -> str:
        """Key of a sample: its members' name up to the first dot."""
        return self.table.key(index)

    def read(self, index: int) -> tuple[bytes, str]:
        """Bytes of the image file, and the caption.

        Raises:
            UnusableSampleError: no caption, or one that cannot be read.
            MixreorgError: the shard itself cannot be read.
        """
        image, text, metadata = self._read_extents(self.table.places(index))
        return image, _caption(text, metadata)

    def caption(self, index: int) -> str:
        """The caption alone; raises as :meth:`read` does."""
        text, metadata = self._read_extents(self.table.places(index)[1:])
        return _caption(text, metadata)

    def image_head(self, index: int, limit: int) -> bytes:
        """At most the first ``limit`` bytes of the image file; raises as :meth:`read` does."""
        return self._read_extents(self.table.places(index)[:1], limit)[0]

    def fits(self) -> bool:
        """Whether every member still lies where the index says, by the headers alone.

        Raises:
            MixreorgError: the shard cannot be read.
        """
        try:
            with self._file.open() as file:
                extents = (extent for index in range(len(self)) for extent in self.table.places(index))
                return all(_is_header(_seek_header(file, offset), size) for offset, size in extents if size)
        except OSError as error:
            raise MixreorgError(f"cannot read the shard {self.name}: {error.strerror or error}") from error

    def fingerprint(self) -> bytes:
        """Identifies name and content, wherever the file lies: its digest, and keys and places of all samples."""
        table = self.table
        parts = (table.key_bytes.tobytes(), table.key_ends.tobytes(), table.extents.tobytes())
        return content_hash(Path(self.name).name, self.digest, *parts)

    def _read_extents(self, extents: list[Extent], limit: int | None = None) -> list[bytes]:
        try:
            # Opened for each sample: a descriptor kept open would have to survive forks, threads and a
            # thousand shards, to save a hundredth of the time that decoding takes.
            with self._file.open() as file:
                contents = [self._read_member(file, extent, limit) if extent[1] else b"" for extent in extents]
        except OSError as error:
            raise MixreorgError(
                f"cannot read the shard {self.name}: {error.strerror or error}; it must stay in place while it is used"
            ) from error
        return contents

    def _read_member(self, file: BinaryIO, extent: Extent, limit: int | None) -> bytes:
        offset, size = extent
        wanted = size if limit is None else min(size, limit)
        header, content = _seek_header(file, offset), file.read(wanted)
        if len(content) < wanted:
            raise MixreorgError(f"the shard {self.name} became shorter while it was used; restore it and resume")
        # The digest looks at a few pieces, between which captions that were mended in their place go by it.
        if not _is_header(header, size):
            raise MixreorgError(f"the shard {self.name} changed after it was indexed; {self._file.remedy}")
        return content


def index_shard(path: Path, problems: Problems) -> Shard:
    """Index a shard in one pass over its headers.

    Samples without image or caption are left out and counted in ``problems``. So is what follows a damaged or
    missing part of the file: whole samples before it are kept.

    Args:
        path: an uncompressed tar file.
        problems: receives what was left out.

    Raises:
        MixreorgError: the file cannot be opened, does not begin as a tar file or is larger than 2 TiB.
    """
    shard, found = scan_shard(path)
    problems.extend(found)
    return shard


def scan_shard(path: Path) -> tuple[Shard, list[Problem]]:
    """Index a shard as :func:`index_shard` does, and return what was left out."""
    return scan_file(LocalFile(path))


def scan_file(file: ShardFile) -> tuple[Shard, list[Problem]]:
    """Index a shard wherever it lies; otherwise as :func:`scan_shard`."""
    samples: dict[str, _Members] = {}
    found: list[Problem] = []
    try:
        with file.open() as stream:
            size = stream.seek(0, os.SEEK_END)
            if size > _UINT32_END * BLOCK_BYTES:
                raise MixreorgError(f"the shard {file.name} is larger than 2 TiB; split it")
            digest = file_digest(stream, size)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                _collect_members(archive, file.name, size, samples, found)
                _check_end(stream, file.name, archive.offset, size, found)
    except tarfile.TarError as error:
        raise MixreorgError(
            f"{file.name} is not an uncompressed tar file ({error}); make it again or leave it out"
        ) from error
    except OSError as error:
        raise MixreorgError(f"cannot read the shard {file.name}: {error.strerror or error}") from error
    keys, rows = [], []
    for key, members in samples.items():
        if members.image is None:
            found.extend(Problem("dots in name", file.name, name) for name in members.dotted)
            if not members.dotted:
                found.append(Problem("no image", file.name, key))
        elif members.text is None and members.metadata is None:
            found.append(Problem("no caption", file.name, key))
        else:
            keys.append(key)
            rows.append([members.image, members.text or (0, 0), members.metadata or (0, 0)])
    return Shard(file, SampleTable.pack(keys, rows), size, digest), found


def file_digest(file: BinaryIO, size: int) -> str:
    """Identifies a file cheaply: a hash of its size and of 64 KiB in 16 pieces spread over it.

    Raises:
        OSError: the file cannot be read.
    """
    pieces = []
    for offset in np.linspace(0, max(size - _DIGEST_PIECE_BYTES, 0), _DIGEST_PIECES, dtype=np.int64).tolist():
        file.seek(offset)
        pieces.append(file.read(_DIGEST_PIECE_BYTES))
    return content_hash(str(size), *pieces).hex()


def content_hash(*parts: str | bytes) -> bytes:
    """16 bytes that identify texts and contents in their order."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = _bytes(part) if isinstance(part, str) else part
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state.digest()


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # a name that is not UTF-8
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # half an emoji, as JSON may hold


def _collect_members(
    archive: tarfile.TarFile, shard: str, size: int, samples: dict[str, _Members], found: list[Problem]
) -> None:
    extents: dict[str, Extent] = {}
    try:
        for member in archive:
            extent = _extent(member, extents)
            name = _MEMBER_NAME.fullmatch(member.name)
            if name is None or not (member.isreg() or member.islnk() or member.issym()):
                continue
            key, suffix = name[1], name[2].lower()
            kind = {"txt": "text", "json": "metadata"}.get(suffix, "image" if suffix in IMAGE_SUFFIXES else "")
            if not kind and suffix.rpartition(".")[2] in IMAGE_SUFFIXES:
                samples.setdefault(key, _Members()).dotted.append(member.name)
            # The last member of a truncated shard has a header but not all of its bytes.
            if not kind or (extent and sum(extent) > size):
                continue
            members = samples.setdefault(key, _Members())
            if getattr(members, kind) is not None:
                found.append(Problem("duplicate member", shard, member.name))
            if extent and extent[1] >= _UINT32_END:
                found.append(Problem("image too large" if kind == "image" else "damaged caption", shard, key))
            elif extent and extent[1]:
                setattr(members, kind, extent)
    except (tarfile.TarError, ValueError) as error:
        found.append(Problem("damaged shard", shard, f"at byte {archive.offset:,} of {size:,}: {error}"))


def _extent(member: tarfile.TarInfo, extents: dict[str, Extent]) -> Extent | None:
    """Where a member's data lie, of a hard link those of an earlier member, by the extents so far, which it joins.

    None for a sparse member, whose bytes do not lie in one piece, and for other links, which have no bytes here.
    """
    if member.islnk():
        extent = extents.get(member.linkname)
    else:
        extent = (member.offset_data, member.size) if member.isreg() and not member.issparse() else None
    if extent is not None:
        extents[member.name] = extent
    return extent


def _check_end(stream: BinaryIO, shard: str, offset: int, size: int, found: list[Problem]) -> None:
    """Report a shard whose headers end before the file does; ``tarfile`` takes any end for a normal one."""
    stream.seek(offset)
    tail = stream.read(_TAIL_BYTES)
    if len(tail) < BLOCK_BYTES:
        found.append(Problem("truncated shard", shard, f"no end mark after byte {size:,}"))
    elif any(tail):
        found.append(Problem("damaged shard", shard, f"unreadable after byte {offset:,} of {size:,}"))


def _seek_header(file: BinaryIO, offset: int) -> bytes:
    """The header of the member whose data begin at ``offset``, where the file then stands."""
    file.seek(offset - BLOCK_BYTES)
    return file.read(BLOCK_BYTES)


def _is_header(block: bytes, size: int) -> bool:
    """Whether a block is the header of a member of this size."""
    # Nearly all headers are of this kind; tarfile, which knows all kinds, takes a hundred times as long.
    if block[257:262] == b"ustar" and block[124:135] == b"%011o" % size:
        return True
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size == size
    except tarfile.TarError:
        return False


def _caption(text: bytes, metadata: bytes) -> str:
    try:
        caption: object = text.decode("utf-8-sig").strip()
        if not caption and metadata:
            values = json.loads(metadata)
            caption = values.get("caption") if isinstance(values, dict) else None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON, or JSON of too many brackets
        raise UnusableSampleError("damaged caption") from error
    if not (isinstance(caption, str) and caption.strip()):
        raise UnusableSampleError("no caption")
    return caption.strip()

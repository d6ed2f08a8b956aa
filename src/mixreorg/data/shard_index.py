"""Indexes of shards kept on disk: what one pass over a tar's headers finds, beside the tar.

``SHARD.tar.index`` is a safetensors file: plain arrays that load in a millisecond and never run code, a readable
JSON header, and a library that the package needs anyway. It records the shard's size and digest, so that an
index of another or a changed file is noticed and never used.
"""

import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from PIL import Image

from mixreorg.data.problems import Problem, Problems
from mixreorg.data.shards import (
    BLOCK_BYTES,
    IMAGE_FORMATS,
    LocalFile,
    SampleTable,
    Shard,
    ShardFile,
    content_hash,
    file_digest,
    scan_shard,
)
from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically

INDEX_SUFFIX = ".index"
_FORMAT = "mixreorg shard index 2"
# Large enough for nearly every header; a photo with a long profile before its size is read whole.
_HEAD_BYTES = 1 << 15


@dataclass(frozen=True)
class ImageHeaders:
    """What the headers of a shard's images say, without decoding."""

    sizes: npt.NDArray[np.uint32]
    """``[samples, 2]`` width and height in pixels as stored; 0 and 0 where the header cannot be read."""
    formats: npt.NDArray[np.uint8]
    """``[samples]`` 1 + place in :data:`~mixreorg.data.shards.IMAGE_FORMATS`; 0 where the header cannot be read."""

    def format(self, index: int) -> str | None:
        """``JPEG``, ``PNG``, ...; None where the header cannot be read."""
        number = int(self.formats[index])
        return IMAGE_FORMATS[number - 1] if number else None


def index_path(shard: Path, index_dir: Path | None = None) -> Path:
    """Where the index of a shard is kept.

    Args:
        shard: the tar file.
        index_dir: a folder for the indexes of shards whose own folder is read-only; the name in it holds a hash of
            the shard's folder, because many sets have a ``00000.tar``. None: beside the shard.
    """
    if index_dir is None:
        return shard.with_name(shard.name + INDEX_SUFFIX)
    folder = content_hash(str(shard.absolute().parent)).hex()[:12]
    return index_dir / f"{shard.name}-{folder}{INDEX_SUFFIX}"


def write_index(shard: Path, problems: Problems, index_dir: Path | None = None) -> Shard:
    """Index a shard, image headers included, and keep the index on disk, replacing an older one.

    Args:
        shard: an uncompressed tar file.
        problems: receives what was left out, as in :func:`~mixreorg.data.shards.index_shard`.
        index_dir: as for :func:`index_path`.

    Raises:
        MixreorgError: the shard cannot be read, or the index cannot be written.
    """
    indexed, found = scan_shard(shard)
    save_index(indexed, found, index_path(shard, index_dir))
    problems.extend(found)
    return indexed


def save_index(shard: Shard, found: list[Problem], path: Path) -> None:
    """Write the index of a scanned shard; reads the image headers.

    Raises:
        MixreorgError: the shard cannot be read, or the index cannot be written.
    """
    headers = read_headers(shard)
    metadata = {
        "format": _FORMAT,
        "num_bytes": str(shard.num_bytes),
        "digest": shard.digest,
        "problems": json.dumps([(problem.kind, problem.key) for problem in found]),
    }
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[Any]]] = {
        "key_bytes": shard.table.key_bytes,
        "key_ends": shard.table.key_ends,
        "extents": shard.table.extents,
        "image_sizes": headers.sizes,
        "image_formats": headers.formats,
    }
    content = safetensors.numpy.save(arrays, metadata)
    try:
        write_atomically(path, lambda temporary: _write(temporary, content))
    except MixreorgError as error:
        raise MixreorgError(f"{error}; name a folder for the indexes that can be written") from error


def read_index(shard: Path, problems: Problems, index_dir: Path | None = None) -> Shard | None:
    """Read the index of a shard from ``index_dir`` or from beside the shard.

    Args:
        shard: an uncompressed tar file.
        problems: receives what was found wrong with the shard when the index was made; a ``stale index`` when the
            shard has another size or digest than then; a ``damaged index`` when it cannot be read.
        index_dir: as for :func:`index_path`.

    Returns:
        The indexed shard, or None without an index that holds.

    Raises:
        MixreorgError: the shard cannot be read.
    """
    indexed, found = find_index(shard, index_dir)
    problems.extend(found)
    return indexed


def find_index(shard: Path, index_dir: Path | None = None) -> tuple[Shard | None, list[Problem]]:
    """Read the index of a shard as :func:`read_index` does, and return the problems."""
    refused: list[Problem] = []
    for path in _candidates(shard, index_dir):
        try:
            with shard.open("rb", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                digest = file_digest(file, size)
        except OSError as error:
            raise MixreorgError(f"cannot read the shard {shard}: {error.strerror or error}") from error
        try:
            indexed, found = load_index(path, LocalFile(shard))
        except ValueError:
            refused.append(Problem("damaged index", str(shard), str(path)))
            continue
        if (indexed.num_bytes, indexed.digest) == (size, digest):
            return indexed, refused + found
        refused.append(Problem("stale index", str(shard), str(path)))
    return None, refused


def load_index(path: Path, file: ShardFile) -> tuple[Shard, list[Problem]]:
    """Read an index file, whatever its shard is now.

    Args:
        path: the index.
        file: the shard it belongs to.

    Returns:
        The shard as it was indexed, and what was found wrong with it then.

    Raises:
        ValueError: no index, or a damaged one.
    """
    try:
        with safetensors.safe_open(path, "numpy") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{path} is no {_FORMAT}")
            table = SampleTable(*(content.get_tensor(name) for name in ("key_bytes", "key_ends", "extents")))
            found = [Problem(str(kind), file.name, str(key)) for kind, key in json.loads(metadata["problems"])]
            shard = Shard(file, table, int(metadata["num_bytes"]), metadata["digest"])
    except (OSError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from error
    _check(shard, path)
    return shard, found


def load_headers(shard: Path, index_dir: Path | None = None) -> ImageHeaders | None:
    """Image headers from the index that :func:`read_index` accepted; None when there is none."""
    for path in _candidates(shard, index_dir):
        try:
            with safetensors.safe_open(path, "numpy") as content:
                return ImageHeaders(content.get_tensor("image_sizes"), content.get_tensor("image_formats"))
        except (OSError, safetensors.SafetensorError):
            continue
    return None


def read_headers(shard: Shard) -> ImageHeaders:
    """Read the header of every image of a shard, without decoding.

    Raises:
        MixreorgError: the shard cannot be read.
    """
    sizes = np.zeros((len(shard), 2), dtype=np.uint32)
    formats = np.zeros(len(shard), dtype=np.uint8)
    for index in range(len(shard)):
        header = _header(shard.image_head(index, _HEAD_BYTES)) or _header(shard.image_head(index, shard.num_bytes))
        if header:
            sizes[index], formats[index] = header
    return ImageHeaders(sizes, formats)


def _header(data: bytes) -> tuple[tuple[int, int], int] | None:
    """Size and format number of an image file; None where they cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                return image.size, 1 + IMAGE_FORMATS.index(str(image.format))
    except Exception:  # damaged data raises whatever the reader of its format happens to meet
        return None


def _candidates(shard: Path, index_dir: Path | None) -> list[Path]:
    paths = [index_path(shard, index_dir), index_path(shard)] if index_dir else [index_path(shard)]
    return [path for path in paths if path.is_file()]


def _check(shard: Shard, path: Path) -> None:
    """Refuse arrays that do not fit each other or the shard: they would read at random places."""
    table = shard.table
    samples = len(table.key_ends)
    kinds = [array.dtype.name for array in (table.key_bytes, table.key_ends, table.extents)]
    shapes = (table.key_bytes.ndim, table.key_ends.ndim, table.extents.shape)
    if kinds != ["uint8", "uint32", "uint32"] or shapes != (1, 1, (samples, 3, 2)):
        raise ValueError(f"{path}: arrays of another kind")
    ends = table.extents[..., 0].astype(np.int64) * BLOCK_BYTES + table.extents[..., 1]
    key_ends = np.concatenate([[0], table.key_ends.astype(np.int64)])
    if (np.diff(key_ends) < 0).any() or key_ends[-1] != len(table.key_bytes) or ends.max(initial=0) > shard.num_bytes:
        raise ValueError(f"{path}: places outside the shard")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)

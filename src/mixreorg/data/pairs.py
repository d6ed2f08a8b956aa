"""Caption pairs from shards and folders, as one indexed list that can be read in any order.

Reading by index makes the order of training, and the place where it stopped, pure functions of
(seed, epoch, position): nothing depends on how many processes read.
"""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from PIL import Image

from mixreorg.data.decode import decode_image
from mixreorg.data.order import VisitOrder
from mixreorg.data.parts import open_parts
from mixreorg.data.problems import Problem, Problems, UnusableSampleError
from mixreorg.data.remote import printable
from mixreorg.data.shard_cache import ShardCache, default_cache_dir
from mixreorg.data.shards import content_hash
from mixreorg.data.specs import expand
from mixreorg.errors import MixreorgError

_GIGABYTE = 10**9


ImageT = TypeVar("ImageT")


@dataclass(frozen=True)
class DecodedPair(Generic[ImageT]):
    """An image with its caption."""

    key: str
    """Name of the sample in its shard."""
    shard: str
    """Path of the shard or captions file."""
    image: ImageT
    """As the decoder that was given returned it."""
    caption: str
    """As it was written, stripped."""


Pair = DecodedPair[Image.Image]
"""A pair whose image is a picture: RGB, the right way up."""


class Part(Protocol):
    """One shard or captions file."""

    name: str

    def __len__(self) -> int:
        """Number of usable samples."""

    def key(self, index: int) -> str:
        """Name of a sample."""

    def read(self, index: int) -> tuple[bytes, str]:
        """Image file and caption; raises ``UnusableSampleError``."""

    def caption(self, index: int) -> str:
        """Caption alone; raises ``UnusableSampleError``."""

    def fingerprint(self) -> bytes:
        """Identifies name and content, wherever the file lies."""


class PairSource:
    """All pairs of several shards and captions files, one after the other."""

    def __init__(self, entries: Sequence[tuple[str, Sequence[Part]]], problems: Problems) -> None:
        """Join parts; :func:`open_pairs` makes these.

        Args:
            entries: what the user named, each with the shards and captions files it stands for.
            problems: what was found wrong while they were indexed; reading adds to it.
        """
        self.problems = problems
        """Problems met so far by this process."""
        self._entries = [(name, [len(part) for part in parts]) for name, parts in entries]
        self._parts = [part for _, parts in entries for part in parts]
        self._ends = list(itertools.accumulate(len(part) for part in self._parts))
        self._unusable: set[int] = set()

    def __len__(self) -> int:
        """Number of pairs whose image and caption are present; some may turn out damaged when read."""
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> Pair | None:
        """Read one pair.

        Args:
            index: ``0 <= index < len(self)``.

        Returns:
            The pair, or None when its image or caption is damaged or empty, which ``problems`` then counts.

        Raises:
            MixreorgError: the shard or image file can no longer be read.
        """
        result = self._read(index, decode_image)
        if isinstance(result, Problem):
            self.problems.add(result)
            return None
        return result

    def read_or_next(self, index: int, decode: Callable[[bytes], ImageT]) -> tuple[DecodedPair[ImageT], list[Problem]]:
        """Read a pair, or in place of an unusable one the next usable pair in index order.

        The rule keeps batches full and depends on nothing but the data: every process and every resumed run
        replaces the same sample by the same neighbour. After the last pair comes the first.

        Args:
            index: as for :meth:`read`.
            decode: makes an image of a file's bytes; raises ``UnusableSampleError`` for a damaged one, whatever part
                of the image it is after.

        Returns:
            The pair, and the problems met on the way for the first time. They are also counted in
            ``problems``, but a worker process has a copy of its own: hand them over with the batch.

        Raises:
            MixreorgError: no pair can be used, or a shard or image file can no longer be read.
        """
        met: list[Problem] = []
        for step in range(len(self)):
            place = (index + step) % len(self)
            if place in self._unusable:
                continue
            result = self._read(place, decode)
            if isinstance(result, DecodedPair):
                return result, met
            self._unusable.add(place)
            self.problems.add(result)
            met.append(result)
        raise MixreorgError(f"none of the {len(self):,} pairs can be used:\n{self.problems.summary()}")

    def captions(self) -> Iterator[str]:
        """Every readable caption in index order, without decoding images; unusable ones are counted."""
        for part in self._parts:
            for index in range(len(part)):
                try:
                    yield part.caption(index)
                except UnusableSampleError as error:
                    self.problems.add(Problem(str(error), part.name, part.key(index)))

    def order(self, seed: int, weights: Sequence[float] = (), shuffle_shards: int = 0) -> VisitOrder:
        """The order in which training visits the pairs.

        Args:
            seed: of the run.
            weights: positive share of each entry that was named to :func:`open_pairs`; empty to join the entries.
            shuffle_shards: shards that are shuffled together; 0 for all.

        Raises:
            MixreorgError: not one weight per entry, or an entry without pairs has one.
        """
        if weights and len(weights) != len(self._entries):
            raise MixreorgError(f"{len(weights)} weights for {len(self._entries)} data sources; give one for each")
        empty = [name for name, lengths in self._entries if not sum(lengths)]
        if weights and empty:
            raise MixreorgError(f"no caption pairs in {empty[0]}; leave it and its weight out")
        return VisitOrder(seed, [lengths for _, lengths in self._entries], weights, shuffle_shards)

    def fingerprint(self) -> str:
        """Identifies the data: names, sizes and indexes of the files in their order, wherever they lie.

        Of the images' bytes it looks at a few pieces of every shard only, so that it takes a moment.
        """
        counts = ",".join(str(len(lengths)) for _, lengths in self._entries)
        return content_hash(counts, *(part.fingerprint() for part in self._parts)).hex()

    def _read(self, index: int, decode: Callable[[bytes], ImageT]) -> DecodedPair[ImageT] | Problem:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        part = self._parts[number]
        local = index - (self._ends[number - 1] if number else 0)
        try:
            data, caption = part.read(local)
            return DecodedPair(part.key(local), part.name, decode(data), caption)
        except UnusableSampleError as error:
            return Problem(str(error), part.name, part.key(local))


def open_pairs(
    spec: str | Path | Sequence[str | Path],
    *,
    index_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    cache_gb: float = 50.0,
) -> PairSource:
    """Index caption pairs. A shard with an index on disk that holds is not read.

    Args:
        spec: one or several of: a shard or a pattern of shards with braces and globs
            (``cc12m/{00000..01242}.tar``, ``cc12m/*.tar``), as a path or as a URL that fsspec knows
            (``s3://bucket/cc12m/{00000..01242}.tar``); a folder of shards; a captions file (csv, tsv, jsonl); a
            folder with ``captions.csv``, ``captions.tsv`` or ``captions.jsonl``. Several are read one after the
            other.
        index_dir: where the indexes of shards in read-only folders are; None looks beside the shards alone.
        cache_dir: folder for copies of remote shards; None for :func:`~mixreorg.data.shard_cache.default_cache_dir`.
        cache_gb: size of that folder in GB.

    Returns:
        The source; what was left out of it is in ``source.problems``.

    Raises:
        MixreorgError: a shard or file that does not exist or cannot be read, or no usable pair at all.
    """
    specs = [str(item) for item in ([spec] if isinstance(spec, str | Path) else spec)]
    files = [expand(item) for item in specs]
    problems = Problems()
    cache = ShardCache(Path(cache_dir).expanduser() if cache_dir else default_cache_dir(), int(cache_gb * _GIGABYTE))
    index_folder = Path(index_dir).expanduser() if index_dir else None
    parts = iter(open_parts([file for group in files for file in group], problems, index_folder, cache))
    entries = [(name, list(itertools.islice(parts, len(group)))) for name, group in zip(specs, files, strict=True)]
    source = PairSource(entries, problems)
    if not len(source):
        found = problems.summary() or "no sample with an image and a caption was found"
        raise MixreorgError(f"no caption pairs in {', '.join(map(printable, specs)) or 'nothing'}:\n{found}")
    return source

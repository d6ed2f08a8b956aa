"""Caption pairs from shards and folders, as one indexed list that can be read in any order.

Reading by index makes the order of training, and the place where it stopped, pure functions of
(seed, epoch, position): nothing depends on how many processes read.
"""

import bisect
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.data.captions_file import CAPTIONS_SUFFIXES, index_captions_file
from mixreorg.data.problems import Problem, Problems, UnusableSampleError
from mixreorg.data.shards import index_shard
from mixreorg.errors import MixreorgError
from mixreorg.models.pixels import to_rgb, upright
from mixreorg.randomness import numpy_generator

# Pillow hands other formats to external programs or reads them in ways not meant for files from strangers.
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with its caption."""

    key: str
    """Name of the sample in its shard."""
    shard: str
    """Path of the shard or captions file."""
    image: Image.Image
    """RGB, the right way up."""
    caption: str
    """As it was written, stripped."""


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


class PairSource:
    """All pairs of several shards and captions files, one after the other."""

    def __init__(self, parts: Sequence[Part], problems: Problems) -> None:
        """Join parts; :func:`open_pairs` makes these.

        Args:
            parts: shards and captions files.
            problems: what was found wrong while they were indexed; reading adds to it.
        """
        self.problems = problems
        """Problems met so far by this process."""
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(len(part) for part in parts))
        self._unusable: set[int] = set()

    def __len__(self) -> int:
        """Number of pairs whose image and caption are present; some may turn out damaged when read."""
        return self._ends[-1] if self._ends else 0

    def read(self, index: int, min_side: int = 0) -> Pair | None:
        """Read one pair.

        Args:
            index: ``0 <= index < len(self)``.
            min_side: a JPEG may be decoded at a half, a quarter or an eighth of its size as long as its short
                side keeps this many pixels, which is several times faster; 0 for full size.

        Returns:
            The pair, or None when its image or caption is damaged or empty, which ``problems`` then counts.

        Raises:
            MixreorgError: the shard can no longer be read.
        """
        result = self._read(index, min_side)
        if isinstance(result, Problem):
            self.problems.add(result)
            return None
        return result

    def read_or_next(self, index: int, min_side: int = 0) -> tuple[Pair, list[Problem]]:
        """Read a pair, or in place of an unusable one the next usable pair in index order.

        The rule keeps batches full and depends on nothing but the data: every process and every resumed run
        replaces the same sample by the same neighbour. After the last pair comes the first.

        Args:
            index: as for :meth:`read`.
            min_side: as for :meth:`read`.

        Returns:
            The pair, and the problems met on the way for the first time. They are also counted in
            ``problems``, but a worker process has a copy of its own: hand them over with the batch.

        Raises:
            MixreorgError: no pair can be used, or a shard can no longer be read.
        """
        met: list[Problem] = []
        for step in range(len(self)):
            place = (index + step) % len(self)
            if place in self._unusable:
                continue
            result = self._read(place, min_side)
            if isinstance(result, Pair):
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

    def _read(self, index: int, min_side: int) -> Pair | Problem:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        part = self._parts[number]
        local = index - (self._ends[number - 1] if number else 0)
        try:
            data, caption = part.read(local)
            return Pair(part.key(local), part.name, decode_image(data, min_side), caption)
        except UnusableSampleError as error:
            return Problem(str(error), part.name, part.key(local))


def open_pairs(spec: str | Path | Sequence[str | Path]) -> PairSource:
    """Index caption pairs.

    Args:
        spec: one or several of: a shard or a pattern of shards with braces and globs
            (``cc12m/{00000..01242}.tar``, ``cc12m/*.tar``); a folder of shards; a captions file (csv, tsv,
            jsonl); a folder with ``captions.csv``, ``captions.tsv`` or ``captions.jsonl``. Several are read
            one after the other.

    Returns:
        The source; what was left out of it is in ``source.problems``.

    Raises:
        MixreorgError: a shard or file that does not exist or cannot be read, or no usable pair at all.
    """
    specs = [spec] if isinstance(spec, str | Path) else list(spec)
    files = [file for item in specs for file in _expand(str(item))]
    problems = Problems()
    parts: list[Part] = [
        index_captions_file(file, problems) if file.suffix in CAPTIONS_SUFFIXES else index_shard(file, problems)
        for file in files
    ]
    source = PairSource(parts, problems)
    if not len(source):
        found = problems.summary() or "no sample with an image and a caption was found"
        raise MixreorgError(f"no caption pairs in {', '.join(map(str, specs)) or 'nothing'}:\n{found}")
    return source


def epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """The order of one epoch: a permutation of ``range(length)`` fixed by seed and epoch."""
    return numpy_generator(seed, "order", epoch).permutation(length)


def decode_image(data: bytes, min_side: int = 0) -> Image.Image:
    """Decode an image file into RGB, upright by its EXIF orientation, transparency on white.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, GIF (first picture) or BMP.
        min_side: as for :meth:`PairSource.read`.

    Raises:
        UnusableSampleError: damaged, in another format, or so large that Pillow suspects an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_IMAGE_FORMATS) as image:
                if min_side:
                    image.draft(None, (min_side, min_side))
                image.load()
                return to_rgb(upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableSampleError("image too large") from error
    except Exception as error:  # damaged data raises whatever the decoder of its format happens to meet
        raise UnusableSampleError("damaged image") from error


def _expand(spec: str) -> list[Path]:
    """The shards and captions files that a spec names, all of which exist."""
    if "://" in spec or spec.startswith("pipe:"):
        raise MixreorgError(f"{spec}: only local paths can be read; download the shards first")
    try:
        path = Path(spec).expanduser()
    except RuntimeError as error:
        raise MixreorgError(f"{spec}: {error}; write the whole path") from error
    if path.is_dir():
        return _expand_folder(path)
    files = [path] if path.exists() else _expand_pattern(str(path))
    for file in files:
        if file.suffix not in (".tar", *CAPTIONS_SUFFIXES) or not file.is_file():
            raise MixreorgError(
                f"{file} is neither a shard (.tar) nor a captions file ({', '.join(CAPTIONS_SUFFIXES)})"
            )
    return files


def _expand_folder(folder: Path) -> list[Path]:
    captions = [file for suffix in CAPTIONS_SUFFIXES if (file := folder / f"captions{suffix}").is_file()]
    # By name, not by a pattern: the folder's own name may hold pattern characters.
    shards = sorted(file for file in folder.iterdir() if file.suffix == ".tar" and not file.name.startswith("."))
    if len(captions) > 1 or (captions and shards):
        raise MixreorgError(
            f"{folder} holds more than one source of captions; name the one to read: "
            + ", ".join(str(file) for file in [*captions, *shards[:1]])
        )
    if not (captions or shards):
        raise MixreorgError(f"{folder} holds neither shards (*.tar) nor captions.csv, captions.tsv or captions.jsonl")
    return captions or shards


def _expand_pattern(pattern: str) -> list[Path]:
    files: list[Path] = []
    missing: list[str] = []
    for name in _expand_braces(pattern):
        found = _glob(name)
        if not found:
            missing.append(name)
        files.extend(found)
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3:,} more" if len(missing) > 3 else "")
        raise MixreorgError(
            f"missing: {shown}; every shard that is named must exist, so correct the path or restore it"
        )
    return files


def _glob(pattern: str) -> list[Path]:
    """Files that match, sorted; without names that begin with a dot, which belong to systems and writers."""
    path = Path(pattern)
    try:
        matches = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise MixreorgError(f"{pattern} is no pattern of files ({error}); write ** only as a whole folder") from error
    return sorted(match for match in matches if not match.name.startswith("."))


def _expand_braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise MixreorgError(f"{pattern}: braces need the training extra: pip install 'mixreorg[train]'") from error
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise MixreorgError(f"{pattern}: braces do not match; write them as {{00000..00041}} or {{a,b}}") from error

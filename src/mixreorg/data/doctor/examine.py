"""Looking at pairs one by one: what is wrong with each, and the numbers that statistics are made of."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.data.decode import decode_image
from mixreorg.data.doctor.captions import suspicion, token_length, words
from mixreorg.data.doctor.statistics import digest
from mixreorg.data.pairs import Part
from mixreorg.data.problems import UnusableSampleError
from mixreorg.text.tokenizer import Tokenizer

SUSPECTS_KEPT = 12
"""Examples per kind of finding that a report shows."""

# A JPEG is decoded at a fraction of its size down to this side: all of its data is read, at a third of the cost.
_DECODED_SIDE = 64
_MARKS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP"}


class Suspect(NamedTuple):
    """One example of a finding."""

    kind: str
    shard: str
    """Path or URL of the part, as it is opened."""
    key: str = ""
    """Empty where the whole shard is meant."""
    detail: str = ""
    caption: str = ""
    sample: int | None = None
    """Place of the pair in its shard's index, where it has one."""


class Limits(NamedTuple):
    """What makes an image suspicious."""

    min_side: int
    """Shorter sides than this, in pixels, are tiny."""
    max_aspect: float
    """Larger ratios of the long to the short side are extreme."""


class Measures(NamedTuple):
    """Numbers of one usable pair."""

    image_digest: int
    caption_digest: int
    num_words: int
    num_tokens: int
    """Start and end included, before cutting."""
    short_side: int
    """Of the image as it is stored, in pixels."""
    aspect: int
    """Long side over short side, in hundredths."""
    kilobytes: int
    """Of the image file, in units of 1,024 bytes, rounded up."""


@dataclass
class Findings:
    """What was found in a run of pairs of one part."""

    counts: Counter[str] = field(default_factory=Counter)
    """Pairs by kind of finding; a pair may count in several."""
    suspects: list[Suspect] = field(default_factory=list)
    """The first few of each kind."""
    measures: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, len(Measures._fields)), np.uint64))
    """``[usable, 7]``, the columns of :class:`Measures`."""
    indices: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """``[usable]`` places in the part's index of the pairs that can be used."""
    formats: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, suspect: Suspect) -> None:
        """Count a finding, and keep it as an example if there are few of its kind."""
        if self.counts[suspect.kind] < SUSPECTS_KEPT:
            self.suspects.append(suspect)
        self.counts[suspect.kind] += 1


def examine(name: str, part: Part, indices: Sequence[int], tokenizer: Tokenizer, limits: Limits) -> Findings:
    """Read and decode pairs of a part.

    Args:
        name: path or URL of the part.
        part: a shard or captions file.
        indices: places of the pairs in the part.
        tokenizer: measures the captions.
        limits: of images.

    Raises:
        MixreorgError: the part itself cannot be read any more.
    """
    findings = Findings()
    rows: list[Measures] = []
    usable: list[int] = []
    for index in indices:
        data = b""
        try:
            data, caption = part.read(index)
            image_format, size = _decode(data)
        except UnusableSampleError as error:
            detail = _describe(data) if data else ""
            findings.add(Suspect(str(error), name, part.key(index), detail, sample=index))
            continue
        for kind, detail in doubts(size, caption, limits):
            findings.add(Suspect(kind, name, part.key(index), detail, caption, index))
        found_words = words(caption)
        findings.words.update(found_words)
        findings.formats[image_format] += 1
        rows.append(_measure(data, size, caption, len(found_words), tokenizer))
        usable.append(index)
    if rows:
        findings.measures = np.array(rows, dtype=np.uint64)
        findings.indices = np.array(usable, dtype=np.int32)
    return findings


def doubts(size: tuple[int, int], caption: str, limits: Limits) -> list[tuple[str, str]]:
    """Kinds of findings, each with a detail, that a pair is on its own: its size in pixels, and its caption."""
    found = []
    short, long = sorted(size)
    shape = f"{size[0]} × {size[1]} pixels"
    if short < limits.min_side:
        found.append(("tiny image", shape))
    if long > limits.max_aspect * short:
        found.append(("extreme aspect ratio", shape))
    kind = suspicion(caption)
    if kind:
        found.append((kind, ""))
    return found


def _decode(data: bytes) -> tuple[str, tuple[int, int]]:
    """Decode an image; returns its format, and its size in pixels as stored."""
    decode_image(data, _DECODED_SIDE)
    with Image.open(io.BytesIO(data)) as image:
        return image.format or "", image.size


def _describe(data: bytes) -> str:
    """What a file that is no usable image looks like."""
    begin = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    return f"{len(data):,} bytes that begin {f'as {begin} does' if begin else f'with {data[:16]!r}'}"


def _measure(data: bytes, size: tuple[int, int], caption: str, num_words: int, tokenizer: Tokenizer) -> Measures:
    short, long = sorted(size)
    return Measures(
        image_digest=digest(data),
        caption_digest=digest(caption.encode("utf-8", "surrogatepass")),
        num_words=num_words,
        num_tokens=token_length(tokenizer, caption),
        short_side=short,
        aspect=round(100 * long / short),
        kilobytes=-(-len(data) // 1024),
    )

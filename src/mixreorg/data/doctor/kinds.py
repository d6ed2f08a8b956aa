"""The catalogue of what a check can find: how serious it is, what training does with it, what to do about it."""

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from mixreorg.errors import MixreorgError

Severity = Literal["allowed", "warning", "serious"]
"""``serious``: pairs are gone. ``warning``: training skips or survives it. ``allowed``: the user expects it."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Their place is the exit code that they lead to."""

Subject = Literal["shard", "pair", "caption", "image"]
"""What one finding of a kind counts."""


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    name: str
    severity: Severity
    subject: Subject
    meaning: str
    """One sentence: what it is and what training does with it."""
    remedy: str
    """One sentence: what to do."""


def _shard(name: str, meaning: str, remedy: str, severity: Severity = "serious") -> Kind:
    return Kind(name, severity, "shard", meaning, remedy)


_READ_AGAIN = "Fetch or write the shard again."
_SKIPPED = "Training takes the next usable pair in its place."

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _shard("missing shard", "Named, counted or numbered, but not there.", "Restore it, or name the others only."),
        _shard(
            "unreadable shard", "Not an uncompressed tar, or not readable at all; training refuses it.", _READ_AGAIN
        ),
        _shard("truncated shard", "The file ends early; whole pairs before its end are used.", _READ_AGAIN),
        _shard("damaged shard", "Unreadable from some byte on; pairs before it are used.", _READ_AGAIN),
        _shard("short shard", "Holds fewer pairs than its statistics file counts.", _READ_AGAIN),
        _shard(
            "shard without statistics",
            "Its neighbours have a statistics file: writing it was perhaps interrupted.",
            "Compare its size with its neighbours', or download it again.",
            "warning",
        ),
        _shard(
            "damaged statistics",
            "The statistics file beside the shard cannot be read, so its pairs are not compared with it.",
            "Write it again, or delete it.",
            "warning",
        ),
        _shard(
            "stale index",
            "The shard changed after its index was written, so it was indexed anew.",
            "Nothing, if the change was meant.",
            "warning",
        ),
        _shard("damaged index", "The index could not be read, so the shard was indexed anew.", "Nothing.", "warning"),
        Kind("missing pairs", "serious", "pair", "Fewer usable pairs than expected.", "See the other findings."),
        Kind(
            "few missing pairs",
            "warning",
            "pair",
            "Fewer usable pairs than expected, within the tolerance.",
            "See the other findings.",
        ),
        Kind("no usable pair", "serious", "pair", "There is nothing to train on.", "See the other findings."),
        Kind(
            "no image", "warning", "pair", "A caption without an image; it is left out.", "Nothing, if there are few."
        ),
        Kind(
            "dots in name",
            "warning",
            "pair",
            "An image whose name has dots before its suffix, and names are cut at the first; it is left out.",
            "Rename image and caption: a.1.jpg to a_1.jpg.",
        ),
        Kind(
            "no caption", "warning", "pair", "An image without a caption; it is left out.", "Nothing, if there are few."
        ),
        Kind("damaged line", "warning", "pair", "A line of a captions file that cannot be read.", "Mend the line."),
        Kind(
            "duplicate member", "warning", "pair", "Two files of one name; the last one is used.", "Rename the pairs."
        ),
        Kind("damaged caption", "warning", "caption", f"Neither UTF-8 nor JSON. {_SKIPPED}", "Save it as UTF-8."),
        Kind("damaged image", "warning", "image", f"Cannot be decoded. {_SKIPPED}", "Download it again or delete it."),
        Kind("image too large", "warning", "image", f"So many pixels suggest an attack. {_SKIPPED}", "Scale it down."),
        Kind("tiny image", "warning", "image", "Training enlarges it to a blur.", "Leave out small images."),
        Kind("extreme aspect ratio", "warning", "image", "Crops of it show little of what it says.", "Leave it out."),
        Kind("duplicate pair", "warning", "pair", "Image and caption of an earlier pair again.", "Leave out repeats."),
        Kind(
            "duplicate image",
            "warning",
            "image",
            "The bytes of an earlier image again: expected where an image has several captions.",
            "Look at the most repeated: pictures that stand for missing ones should go.",
        ),
        Kind(
            "duplicate caption",
            "warning",
            "caption",
            "The text of an earlier caption again: both pairs of a batch match both captions.",
            "Look at the most frequent: texts that say nothing of their image should go.",
        ),
        Kind("caption is a file name", "warning", "caption", "Says nothing of the image.", "Leave it out."),
        Kind("caption is a URL", "warning", "caption", "Says nothing of the image.", "Leave it out."),
        Kind("caption without letters", "warning", "caption", "Numbers or signs alone.", "Leave it out."),
        Kind("placeholder caption", "warning", "caption", "A text that stands for a missing one.", "Leave it out."),
    )
}
"""Every kind by its name, the most serious first. Names are stable: reports and ``--allow`` use them."""


def allowed_kinds(names: Iterable[str]) -> frozenset[str]:
    """Kinds of findings by the names that a user gives them; ``tiny-image`` and ``tiny_image`` are ``tiny image``.

    Raises:
        MixreorgError: a name of no kind, with the nearest right one.
    """
    kinds = {name: re.sub("[-_]", " ", name) for name in names}
    for name, kind in kinds.items():
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(KINDS)}"
            raise MixreorgError(f"--allow {name!r} is no kind of finding; {hint}")
    return frozenset(kinds.values())


def severity(name: str, allowed: Collection[str]) -> Severity:
    """Severity of a kind, given the kinds that the user expects."""
    return "allowed" if name in allowed else KINDS[name].severity


def exit_code(severities: Iterable[Severity]) -> int:
    """2 when one is serious, 1 when one is a warning, else 0."""
    return max((SEVERITIES.index(item) for item in severities), default=0)

"""The object classes of the scenes: names people use, and the OpenMoji pictures that show them.

``classes.csv`` is curated by hand. Its order is from common, large and distinct shapes to rarer ones, so that the
first N classes are always the easiest N.
"""

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mixreorg.errors import MixreorgError


@dataclass(frozen=True)
class ObjectClass:
    """One class of objects."""

    name: str
    """Singular English name; unique, and never part of another class name as a whole word."""
    group: str
    """Broad kind: animal, food, vehicle, ..."""
    noun: str
    """``"count"``, ``"mass"`` (bread) or ``"plural"`` (glasses): decides the article in captions."""
    plural: str
    """The plural a caption uses for several of them."""
    train_pictures: tuple[str, ...]
    """OpenMoji hexcodes drawn in training scenes."""
    eval_pictures: tuple[str, ...]
    """OpenMoji hexcodes drawn in validation and test scenes; the training ones where there are no others."""


@cache
def object_classes() -> tuple[ObjectClass, ...]:
    """All classes, easiest first."""
    text = resources.files("mixreorg.data.scenes").joinpath("classes.csv").read_text(encoding="utf-8")
    return tuple(_read_row(row) for row in csv.DictReader(text.splitlines()))


def class_names(count: int | None = None) -> tuple[str, ...]:
    """Names of the first ``count`` classes (all without it).

    Raises:
        MixreorgError: ``count`` is not between 1 and the number of classes.
    """
    names = tuple(item.name for item in object_classes())
    if count is not None and not 1 <= count <= len(names):
        raise MixreorgError(f"there are {len(names)} scene classes; ask for 1 to {len(names)}, not {count}")
    return names[:count]


def select_classes(names: Iterable[str]) -> tuple[ObjectClass, ...]:
    """The classes with these names, in this order.

    Raises:
        MixreorgError: an unknown name (the message holds the nearest known one) or a repeated one.
    """
    known = {item.name: item for item in object_classes()}
    chosen = tuple(names)
    check_names(chosen, tuple(known), "scene class")
    return tuple(known[name] for name in chosen)


def check_names(names: Sequence[str], known: Sequence[str], kind: str) -> None:
    """Check that ``names`` are known and distinct.

    Raises:
        MixreorgError: the message says which name is wrong and which is nearest.
    """
    for index, name in enumerate(names):
        if name not in known:
            close = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5)
            # Of names about as near, the one of the same length: most slips swap letters.
            nearest = min(close, key=lambda candidate: abs(len(candidate) - len(name)), default=None)
            hint = f"did you mean {nearest!r}?" if nearest else f"known: {', '.join(known)}"
            raise MixreorgError(f"{name!r} is not a {kind}; {hint}")
        if name in names[:index]:
            raise MixreorgError(f"the {kind} {name!r} is listed twice; name each once")


def _read_row(row: dict[str, str]) -> ObjectClass:
    kind = row["noun"] if row["noun"] in ("mass", "plural") else "count"
    plural = row["name"] if kind != "count" else row["noun"] or _regular_plural(row["name"])
    train = tuple(row["train_pictures"].split())
    return ObjectClass(
        name=row["name"],
        group=row["group"],
        noun=kind,
        plural=plural,
        train_pictures=train,
        eval_pictures=tuple(row["eval_pictures"].split()) or train,
    )


def _regular_plural(name: str) -> str:
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"

"""Class lists of the benchmarks: labels in the official masks, names, and the phrases that evaluations prompt with."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from mixreorg.errors import MixreorgError
from mixreorg.text.class_list import ClassName

Naming = Literal["official", "groupvit", "sclip"]
"""Whose names a class is prompted with: the data set's own, or those of a published evaluation."""

NAMINGS: tuple[Naming, ...] = ("official", "groupvit", "sclip")


@dataclass(frozen=True)
class ClassRow:
    """One class of a benchmark."""

    label: int | None
    """Value in the official masks; None for a background that no single value stands for."""
    name: str
    """The data set's own name, which results show."""
    phrases: dict[Naming, tuple[str, ...]]
    """Prompt phrases by naming."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set in the order of their dense labels."""

    classes: tuple[ClassRow, ...]
    """``C`` classes, background never among them."""
    background: ClassRow | None
    """The background of data sets that have one."""

    def labels(self) -> tuple[int, ...]:
        """Values of the ``C`` classes in the official masks."""
        return tuple(row.label for row in self.classes if row.label is not None)

    def class_names(self, naming: Naming) -> tuple[ClassName, ...]:
        """The ``C`` classes with the phrases of a naming.

        Raises:
            MixreorgError: no such naming.
        """
        check_naming(naming)
        return tuple(ClassName(row.name, row.phrases[naming]) for row in self.classes)

    def background_phrases(self, naming: Naming) -> tuple[str, ...]:
        """Phrases that a naming compares with the photo to find background; none where a threshold finds it.

        Raises:
            MixreorgError: no such naming.
        """
        check_naming(naming)
        return self.background.phrases[naming] if self.background else ()


def check_naming(naming: str) -> None:
    """Check the name of a naming.

    Raises:
        MixreorgError: it is unknown.
    """
    if naming not in NAMINGS:
        raise MixreorgError(f"{naming!r} is not a naming of classes; known: {', '.join(NAMINGS)}")


@cache
def class_table(name: str) -> ClassTable:
    """Read one of the tables that come with the package, for example ``voc``."""
    folder = resources.files("mixreorg.eval.benchmarks").joinpath("classes")
    lines = folder.joinpath(f"{name}.csv").read_text(encoding="utf-8").splitlines()
    rows = tuple(_read_row(row) for row in csv.DictReader(line for line in lines if not line.startswith("#")))
    if rows[0].name == "background":
        return ClassTable(rows[1:], rows[0])
    return ClassTable(rows, None)


def _read_row(row: dict[str, str]) -> ClassRow:
    is_background = row["name"] == "background"
    own = () if is_background else (row["name"],)
    phrases: dict[Naming, tuple[str, ...]] = {"official": own}
    for naming in NAMINGS[1:]:
        phrases[naming] = tuple(row[naming].split("|")) if row[naming] else own
    return ClassRow(int(row["label"]) if row["label"] else None, row["name"], phrases)

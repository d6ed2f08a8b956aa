"""What came of every photo, as one JSON file and one table."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mixreorg.batch.inputs import SUMMARY, PhotoInput
from mixreorg.files import write_json, write_text

Status = Literal["segmented", "kept", "failed"]
"""``kept``: an earlier run did it."""
COLUMNS = ("photo", "status", "class", "area_share", "score", "results", "error")


@dataclass(frozen=True)
class PresentClass:
    """A class that some pixel of a photo has."""

    name: str
    """Of the class."""
    area_share: float
    """Share of the photo's pixels, 0 to 1."""
    score: float
    """Best score any pixel gives it, 0 to 1."""


@dataclass(frozen=True)
class PhotoRow:
    """What came of one photo."""

    photo: str
    """Its path, as given."""
    status: Status
    """What was done."""
    results: str
    """What its files begin with, below the folder of results."""
    classes: tuple[PresentClass, ...] = ()
    """Largest area first."""
    absent: tuple[str, ...] = ()
    """Classes that are not in the picture, by their presence scores."""
    error: str | None = None
    """Why there are no results."""

    @classmethod
    def segmented(cls, photo: PhotoInput, status: Status, content: Mapping[str, Any]) -> Self:
        """The row of a photo by the content of its JSON file.

        Raises:
            KeyError, TypeError: not such a content.
        """
        present = [
            PresentClass(entry["name"], float(entry["area_share"]), float(entry["score"]))
            for entry in content["classes"]
            if entry["area_share"] > 0
        ]
        present.sort(key=lambda item: -item.area_share)
        absent = tuple(entry["name"] for entry in content["classes"] if entry["absent"])
        return cls(printable(str(photo.path)), status, printable(photo.name.as_posix()), tuple(present), absent)

    @classmethod
    def failed(cls, photo: PhotoInput, error: Exception) -> Self:
        """The row of a photo without results."""
        names = printable(str(photo.path)), printable(photo.name.as_posix())
        return cls(names[0], "failed", names[1], error=printable(str(error)))

    def shares(self) -> str:
        """Classes with at least half a percent of the photo, and those that are not in it, for people."""
        large = [item for item in self.classes if item.area_share >= 0.005]
        shares = ", ".join(f"{item.name} {item.area_share:.0%}" for item in large)
        return f"{shares}; not in the picture: {', '.join(self.absent)}" if self.absent else shares


def write_summary(out: Path, made_by: Mapping[str, Any], rows: Sequence[PhotoRow], num_photos: int) -> None:
    """Write ``summary.json`` and ``summary.csv``: a line per photo and class, one for a photo that failed.

    Args:
        out: folder of the results.
        made_by: plain values that decided them.
        rows: what came of the photos.
        num_photos: how many there were to do; more than rows where the run was interrupted.

    Raises:
        MixreorgError: a folder that cannot be written.
    """
    counts = Counter(row.status for row in rows)
    content = {
        "photos_given": num_photos,
        "segmented": counts["segmented"],
        "kept": counts["kept"],
        "failed": counts["failed"],
        "interrupted": len(rows) < num_photos,
        "made_by": made_by,
        "photos": [_plain(row) for row in rows],
    }
    write_json(out / f"{SUMMARY}.json", content)
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows(line for row in rows for line in _lines(row))
    write_text(out / f"{SUMMARY}.csv", table.getvalue())


def printable(text: str) -> str:
    """Text with the bytes of a file name that is not UTF-8 replaced: neither JSON nor a terminal takes them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _plain(row: PhotoRow) -> dict[str, Any]:
    classes = [{"name": item.name, "area_share": item.area_share, "score": item.score} for item in row.classes]
    values: dict[str, Any] = {"photo": row.photo, "status": row.status}
    return values | (
        {"error": row.error} if row.error else {"results": row.results, "classes": classes, "absent": row.absent}
    )


def _lines(row: PhotoRow) -> list[tuple[object, ...]]:
    if row.error:
        return [(row.photo, row.status, "", "", "", "", row.error)]
    return [
        (row.photo, row.status, item.name, f"{item.area_share:.6f}", f"{item.score:.6f}", row.results, "")
        for item in row.classes
    ]

"""A folder of images with a captions file: csv, tsv or jsonl with one image and one caption per line."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mixreorg.data.problems import Problem, Problems, UnusableSampleError
from mixreorg.data.shards import content_hash
from mixreorg.errors import MixreorgError
from mixreorg.files import exists

CAPTIONS_SUFFIXES = (".csv", ".tsv", ".jsonl")
IMAGE_COLUMNS = ("image", "file_name", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
_MAX_FIELD = 1 << 24
"""Characters of a field of a table; more come from a quotation mark that is never closed."""


class CaptionsFile:
    """The usable pairs of a captions file, in the order of the file."""

    def __init__(self, path: Path, images: list[str], captions: list[str]) -> None:
        """Describe a captions file; :func:`index_captions_file` makes these.

        Args:
            path: the captions file.
            images: image paths as written in it, relative to its folder or absolute.
            captions: one per image path.
        """
        self.name = str(path)
        self._folder = path.parent
        self._images = images
        self._captions = captions

    def __len__(self) -> int:
        """Number of usable pairs."""
        return len(self._images)

    def key(self, index: int) -> str:
        """The image path as the captions file has it."""
        return self._images[index]

    def read(self, index: int) -> tuple[bytes, str]:
        """Bytes of the image file, and the caption.

        Raises:
            UnusableSampleError: the image file is gone.
            MixreorgError: the storage cannot be read. What passes must not leave out pairs for the rest of a run.
        """
        path = self._folder / self._images[index]
        try:
            return path.read_bytes(), self._captions[index]
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
            # Where a mount is lost, every file is missing.
            if is_gone and exists(Path(self.name)):
                raise UnusableSampleError("no image") from error
            missing = f", and its captions file {self.name} is missing too" if is_gone else ""
            raise MixreorgError(
                f"cannot read {path}: {error.strerror or error}{missing}; it must stay in place while it is used"
            ) from error

    def caption(self, index: int) -> str:
        """The caption alone."""
        return self._captions[index]

    def fingerprint(self) -> bytes:
        """Identifies name and pairs, wherever the file lies: image paths and captions, and not the images' bytes."""
        pairs = (text for pair in zip(self._images, self._captions, strict=True) for text in pair)
        return content_hash(Path(self.name).name, *pairs)


def index_captions_file(path: Path, problems: Problems) -> CaptionsFile:
    """Read a captions file and check that its images exist.

    The columns (or JSON fields) are ``image``, ``file_name`` or ``filepath``, and ``caption``, ``text`` or
    ``title``. Lines without either, or whose image file is missing, are left out and counted in ``problems``.

    Args:
        path: a csv or tsv file with a header line, or a jsonl file with one object per line; UTF-8.
        problems: receives what was left out.

    Raises:
        MixreorgError: the file cannot be read, is not UTF-8, breaks csv quoting or lacks the columns.
    """
    images: list[str] = []
    captions: list[str] = []
    name = str(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _json_rows(file) if path.suffix == ".jsonl" else _table_rows(file, path)
            for line, row in rows:
                image, caption = _first(row, IMAGE_COLUMNS), _first(row, CAPTION_COLUMNS)
                if row is None:
                    problems.add(Problem("damaged line", name, f"line {line}"))
                elif not (image and _is_file(path.parent / image)):
                    problems.add(Problem("no image", name, f"line {line} {image}".rstrip()))
                elif not caption:
                    problems.add(Problem("no caption", name, f"line {line} {image}"))
                else:
                    images.append(image)
                    captions.append(caption)
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MixreorgError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    return CaptionsFile(path, images, captions)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system takes, such as a caption in the column of names
        return False


def _json_rows(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    for number, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):  # not JSON, a number of too many digits, or too many brackets
            row = None
        yield number, row if isinstance(row, dict) else None


def _table_rows(file: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Rows of a csv or tsv file; None for a row with more fields than the header, whose caption is cut."""
    # Captions of more than the module's 131,072 characters are cut like any other; the limit is the whole process's.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    # Strict: a stray quotation mark would otherwise swallow the lines up to the next one.
    reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not (set(header) & set(IMAGE_COLUMNS) and set(header) & set(CAPTION_COLUMNS)):
            raise MixreorgError(
                f"{path} needs a header line with a column {' or '.join(IMAGE_COLUMNS)} and a column "
                f"{' or '.join(CAPTION_COLUMNS)}; it has: {', '.join(header) or 'nothing'}"
            )
        for fields in reader:
            if fields:
                row = dict(zip(header, fields, strict=False))
                yield reader.line_num, row if len(fields) <= len(header) else None
    except csv.Error as error:
        raise MixreorgError(f"{path}, line {reader.line_num}: {error}; mend the quoting") from error


def _first(row: dict[str, Any] | None, names: tuple[str, ...]) -> str:
    """The first of the columns that holds text, stripped; empty when none does."""
    values = (row.get(name) for name in names) if row else ()
    return next((value.strip() for value in values if isinstance(value, str) and value.strip()), "")

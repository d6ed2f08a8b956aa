"""The class-list syntax: names, synonyms and files of names, checked once and turned into one frozen type."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from mixreorg.errors import MixreorgError

MAX_NAME_LENGTH = 200
"""Longest class name or phrase in characters; the text encoder reads far fewer."""

_SYNTAX = "write classes as 'dog, cat=cat|kitten, grass'"


@dataclass(frozen=True)
class ClassName:
    """One class: the name shown to people and the phrases the model compares photos with.

    Both are normalised on construction: surrounding space stripped, inner whitespace collapsed, Unicode NFC.

    Attributes:
        name: label of the class in results.
        phrases: one or more synonyms that go into the prompt templates; without any, the name itself.

    Raises:
        MixreorgError: an empty, over-long or unprintable name or phrase, or a phrase given twice.
    """

    name: str
    phrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Normalise and check both fields."""
        name = _clean(self.name, "class name")
        phrases = tuple(_clean(phrase, f"phrase of class {name!r}") for phrase in self.phrases) or (name,)
        repeated = _first_repeated(phrases)
        if repeated is not None:
            raise MixreorgError(f"class {name!r} has the phrase {repeated!r} twice; name it once")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "phrases", phrases)


def parse_class_list(classes: str | Path | Sequence[str | ClassName]) -> tuple[ClassName, ...]:
    """Read a class list in any of its forms.

    - Text: ``"dog, cat=cat|kitten, grass"``: commas between classes, ``name=phrase|phrase`` for synonyms. The
      name itself is a phrase only where it is listed.
    - ``"@file.txt"`` or a ``Path``: one class per line in the same syntax, except that a comma is part of the
      name; blank lines and lines that start with ``#`` are skipped.
    - A sequence of :class:`ClassName` or of single entries (``"cat=cat|kitten"``; commas are part of the
      name).

    "background" is an ordinary name here: it is compared with the photo like any other. It has nothing to do
    with the background that a threshold adds to the results.

    Raises:
        MixreorgError: no classes, an empty, over-long or unprintable name, a name or phrase that two classes
            share (compared without case), a mapping or a set, or a file that cannot be read.
    """
    if isinstance(classes, Path):
        parsed = _read_file(classes)
    elif isinstance(classes, str):
        text = classes.strip()
        parsed = _read_file(Path(text[1:].strip())) if text.startswith("@") else _parse_text(text)
    elif isinstance(classes, Mapping | Set):
        # A set has another order in every process, and so other class indices; a mapping's phrases would be lost.
        raise MixreorgError(
            f"a class list cannot be a {type(classes).__name__}; give text or a list, for example ['dog', "
            "'cat=cat|kitten']"
        )
    else:
        parsed = _parse_entries((entry, f"entry {number}") for number, entry in enumerate(classes, start=1))
    if not parsed:
        raise MixreorgError(f"the class list is empty; {_SYNTAX}")
    _reject_shared(parsed)
    return parsed


def flatten_phrases(classes: Sequence[ClassName]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """List all phrases in class order, and for each the index of its class (``P`` of each)."""
    pairs = [(phrase, index) for index, item in enumerate(classes) for phrase in item.phrases]
    return tuple(phrase for phrase, _ in pairs), tuple(index for _, index in pairs)


def _parse_text(text: str) -> tuple[ClassName, ...]:
    if not text:
        return ()
    return _parse_entries((entry, f"entry {number}") for number, entry in enumerate(text.split(","), start=1))


def _read_file(path: Path) -> tuple[ClassName, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise MixreorgError(f"cannot read the class list {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MixreorgError(f"the class list {path} is not UTF-8 text; save it as UTF-8") from error
    except ValueError as error:  # a NUL in the path
        raise MixreorgError(f"cannot read the class list {str(path)!r}: {error}") from error
    entries = [(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    parsed = _parse_entries((line, where) for line, where in entries if not line.lstrip().startswith("#"))
    if not parsed:
        raise MixreorgError(f"the class list {path} names no class; write one per line")
    return parsed


def _parse_entries(entries: Iterable[tuple[str | ClassName, str]]) -> tuple[ClassName, ...]:
    return tuple(entry if isinstance(entry, ClassName) else _parse_entry(entry, where) for entry, where in entries)


def _parse_entry(text: str, where: str) -> ClassName:
    if not isinstance(text, str):
        raise MixreorgError(f"{where} of the class list is a {type(text).__name__}, not text; {_SYNTAX}")
    name, equals, synonyms = text.partition("=")
    if not name.strip():
        raise MixreorgError(f"{where} of the class list has no name ({_shorten(text)!r}); {_SYNTAX}")
    try:
        return ClassName(name, tuple(synonyms.split("|")) if equals else ())
    except MixreorgError as error:
        raise MixreorgError(f"{where} of the class list: {error}") from None


def _reject_shared(classes: Sequence[ClassName]) -> None:
    repeated = _first_repeated([item.name for item in classes])
    if repeated is not None:
        raise MixreorgError(f"the class {repeated!r} is listed twice; keep one (upper and lower case count as equal)")
    owner: dict[str, str] = {}
    for item in classes:
        for phrase in item.phrases:
            other = owner.setdefault(phrase.casefold(), item.name)
            if other != item.name:
                raise MixreorgError(
                    f"the phrase {phrase!r} belongs to both {other!r} and {item.name!r}; leave it with one class"
                )


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            return name
        seen.add(name.casefold())
    return None


def _clean(text: str, what: str) -> str:
    cleaned = unicodedata.normalize("NFC", " ".join(text.split()))
    if not cleaned:
        raise MixreorgError(f"a {what} is empty; {_SYNTAX}")
    if len(cleaned) > MAX_NAME_LENGTH:
        raise MixreorgError(
            f"the {what} {_shorten(cleaned)!r} has {len(cleaned)} characters; at most {MAX_NAME_LENGTH} are allowed"
        )
    # Cc: control characters. Cs: what is left of bytes that were not UTF-8, which no tokenizer can encode.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in cleaned):
        raise MixreorgError(f"the {what} {cleaned!r} holds a control character; remove it")
    return cleaned


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"

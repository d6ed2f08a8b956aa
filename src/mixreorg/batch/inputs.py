"""Which photos a command line means, and what their results are called."""

import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from mixreorg.errors import MixreorgError
from mixreorg.files import exists

PHOTO_SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings by which photos in folders and patterns are known, in any case. A photo given by name may have any other."""
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
SUMMARY = "summary"
"""Stem of the files about all photos; no photo's results are called so."""
RESULT_PICTURES = {"_labels.png": ".json", "_overlay.png": ".json", "_explain.png": "_explain.json"}
"""Ends of the names of pictures that are results, each with that of the file which then lies beside it."""
LABEL_FOLDER, LABELLED_VIDEO = "_labels", "_overlay.mp4"
"""The same of the folder of a video's label maps and of the video beside it."""
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class PhotoInput:
    """One photo and the name of its results."""

    path: Path
    """The photo."""
    name: PurePath
    """Below the folder of results, without ``_labels.png``, ``_overlay.png`` or ``.json``; unique, without case."""


def find_photos(arguments: Sequence[Path], out: Path, standard_input: BinaryIO) -> list[PhotoInput]:
    """Photos that arguments of a command stand for, each once, in the order given; folders and patterns sorted.

    - A folder: all photos in it and below, also in linked folders, except hidden ones, those in ``out`` and results of
      earlier calls. Their results keep the path from that folder.
    - A pattern such as ``trip/**/*.jpg``: results keep the path from its last folder without ``*``, ``?`` or ``[``.
    - ``-``: a list of paths from standard input, one per line, or ended by NUL as ``find -print0`` writes them.
      Results keep the path from the current folder, or the whole path of a photo that lies elsewhere.
    - Anything else is one photo, there or not: that is told when it is read. Its results lie directly in ``out``;
      where several photos have one name, theirs keep the path from the deepest folder that those share.

    Where two names are still the same (``x.jpg`` beside ``x.png``), the later ones get -2, -3, ...

    Args:
        arguments: as typed.
        out: folder of the results.
        standard_input: what ``-`` reads.

    Raises:
        MixreorgError: a folder or pattern without photos, ``out`` the folder of the photos itself, a video, or ``-``
            with nothing to read.
    """
    # Photos given by name get theirs when all are known.
    found: dict[Path, tuple[Path, PurePath | None]] = {}
    for argument in arguments:
        for path, name in _expand(argument, out, standard_input):
            # Through a linked folder, too, a photo is the same.
            found.setdefault(path.parent.resolve() / path.name, (path, name))
    given = _names_of_single([path for path, name in found.values() if name is None])
    return _unique([PhotoInput(path, name or given[path]) for path, name in found.values()])


def _expand(argument: Path, out: Path, standard_input: BinaryIO) -> Iterable[tuple[Path, PurePath | None]]:
    if str(argument) == STANDARD_INPUT:
        return [(path, _below_current_folder(path)) for path in _read_list(standard_input)]
    if exists(argument) and argument.is_dir():
        if _whole(argument) == _whole(out):
            raise MixreorgError(f"--out {out} is the folder of the photos; name another, for example {out / 'masks'}")
        return _require_some(argument, ((path, path.relative_to(argument)) for path in _walk(argument, out)))
    if glob.has_magic(str(argument)) and not exists(argument):
        matching = list(_match(argument))
        found = [(path, name) for path, name in matching if _whole(out) not in _whole(path).parents]
        if matching and not found:
            raise MixreorgError(f"--out {out} is the folder of what {argument} matches; name another for the results")
        return _require_some(argument, found)
    if argument.suffix.lower() in VIDEO_SUFFIXES:
        raise MixreorgError(f"{argument} is a video by its name; segment it with `mixreorg video {argument}`")
    return [(argument, None)]


def _require_some(argument: Path, found: Iterable[tuple[Path, PurePath]]) -> Sequence[tuple[Path, PurePath | None]]:
    photos = [(path, _without_suffix(name)) for path, name in sorted(found)]
    if not photos:
        what = f"no photo in {argument}" if exists(argument) else f"no photo matches {argument}"
        raise MixreorgError(f"{what}; photos there end in {', '.join(PHOTO_SUFFIXES)}; give others by name")
    return photos


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    """Photos in a folder and below, and folders that cannot be read, which is told when they are.

    Linked folders belong to it, as they do to a pattern; a folder that is met again, as in a circle, is passed over.
    """
    results = _whole(out)
    closed: list[Path] = []
    walked: set[Path] = set()
    # Links last: of a folder that is there twice, its own place names the results.
    waiting = deque([folder])
    while waiting:
        start = waiting.popleft()
        for parent, folders, files in os.walk(start, onerror=lambda error: closed.append(Path(error.filename))):
            here = Path(parent).resolve()
            if here in walked:
                folders.clear()
                continue
            walked.add(here)
            kept = sorted(name for name in folders if not name.startswith("."))
            links = [name for name in kept if Path(parent, name).is_symlink()]
            waiting.extend(path for path in (Path(parent, name) for name in links) if _whole(path) != results)
            folders[:] = [name for name in kept if name not in links and _whole(Path(parent, name)) != results]
            yield from (path for path in (Path(parent, name) for name in files) if _is_photo(path))
    yield from closed


def _match(pattern: Path) -> Iterator[tuple[Path, PurePath]]:
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    for text in glob.iglob(str(pattern), recursive=True):  # noqa: PTH207  # Path.glob refuses some patterns
        path = Path(text)
        if path.is_file() and _is_photo(path):
            yield path, path.relative_to(Path(*parts[:fixed]))


def _is_photo(path: Path) -> bool:
    """Whether a file is one by its name, and no result of an earlier call, into whatever folder."""
    if path.name.startswith(".") or not path.name.lower().endswith(PHOTO_SUFFIXES):
        return False
    beside = [_beside(path, end, other) for end, other in RESULT_PICTURES.items()]
    beside.append(_beside(path.parent, LABEL_FOLDER, LABELLED_VIDEO))
    return not any(item is not None and item.is_file() for item in beside)


def _beside(path: Path, end: str, other: str) -> Path | None:
    """The path with another end of its name; None where it has not this one."""
    return path.with_name(path.name.removesuffix(end) + other) if path.name.endswith(end) else None


def _read_list(stream: BinaryIO) -> list[Path]:
    """Paths of a list; their bytes need not be UTF-8."""
    if stream.isatty():
        raise MixreorgError(
            "- reads a list of photos from standard input; give it one, for example with find trip -name '*.jpg' |"
        )
    content = stream.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise MixreorgError("the list of photos on standard input is empty; write one path per line")
    return paths


def _below_current_folder(path: Path) -> PurePath:
    whole, here = _whole(path), Path.cwd()
    relative = whole.relative_to(here if here in whole.parents else whole.anchor)
    if not relative.name:
        raise MixreorgError(f"{path}, on standard input, is a folder; a list names photos")
    return _without_suffix(relative)


def _without_suffix(path: PurePath) -> PurePath:
    return path.with_name(path.stem) if path.stem.strip(".") else path


def _names_of_single(photos: Sequence[Path]) -> dict[Path, PurePath]:
    """Names of photos given one by one."""
    folders: dict[str, set[Path]] = {}
    for path in photos:
        folders.setdefault(path.stem, set()).add(_whole(path.parent))
    return {path: PurePath(_from_shared_folder(path, folders[path.stem])) / path.stem for path in photos}


def _from_shared_folder(path: Path, folders: set[Path]) -> str:
    """Path of a photo's folder from the deepest one that holds all ``folders``."""
    try:
        return os.path.relpath(path.parent, os.path.commonpath(folders))
    except ValueError:  # on Windows, folders of different drives share none
        return ""


def _unique(photos: Iterable[PhotoInput]) -> list[PhotoInput]:
    taken = {SUMMARY}
    unique = []
    for photo in photos:
        name, number = photo.name, 1
        # Without case: some file systems make no difference.
        while str(name).casefold() in taken:
            number += 1
            name = photo.name.with_name(f"{photo.name.name}-{number}")
        taken.add(str(name).casefold())
        unique.append(PhotoInput(photo.path, name))
    return unique


def _whole(path: Path) -> Path:
    """The absolute path without ``..``; links stay as they are."""
    return Path(os.path.normpath(path.absolute()))

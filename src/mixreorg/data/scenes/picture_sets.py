"""The pictures that scenes are drawn with: OpenMoji's, another emoji family, or own cut-outs.

A folder of pictures has one of three layouts:

- an Iconify package of emoji: ``icons.json``, ``chars.json`` (hexcode to icon) and ``info.json`` (name, licence);
- files named by hexcode: ``1f436.svg``, ``1F436.png``, ``emoji_u1f408_200d_2b1b.svg``;
- one sub-folder per class, named as the class, with PNG or SVG files: several pictures of each.

The first two show the hexcodes of ``classes.csv``; a class none of whose hexcodes is there has no picture.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mixreorg.data.scenes.classes import ObjectClass, class_names
from mixreorg.data.scenes.emoji import OPENMOJI_CREDIT, load_picture, openmoji_licence
from mixreorg.data.scenes.picture import Picture, read_png, read_svg
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json

OPENMOJI = "openmoji"
_KINDS = (".svg", ".png")
# Of a class's own pictures, sorted by name, one in this many is kept out of training.
_HOLD_BACK = 4
# A process keeps this many pictures: all of an emoji family, and less than half a gigabyte of cut-outs.
_NUM_CACHED = 1024


@dataclass(frozen=True)
class ClassPictures:
    """The pictures of one class; both are empty where the set has none of it."""

    train: tuple[str, ...]
    """Pictures drawn in training scenes."""
    eval: tuple[str, ...]
    """Pictures kept for validation and test scenes; the training ones where there are no others."""


@dataclass(frozen=True)
class PictureSet:
    """A set of pictures, as far as some classes need it."""

    name: str
    """What people call it."""
    credit: str
    """One line that names the makers and the licence."""
    licence: str
    """What ``LICENSE.txt`` says about the pictures."""
    pictures: Mapping[str, ClassPictures]
    """Names of the pictures of each class."""
    load: Callable[[str], Picture]
    """Read a picture by its name; raises ``MixreorgError`` naming a picture that cannot be read."""
    checksum: Callable[[], str | None]
    """SHA-256 of the names and contents of these pictures; None for OpenMoji, whose version says the same."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes without a picture, in the order of the classes."""
        return tuple(name for name, found in self.pictures.items() if not found.train)


@dataclass(frozen=True)
class _File:
    """Where a picture is: a file, or a drawing held by a package."""

    source: str
    is_svg: bool
    place: Path | bytes

    def read(self) -> bytes:
        if isinstance(self.place, bytes):
            return self.place
        try:
            return self.place.read_bytes()
        except OSError as error:
            raise MixreorgError(f"cannot read {self.place}: {error.strerror or error}") from error


def open_picture_set(pictures: str, credit: str, classes: Sequence[ObjectClass]) -> PictureSet:
    """Find the pictures of some classes.

    Args:
        pictures: ``"openmoji"`` or a folder in one of the layouts above.
        credit: the credit line of a folder; empty where its ``info.json`` holds it.
        classes: the classes to find pictures of.

    Raises:
        MixreorgError: no such folder, no credit, a broken package, or no picture of any class.
    """
    if pictures == OPENMOJI:
        if credit:
            raise MixreorgError("OpenMoji's credit is written without being asked for; leave pictures_credit empty")
        found = {item.name: ClassPictures(item.train_pictures, item.eval_pictures) for item in classes}
        return PictureSet("OpenMoji", OPENMOJI_CREDIT, openmoji_licence(), found, load_picture, lambda: None)
    folder = Path(pictures).expanduser()
    if not folder.is_dir():
        raise MixreorgError(f"pictures is {pictures!r}: neither 'openmoji' nor a folder; name a folder of pictures")
    name, credit = _name_and_credit(folder, credit)
    found, files = _find(folder, classes)
    if not files:
        raise MixreorgError(
            f"{folder} has no picture of any of the {len(classes)} classes; it must hold an Iconify package "
            "(icons.json, chars.json), files named by hexcode (1f436.svg) or a folder per class (dog/1.png)"
        )

    @lru_cache(_NUM_CACHED)
    def load(picture: str) -> Picture:
        file = files[picture]
        if file.is_svg:
            return read_svg(file.read().decode("utf-8", "replace"), file.source)
        return read_png(file.read(), file.source)

    return PictureSet(name, credit, _licence(folder, credit), found, load, lambda: _checksum(files))


def _find(folder: Path, classes: Sequence[ObjectClass]) -> tuple[dict[str, ClassPictures], dict[str, _File]]:
    """Pictures of each class, and where each of them is."""
    own = {child.name: child for child in folder.iterdir() if child.is_dir() and child.name in class_names()}
    if own and not (folder / "icons.json").is_file():
        files = {item.name: _picture_files(own[item.name], item.name) if item.name in own else {} for item in classes}
        found = {name: _hold_back(tuple(sorted(of_class))) for name, of_class in files.items()}
        return found, {picture: file for of_class in files.values() for picture, file in of_class.items()}
    known = _iconify_files(folder) if (folder / "icons.json").is_file() else _hexcode_files(folder)
    found = {}
    for item in classes:
        train, unseen = (
            tuple(code for code in codes if _canonical(code) in known)
            for codes in (item.train_pictures, item.eval_pictures)
        )
        found[item.name] = ClassPictures(train or unseen, unseen or train)
    shown = {code for pictures in found.values() for code in (*pictures.train, *pictures.eval)}
    return found, {code: known[_canonical(code)] for code in shown}


def _hold_back(pictures: tuple[str, ...]) -> ClassPictures:
    if len(pictures) < 2:
        return ClassPictures(pictures, pictures)
    unseen = pictures[_HOLD_BACK - 1 :: _HOLD_BACK] or pictures[-1:]
    return ClassPictures(tuple(picture for picture in pictures if picture not in set(unseen)), unseen)


def _canonical(hexcode: str) -> str:
    """``1f408-200d-2b1b`` for ``1F408-200D-2B1B``, ``emoji_u1f408_200d_2b1b`` and the like.

    The variation selector FE0F is left out: whether a file name holds it is each family's own habit.
    """
    parts = hexcode.lower().removeprefix("emoji_").removeprefix("u").replace("_", "-").split("-")
    return "-".join(part for part in parts if part != "fe0f")


def _picture_files(folder: Path, prefix: str) -> dict[str, _File]:
    """The PNG and SVG files of a folder, by ``prefix`` and file name."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _KINDS and not path.name.startswith(".")]
    return {f"{prefix}/{path.name}": _File(str(path), path.suffix.lower() == ".svg", path) for path in paths}


def _hexcode_files(folder: Path) -> dict[str, _File]:
    files = sorted(_picture_files(folder, "").items(), key=lambda item: (item[1].is_svg, item[0]))
    # A drawing is put in last, over a PNG of the same hexcode: it is sharp at any size.
    return {_canonical(Path(name).stem): file for name, file in files}


def _iconify_files(folder: Path) -> dict[str, _File]:
    path = folder / "icons.json"
    package, characters = read_json(path), read_json(folder / "chars.json")
    if not isinstance(package, dict) or not isinstance(package.get("icons"), dict) or not isinstance(characters, dict):
        raise MixreorgError(
            f"{folder} is not an Iconify package: icons.json needs 'icons', chars.json names by hexcode"
        )
    files = {}
    for hexcode, name in characters.items():
        icon = package["icons"].get(name)
        if isinstance(icon, dict) and isinstance(icon.get("body"), str):
            files[_canonical(hexcode)] = _File(f"{path} ({name})", True, _iconify_svg(package, icon).encode())
    return files


def _iconify_svg(package: dict[str, Any], icon: dict[str, Any]) -> str:
    # Iconify's rule: what an icon does not say, its package says; 16 by 16 from the corner where neither does.
    default = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(str(icon.get(key, package.get(key, value))) for key, value in default.items())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    )


def _name_and_credit(folder: Path, credit: str) -> tuple[str, str]:
    """Name of the set and its credit line, from ``info.json`` as Iconify writes it, or as given."""
    path = folder / "info.json"
    info = read_json(path) if path.is_file() else {}
    name = _entry(info, "name") or folder.resolve().name
    author, licence = (_entry(info, key, entry) for key, entry in (("author", "name"), ("license", "title")))
    if not credit and author and licence:
        credit = f"{name} by {author}, {licence}"
    if not credit:
        raise MixreorgError(
            f"{folder} does not say whose pictures it holds; add --set pictures_credit='NAME by MAKER, LICENCE'"
        )
    return name, credit


def _entry(info: Any, *keys: str) -> str:
    """The text at a path of keys of a JSON document; empty where there is none."""
    for key in keys:
        info = info.get(key) if isinstance(info, dict) else None
    return info if isinstance(info, str) else ""


def _licence(folder: Path, credit: str) -> str:
    lines = [
        "The objects in these images and on the contact sheet are pictures, turned, scaled and recoloured, of:",
        credit,
    ]
    if (folder / "info.json").is_file():
        info = read_json(folder / "info.json")
        lines += [url for url in (_entry(info, "author", "url"), _entry(info, "license", "url")) if url]
    lines += ["", "The images are adaptations of them: the licence of the pictures applies."]
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().startswith(("license", "licence", "copying")):
            text = path.read_text(encoding="utf-8", errors="replace").rstrip()
            lines += ["", f"The pictures came with this file, {path.name}:", "", text]
    return "\n".join(lines) + "\n"


def _checksum(files: Mapping[str, _File]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(files[name].read()).hexdigest()}\n".encode())
    return digest.hexdigest()

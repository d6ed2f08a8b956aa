"""Configuration of the scenes generator and its three named presets."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mixreorg.config import StrictConfig
from mixreorg.data.scenes.classes import class_names, select_classes
from mixreorg.data.scenes.stuff import select_stuff, stuff_names
from mixreorg.errors import MixreorgError

# Label maps of up to this many classes (background included) are 8-bit palette PNGs, as in VOC: 255 is void there.
MAX_PALETTE_CLASSES = 255


def most_held_out_pairs(num_classes: int) -> int:
    """Half of the class pairs: with more held out, scenes of several classes could hardly be drawn."""
    return num_classes * (num_classes - 1) // 4


class ScenesConfig(StrictConfig):
    """What the scenes look like. Lengths are fractions of the image side, angles are degrees."""

    classes: tuple[str, ...] = Field(min_length=2)
    """Names of the object classes; label 1 is the first."""
    stuff: tuple[str, ...] = Field(min_length=1)
    """Names of the background textures; every scene shows one of them."""
    label_stuff: bool = False
    """Label the texture as a class of its own (after the objects) rather than as background, label 0."""
    image_size: int = Field(default=64, ge=16, le=1024)
    """Side of the square images in pixels."""
    min_objects: int = Field(default=1, ge=1)
    """Fewest objects in a scene."""
    max_objects: int = Field(default=3, ge=1, le=12)
    """Most objects in a scene."""
    min_scale: float = Field(default=0.42, gt=0.0, le=1.0)
    """Smallest longer side of an object."""
    max_scale: float = Field(default=0.72, gt=0.0, le=1.0)
    """Largest longer side of an object."""
    max_rotation: float = Field(default=20.0, ge=0.0, le=180.0)
    """Objects turn by up to this angle to either side."""
    max_hue_shift: float = Field(default=20.0, ge=0.0, le=180.0)
    """Colours of objects and textures turn by up to this angle on the colour wheel."""
    max_brightness_shift: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Brightness of objects and textures is multiplied by up to 1 plus or minus this."""
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Chance that an object is mirrored left to right."""
    min_visible: float = Field(default=0.6, gt=0.0, le=1.0)
    """Fraction of an object's pixels that neither the frame nor nearer objects may hide."""
    repeat_probability: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that a further object is of a class already in the scene ("two dogs")."""
    background_named_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Chance that the caption names the texture."""
    object_omitted_probability: float = Field(default=0.1, ge=0.0, le=1.0)
    """Chance that the caption of a scene with several classes leaves one of them out."""
    held_out_pairs: int = Field(default=0, ge=0)
    """Number of class pairs that no scene shows together but those of the test_heldout split."""
    unseen_pictures: Literal["mixed", "only", "none"] = "mixed"
    """Pictures and textures that training scenes never show, where a class has several: validation and test
    scenes show them among the others, or them alone, or not at all."""
    pictures: str = "openmoji"
    """``openmoji``, or a folder of other pictures: an Iconify package of emoji, files named by hexcode, or one
    folder of PNG or SVG files per class. Classes without a picture there keep their label and are never drawn."""
    pictures_credit: str = ""
    """Credit line of such a folder (name, maker, licence); needed where the folder has no info.json with one."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality of the images, without chroma subsampling."""
    seed: int = Field(default=0, ge=0)
    """Every scene is a function of this, its split and its index."""

    @field_validator("classes", "stuff")
    @classmethod
    def _check_names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        try:
            if info.field_name == "classes":
                select_classes(names)
            else:
                select_stuff(names)
        except MixreorgError as error:
            raise ValueError(str(error)) from None
        return names

    @field_validator("held_out_pairs")
    @classmethod
    def _check_pairs(cls, count: int, info: ValidationInfo) -> int:
        most = most_held_out_pairs(len(info.data.get("classes", ())))
        if "classes" in info.data and count > most:
            raise ValueError(f"must be at most {most}, half of the pairs of the classes")
        if count and info.data.get("max_objects", 2) < 2:
            raise ValueError("pairs need scenes of two objects: set max_objects to 2 or more, or this to 0")
        return count

    # Not on the fields, whose checks pass over defaults.
    @model_validator(mode="after")
    def _check_ranges(self) -> "ScenesConfig":
        ranges = {"objects": (self.min_objects, self.max_objects), "scale": (self.min_scale, self.max_scale)}
        for name, (least, most) in ranges.items():
            if least > most:
                raise ValueError(f"max_{name} {most} must be at least min_{name}, {least}")
        return self

    @property
    def labelled_stuff(self) -> tuple[str, ...]:
        """The stuff that has labels of its own; elsewhere it is background."""
        return self.stuff if self.label_stuff else ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of every label of the masks, from 0, ``"background"``."""
        return ("background", *self.classes, *self.labelled_stuff)

    @property
    def num_bits(self) -> int:
        """Bits per pixel of the label maps: 8, or 16 where 255 labels and void do not fit."""
        return 8 if len(self.label_names) <= MAX_PALETTE_CLASSES else 16


def easy() -> ScenesConfig:
    """24 classes, 64 px, 1 or 2 large objects; textures are background, label 0, and no caption names them.

    Naming them gives the captions an easier topic than the objects, which are then learned more slowly.
    """
    return ScenesConfig(
        classes=class_names(24),
        stuff=stuff_names(8),
        max_objects=2,
        min_scale=0.45,
        max_scale=0.78,
        background_named_probability=0.0,
        held_out_pairs=12,
    )


def medium() -> ScenesConfig:
    """48 classes and 12 labelled textures, 96 px, 1 to 4 objects; most captions name the texture."""
    return easy().updated(
        classes=class_names(48),
        stuff=stuff_names(12),
        label_stuff=True,
        image_size=96,
        max_objects=4,
        min_scale=0.25,
        max_scale=0.6,
        repeat_probability=0.1,
        background_named_probability=0.85,
        held_out_pairs=48,
    )


def hard() -> ScenesConfig:
    """All classes and all textures, labelled, 224 px, 1 to 5 objects that turn, shrink and overlap more."""
    return medium().updated(
        classes=class_names(),
        stuff=stuff_names(),
        image_size=224,
        max_objects=5,
        min_scale=0.15,
        max_scale=0.55,
        max_rotation=40.0,
        max_hue_shift=30.0,
        max_brightness_shift=0.3,
        min_visible=0.45,
        held_out_pairs=500,
    )


_PRESETS = {"easy": easy, "medium": medium, "hard": hard}


def preset(name: str) -> ScenesConfig:
    """The preset of that name.

    Raises:
        MixreorgError: there is no such preset; the message lists them.
    """
    if name not in _PRESETS:
        close = difflib.get_close_matches(name, _PRESETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise MixreorgError(f"no scenes preset {name!r}{hint} (there are {', '.join(_PRESETS)})")
    return _PRESETS[name]()


def transfer(name: str, other_pictures: Mapping[str, Path] | None = None) -> dict[str, ScenesConfig]:
    """The worlds that test what a model trained on a preset's scenes carries over to, each changed in one way.

    Classes, labels, textures and held-out pairs are the preset's, so the results compare with those of its own test
    split. No such world needs training scenes. Use the seed of the training world: the held-out pairs depend on it.

    Args:
        name: the preset that the model was trained on.
        other_pictures: folders of other pictures by a name for each; one world is made of each.

    Returns:
        Configurations by name: ``"more objects"`` (every scene has more than any training scene, up to twice as
        many), ``"twice the resolution"``, and those of ``other_pictures``.

    Raises:
        MixreorgError: there is no such preset.
    """
    base = preset(name)
    most = base.max_objects
    worlds = {
        "more objects": base.updated(min_objects=most + 1, max_objects=2 * most),
        "twice the resolution": base.updated(image_size=2 * base.image_size),
    }
    return worlds | {key: base.updated(pictures=str(folder)) for key, folder in (other_pictures or {}).items()}

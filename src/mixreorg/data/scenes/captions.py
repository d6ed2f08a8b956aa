"""Captions of scenes: many templates that name the objects and, mostly, the stuff behind them."""

from collections.abc import Sequence

import numpy as np

from mixreorg.data.scenes.classes import ObjectClass

# {objects}: "a dog and two cats"; {place}: "on the grass"; {is}: agrees with the number of objects;
# {first}, {others}: the objects split in two. The plain photo form is the class prompt of zero-shot evaluation,
# so that its words are in every small vocabulary.
PHOTO_WITH_PLACE = "a photo of {objects} {place}."
PHOTO = "a photo of {objects}."

WITH_PLACE = (
    "{objects} {place}",
    "{objects} {place}.",
    "a picture of {objects} {place}",
    "an image of {objects} {place}.",
    "a drawing of {objects} {place}",
    "there {is} {objects} {place}.",
    "here {is} {objects} {place}",
    "{place} there {is} {objects}.",
    "{place}, {objects}",
    "i can see {objects} {place}.",
    "we found {objects} {place}",
    "{objects}, seen {place}",
    "look, {objects} {place}!",
    "a scene with {objects} {place}.",
    "a close-up of {objects} {place}",
    "a cartoon of {objects} {place}.",
    "a small picture showing {objects} {place}",
)
WITHOUT_PLACE = (
    "{objects}",
    "{objects}.",
    "a picture of {objects}",
    "an image of {objects}.",
    "a drawing of {objects}",
    "this is a photo of {objects}.",
    "there {is} {objects} in the picture.",
    "here {is} {objects}",
    "i can see {objects}.",
    "look, {objects}!",
    "a scene with {objects}.",
    "a close-up of {objects}",
    "a cartoon of {objects}.",
    "one picture of {objects}",
    "a sticker of {objects}",
)
SEVERAL_WITH_PLACE = (
    "{first} next to {others} {place}",
    "{first} with {others} {place}.",
    "a photo of {first} beside {others} {place}.",
    "{place}, {first} and also {others}",
    "{objects} together {place}",
)
SEVERAL_WITHOUT_PLACE = (
    "{first} next to {others}",
    "{first} with {others}.",
    "a photo of {first} beside {others}.",
    "{objects} together",
    "{first} near {others}",
)
_SPOKEN_AS_CONSONANT = ("uni", "uku", "eu", "one")
_PHOTO_PROBABILITY = 0.35
_SEVERAL_PROBABILITY = 0.3
_NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def write_caption(objects: Sequence[tuple[ObjectClass, int]], place: str | None, rng: np.random.Generator) -> str:
    """Write one caption.

    Args:
        objects: the classes to name, in reading order, and how many there are of each.
        place: how the stuff is named ("on the grass"); None leaves it out.
        rng: chooses the template.

    Returns:
        Lower-case English.
    """
    phrases = [noun_phrase(item, count) for item, count in objects]
    kind = rng.random()
    if kind < _PHOTO_PROBABILITY:
        template = PHOTO if place is None else PHOTO_WITH_PLACE
    elif kind < _PHOTO_PROBABILITY + _SEVERAL_PROBABILITY and len(phrases) > 1:
        template = _choose(SEVERAL_WITHOUT_PLACE if place is None else SEVERAL_WITH_PLACE, rng)
    else:
        template = _choose(WITHOUT_PLACE if place is None else WITH_PLACE, rng)
    return template.format_map(
        {
            "objects": join_phrases(phrases),
            "place": place,
            # "there is a dog and a cat": English agrees with the first of a list.
            "is": "are" if objects[0][1] > 1 or objects[0][0].noun == "plural" else "is",
            "first": phrases[0],
            "others": join_phrases(phrases[1:]),
        }
    )


def noun_phrase(item: ObjectClass, count: int) -> str:
    """``"a dog"``, ``"an apple"``, ``"two cats"``, ``"bread"``, ``"glasses"``."""
    if item.noun != "count":
        return item.name
    if count > 1:
        return f"{_NUMBERS[count]} {item.plural}"
    return f"{article(item.name)} {item.name}"


def article(name: str) -> str:
    """``"a"`` or ``"an"``, by sound: an apple, a unicorn, an hourglass."""
    if name.startswith(_SPOKEN_AS_CONSONANT):
        return "a"
    return "an" if name[0] in "aeiou" or name.startswith("hour") else "a"


def join_phrases(phrases: Sequence[str]) -> str:
    """``"a dog"``, ``"a dog and a cat"``, ``"a dog, a cat and an apple"``."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _choose(templates: Sequence[str], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]

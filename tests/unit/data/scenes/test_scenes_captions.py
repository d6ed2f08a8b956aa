"""Captions: grammar, templates, and what they say."""

import re

import numpy as np
import pytest

from mixreorg.data.scenes import captions
from mixreorg.data.scenes.captions import article, join_phrases, noun_phrase, write_caption
from mixreorg.data.scenes.classes import select_classes

DOG, APPLE, BREAD, GLASSES = select_classes(["dog", "apple", "bread", "glasses"])
TEMPLATES = (
    captions.PHOTO,
    captions.PHOTO_WITH_PLACE,
    *captions.WITH_PLACE,
    *captions.WITHOUT_PLACE,
    *captions.SEVERAL_WITH_PLACE,
    *captions.SEVERAL_WITHOUT_PLACE,
)


@pytest.mark.parametrize(
    ("name", "expected"), [("dog", "a"), ("apple", "an"), ("unicorn", "a"), ("umbrella", "an"), ("hourglass", "an")]
)
def test_article_follows_the_sound(name, expected):
    assert article(name) == expected


def test_noun_phrases():
    assert noun_phrase(DOG, 1) == "a dog"
    assert noun_phrase(DOG, 2) == "two dogs"
    assert noun_phrase(APPLE, 1) == "an apple"
    assert noun_phrase(BREAD, 1) == "bread"
    assert noun_phrase(GLASSES, 1) == "glasses"
    plurals = {item.name: item.plural for item in select_classes(["bus", "mouse", "fish", "butterfly", "leaf", "key"])}
    assert plurals == {
        "bus": "buses",
        "mouse": "mice",
        "fish": "fish",
        "butterfly": "butterflies",
        "leaf": "leaves",
        "key": "keys",
    }


def test_join():
    assert join_phrases(["a"]) == "a"
    assert join_phrases(["a", "b"]) == "a and b"
    assert join_phrases(["a", "b", "c"]) == "a, b and c"


def test_at_least_25_templates_all_distinct_and_complete():
    assert len(set(TEMPLATES)) == len(TEMPLATES) >= 25
    for template in TEMPLATES:
        assert "{objects}" in template or ("{first}" in template and "{others}" in template)
    assert all("{place}" in template for template in captions.WITH_PLACE + captions.SEVERAL_WITH_PLACE)
    assert not any("{place}" in template for template in captions.WITHOUT_PLACE + captions.SEVERAL_WITHOUT_PLACE)


def test_captions_name_every_object_and_the_place():
    rng = np.random.default_rng(0)
    for _ in range(400):
        text = write_caption([(DOG, 2), (APPLE, 1)], "on the grass", rng)
        assert "two dogs" in text
        assert "an apple" in text
        assert "on the grass" in text
        assert not re.search(r"[{}]|\bNone\b| {2}", text)
        assert "is two dogs" not in text


def test_single_objects_often_take_the_form_of_the_class_prompt():
    rng = np.random.default_rng(1)
    texts = [write_caption([(DOG, 1)], None, rng) for _ in range(400)]
    assert 0.25 < texts.count("a photo of a dog.") / len(texts) < 0.45
    assert len(set(texts)) >= 12

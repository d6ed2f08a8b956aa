"""Nouns are found by the longest phrase; prompts are a function of (seed, epoch, index) and caption."""

import re
from pathlib import Path

import pytest
import torch

from mixreorg.errors import MixreorgError
from mixreorg.text.noun_prompts import NounPrompter, NounPrompts
from mixreorg.text.nouns import NounList
from mixreorg.text.templates import TEMPLATES, TemplateSet, prompt_length
from mixreorg.text.tokenizer import Tokenizer

LINES = "dog\nhot dog\nhot dog stand\nberry\nbus\nglass\nglasses\nman=man|men\n# a comment\n\ntraffic light\nT-shirt\n"


def word_list(folder: Path, text: str = LINES) -> NounList:
    path = folder / "nouns.txt"
    path.write_text(text, encoding="utf-8")
    return NounList.from_file(path)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog eats a hot dog", ["dog", "hot dog"]),
        ("the hot dog stand, and a hot, hot dog", ["hot dog stand", "hot dog"]),
        ("a hot day for a stand", []),
        ("two Dogs, three buses and some berries", ["dog", "bus", "berry"]),
        ("glasses of glass", ["glasses", "glass"]),
        ("hot dog stands at the traffic lights", ["hot dog stand", "traffic light"]),
        ("men, a man, and the men again", ["men"]),
        ("a dog's dog-friendly t-shirt &amp; bus!", ["dog", "t-shirt", "bus"]),
        ("dogma, undog, hotdog", []),
        ("dogs hot", ["dog"]),
        ("", []),
    ],
)
def test_the_longest_phrases_are_found_once_in_reading_order(tmp_path: Path, caption: str, expected: list[str]) -> None:
    assert [noun.phrase for noun in word_list(tmp_path).find(caption)] == expected


def test_synonyms_are_one_word(tmp_path: Path) -> None:
    nouns = word_list(tmp_path, "cat=cat|kitten\ndog")
    assert [noun.word for noun in nouns.find("a kitten")] == [noun.word for noun in nouns.find("cats")] == [0]
    assert len(nouns.find("a cat and a kitten")) == 1
    assert len(nouns) == 2


def test_a_folder_in_voc_layout_is_a_list_without_its_background(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("background\ndog\ncat\n")
    nouns = NounList.from_file(tmp_path)
    assert len(nouns) == 2
    assert [noun.phrase for noun in nouns.find("a cat in the background")] == ["cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", r"data\.nouns: .*nouns\.txt names no class"),
        ("background\n", r"data\.nouns: .*nouns\.txt holds no word; write one noun per line"),
        ("dog\nDog\n", r"data\.nouns: .*'Dog' is listed twice"),
        ("...\n", "holds no word"),
    ],
)
def test_a_list_without_nouns_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        word_list(tmp_path, text)


def test_vowel_signs_belong_to_their_letters(tmp_path: Path) -> None:
    """Garland, sugar, house and a Tamil stone, in captions of a fair, a mile, gram and a porter."""
    nouns = word_list(tmp_path, "माला\nचीनी\nघर\nகல்\ncafé\n")
    for caption in ("गाँव का मेला", "मेले में लोग", "मील का पत्थर", "चना", "कुली", "கலை"):
        assert nouns.find(caption) == []
    for caption, phrase in (
        ("एक माला और फूल", "माला"),
        ("घर में कुत्ता", "घर"),
        ("ஒரு கல்", "கல்"),
        ("cafe\u0301s ❤\ufe0f", "café"),
    ):
        assert [noun.phrase for noun in nouns.find(caption)] == [phrase]
    assert [noun.phrase for noun in nouns.find("un café ❤\ufe0fघर")] == ["café", "घर"]


def test_a_missing_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match=r"data\.nouns: cannot read .*none\.txt"):
        NounList.from_file(tmp_path / "none.txt")


def test_the_fingerprint_is_of_the_words_and_not_of_the_file(tmp_path: Path) -> None:
    first = word_list(tmp_path, "dog\ncat\n").fingerprint()
    assert word_list(tmp_path, "# mine\ndog\n\ncat").fingerprint() == first
    assert word_list(tmp_path, "cat\ndog\n").fingerprint() != first
    assert word_list(tmp_path, "dog\ncat=cat|kitten\n").fingerprint() != first


def prompter(folder: Path, tokenizer: Tokenizer, num_nouns: int = 2, templates: TemplateSet = "subset") -> NounPrompter:
    return NounPrompter(word_list(folder, "dog\ncat\ncar\ngrass\n"), tokenizer, num_nouns, templates, seed=3)


def phrase_of(prompt: str, templates: TemplateSet) -> str:
    """What stands in a template; exactly one template fits."""
    patterns = [re.escape(template).replace(r"\{\}", "(.*)") for template in TEMPLATES[templates]]
    found = {match[1] for pattern in patterns if (match := re.fullmatch(pattern.replace(r"\.", r" \."), prompt))}
    assert len(found) == 1, prompt
    return found.pop()


def test_prompts_are_different_nouns_of_the_caption_in_templates(tmp_path: Path, tokenizer: Tokenizer) -> None:
    draw = prompter(tmp_path, tokenizer)
    names = ["dog", "cat", "car", "grass"]
    seen, templates = set(), set()
    for epoch in range(40):
        prompts = draw("a dog and two cats on the grass", epoch, 5)
        assert prompts.token_ids.shape == (2, tokenizer.context_length)
        words = prompts.words.tolist()
        assert len(set(words)) == 2
        texts = [tokenizer.decode(ids.tolist()) for ids in prompts.token_ids]
        assert [phrase_of(text, "subset") for text in texts] == [names[word] for word in words]
        seen.update(words)
        templates.update(text.replace(names[word], "{}") for text, word in zip(texts, words, strict=True))
    assert seen == {0, 1, 3}
    assert len(templates) == 7


def test_missing_nouns_are_empty_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    empty = tokenizer.encode([""])[0]
    prompts = prompter(tmp_path, tokenizer, num_nouns=3)("one cat, CATS, more cats", 0, 0)
    assert prompts.words.tolist() == [1, -1, -1]
    assert not torch.equal(prompts.token_ids[0], empty)
    assert torch.equal(prompts.token_ids[1:], empty.expand(2, -1))
    assert prompter(tmp_path, tokenizer)("nothing here", 0, 0).words.tolist() == [-1, -1]


def test_a_draw_is_fixed_by_its_key(tmp_path: Path, tokenizer: Tokenizer) -> None:
    caption = "a dog, a cat and a car on the grass"

    def all_of(draw: NounPrompter) -> torch.Tensor:
        return NounPrompts.stack([draw(caption, epoch, index) for epoch in range(3) for index in range(3)]).token_ids

    first = all_of(prompter(tmp_path, tokenizer))
    assert torch.equal(first, all_of(prompter(tmp_path, tokenizer)))
    assert len({tuple(row.flatten().tolist()) for row in first}) > 5


def test_template_sets() -> None:
    assert {name: len(set(templates)) for name, templates in TEMPLATES.items()} == {
        "simple": 1,
        "subset": 7,
        "full": 80,
    }
    assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)
    assert set(TEMPLATES["simple"]) < set(TEMPLATES["full"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_reckoned_length_holds_prompts_in_clips_tokens(name: TemplateSet) -> None:
    prompts = [template.format("potted plant") for template in TEMPLATES[name]]
    longest = max(len(ids) for ids in Tokenizer.clip().encode_ids(prompts))
    assert longest <= prompt_length(name) <= longest + 4

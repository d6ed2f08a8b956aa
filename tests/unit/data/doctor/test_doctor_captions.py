"""Captions that give themselves away, and those that do not."""

import pytest

from mixreorg.data.doctor.captions import printable, suspicion, token_length, words
from mixreorg.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("kind", "captions"),
    [
        ("caption is a URL", ["https://a.example/x.jpg", "www.example.org", "HTTP://A.B/c?d=e&f"]),
        ("caption is a file name", ["IMG_2034", "DSC-0001", "dsc00412", "a b (3).JPEG", "фото 3.png", "x/y/z.webp"]),
        ("caption is a file name", ["Screenshot 2021-03-04", "GOPR0021", "logo-final.svg", "PXL_20230101_1"]),
        ("caption without letters", ["1234", "2020-01-01 12:00", "…", "★★★", "№ 5, 6", "٣٤"]),
        ("placeholder caption", ["untitled", "Image", "no caption", "Photo 3", "image not available.", "N/A", "null"]),
        ("placeholder caption", ["alt text", "Your title here", "<PERSON> <PERSON>", "{{title}}", "[image]", "%s"]),
        ("placeholder caption", ["Lorem ipsum dolor sit amet", "click to enlarge", "No description"]),
    ],
)
def test_captions_that_describe_nothing(kind: str, captions: list[str]) -> None:
    assert {caption: suspicion(caption) for caption in captions} == dict.fromkeys(captions, kind)


@pytest.mark.parametrize(
    "caption",
    [
        "a dog",
        "dog",
        "two images of a dog",
        "photo of a red car",
        "the file dog.jpg shows a dog",
        "see https://a.example for 3 cats",
        "a picture of a sample",
        "<PERSON> on a horse",
        "no dogs allowed",
        "title page of a book",
        "ein Hund",
        "犬",
        "कुत्ता",
        "собака 3",
        "كلب",
        "VW Golf 2.0",
    ],
)
def test_captions_that_may_describe_an_image(caption: str) -> None:
    assert suspicion(caption) is None


def test_words_of_several_languages() -> None:
    assert words('A dog, "two" cats -- and x-rays!') == ["a", "dog", "two", "cats", "and", "x-rays"]
    assert words("Größe हिन्दी كلب") == ["größe", "हिन्दी", "كلب"]
    assert words("赤い犬。a犬") == ["赤", "い", "犬", "a", "犬"]
    assert words("강아지 두 마리") == ["강아지", "두", "마리"]


def test_tokens_are_counted_beyond_the_context_length() -> None:
    tokenizer, whole = Tokenizer.clip(24), Tokenizer.clip(10_000)
    for length in (1, 3, 20, 21, 22, 23, 24, 25, 80):
        caption = " ".join(["a photo of the grass, zebra &amp; dog"] * 30)[: 3 * length]
        assert token_length(tokenizer, caption) == len(whole.encode_ids([caption])[0]), caption
    monster = "xq" * 500
    assert token_length(tokenizer, monster) == tokenizer.context_length
    assert token_length(tokenizer, f"a {monster}") > tokenizer.context_length


def test_nothing_in_a_caption_reaches_a_terminal() -> None:
    assert printable("a\tb\nc") == "a b c"
    assert printable("\x1b[31mred\x07\x00") == "�[31mred��"
    assert printable("\u202edesrever \ud800 \udc80") == "�desrever ? ?"
    assert (
        printable("\N{WOMAN}\u200d\N{PERSONAL COMPUTER} می\u200cخواهم")
        == "\N{WOMAN}\u200d\N{PERSONAL COMPUTER} می\u200cخواهم"
    )

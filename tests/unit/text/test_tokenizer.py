"""Tokenizer: ids equal CLIP's (a plain reference here, a golden file of the original), training, files."""

import gzip
import html
import json
import pickle
import random
import subprocess
import sys
import unicodedata
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import ftfy
import pytest
import torch

from mixreorg.errors import MixreorgError
from mixreorg.text.tokenizer import Tokenizer, clean_text

GOLDEN = Path(__file__).parents[2] / "data" / "clip_token_ids.json"
WORDS = [
    *(
        "a",
        "the",
        "of",
        "on",
        "with",
        "man",
        "woman",
        "dog",
        "cat",
        "sitting",
        "standing",
        "street",
        "red",
        "blue",
    ),
    *(
        "wooden",
        "table",
        "photo",
        "closeup",
        "beautiful",
        "sunset",
        "beach",
        "zebra",
        "giraffe",
        "skateboard",
    ),
    *("stock", "vector", "illustration", "wallpaper", "New", "York", "f/2.8", "4k"),
]
NASTY = [
    *(
        "it's",
        "we'll",
        "THEY'RE",
        "don't",
        "'s",
        "'S",
        "'ſ",
        "O'Neil's",
        "y'all'd've",
        "``",
        "'''",
        '"',
        "\\",
    ),
    *("2024", "3.14", "1,000,000", "½", "²", "Ⅷ", "٣", "$5.99", "100%", "n°5", "№"),
    *("snake_case", "__init__", "_", "#tag", "@user", "C++", "http://example.com/a_b?c=d&e=f", "?!?", "..."),
    *(
        "&amp;",
        "&amp;amp;",
        "&lt;b&gt;",
        "&quot;x&quot;",
        "&#39;",
        "&#x1F415;",
        "&eacute;",
        "&nbsp;",
        "&copy 2020",
    ),
    *("&#xD800;", "&#0;", "&#128;", "&#1234567890;", "&hellip;"),
    *("cafÃ©", "â€™", "â€œhiâ€\x9d", "ðŸ˜€", "Ã¼ber", "naïve", "ﬁne", "ＦＵＬＬ", "“curly”", "—", "…"),
    *(
        "🐕",
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "❤️",
        "1️⃣",
        "😀😀😀",
        "犬",
        "東京タワー",
        "中文字幕",
        "한국어",
        "русский",
        "ΣΊΣΥΦΟΣ",
    ),
    *("עברית", "العربية", "हिन्दी", "ไทย", "İstanbul", "ß", "ǅ", "e\u0301", "a\u0308\u0323", "x\u0345"),
    *("\u200b", "\u200d", "\ufeff", "\u00ad", "\t", "\r\n", "\x0b", "\x00", "\x1b[31mred\x1b[0m", "\x85"),
    *("\u2028", "\u3000", "\xa0", "\ud83d\ude00", "\ud83d", "a" * 40, "</w>", "<|", "|>", "🐕" * 30),
    *("<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<END_OF_TEXT>"),
]


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return Tokenizer.clip()


def make_captions(count: int) -> list[str]:
    choose = random.Random(0)
    captions = []
    for index in range(count):
        length = choose.randint(60, 120) if index % 50 == 0 else choose.randint(1, 14)
        words = [choose.choice(NASTY if choose.random() < 0.4 else WORDS) for _ in range(length)]
        captions.append(choose.choice([" ", " ", "", "  "]).join(words))
    return captions


class PlainReference:
    """CLIP's tokenizer as simple as can be: split into words, then merge the best pair, repeat."""

    def __init__(self) -> None:
        packed = resources.files("mixreorg.text").joinpath("clip_merges.txt.gz").read_bytes()
        merges = [tuple(line.split()) for line in gzip.decompress(packed).decode().splitlines()]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.symbols = {byte: chr(byte) for byte in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
        base = [self.symbols[byte] for byte in printable + others]
        tokens = base + [symbol + "</w>" for symbol in base] + [a + b for a, b in merges]
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.merge = cache(self._merge)

    def encode(self, text: str) -> list[int]:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = " ".join(text.split()).strip().lower()
        ids = [index for word in self.split(text) for index in self.merge(word)]
        return [49406, *ids[:75], 49407]

    def split(self, text: str) -> list[str]:
        def kind(character: str) -> str:
            if character.isspace() or character == "\u0345":
                return "skip"
            return unicodedata.category(character)[0].replace("L", "letter").replace("N", "number")

        words, at = [], 0
        while at < len(text):
            first = kind(text[at])
            endings = [e for e in ("'s", "'ſ", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(e, at)]
            end = at + 1
            if endings:
                end = at + len(endings[0])
            elif first not in ("number", "skip"):
                same = (lambda k: k == "letter") if first == "letter" else (lambda k: k not in SPECIAL_KINDS)
                while end < len(text) and same(kind(text[end])):
                    end += 1
            if first != "skip":
                words.append(text[at:end])
            at = end
        return words

    def _merge(self, word: str) -> list[int]:
        parts = [self.symbols[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self.ranks.get(pair, 10**9))
            if best not in self.ranks:
                break
            merged, at = [], 0
            while at < len(parts):
                joins = tuple(parts[at : at + 2]) == best
                merged.append("".join(best) if joins else parts[at])
                at += 2 if joins else 1
            parts = merged
        return [self.ids[part] for part in parts]


SPECIAL_KINDS = ("letter", "number", "skip")


def test_clip_ids_equal_the_plain_reference_on_5000_captions(clip: Tokenizer) -> None:
    captions = make_captions(5000)
    reference = PlainReference()
    different = [
        (caption, ids)
        for caption, ids in zip(captions, clip.encode_ids(captions), strict=True)
        if ids != reference.encode(caption)
    ]
    assert different == []


def test_clip_ids_equal_those_of_the_original_implementation(clip: Tokenizer) -> None:
    """The file was written with open_clip 3.3.0's tokenizer and ftfy 6.3.1."""
    rows = json.loads(GOLDEN.read_text())
    assert len(rows) >= 300
    for row, ids in zip(rows, clip.encode_ids([row["caption"] for row in rows]), strict=True):
        assert ids == row["ids"], row["caption"]


def test_clip_layout(clip: Tokenizer) -> None:
    assert (clip.vocab_size, clip.context_length, clip.start_id, clip.end_id) == (49408, 77, 49406, 49407)
    token_ids = clip.encode(["a photo of a dog", ""])
    assert token_ids.shape == (2, 77)
    assert token_ids.dtype == torch.int64
    assert token_ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 1929, 49407, 0]
    assert token_ids[1].tolist() == [49406, 49407] + [0] * 75
    assert token_ids[0, 7:].eq(0).all()


@pytest.mark.parametrize(
    "text",
    [
        "<|startoftext|>",
        "<|endoftext|>",
        "<start_of_text>",
        "<end_of_text>",
        "<|ENDOFTEXT|>",
        "x<|endoftext|>y",
    ],
)
def test_control_tokens_in_a_text_are_text(clip: Tokenizer, text: str) -> None:
    ids = clip.encode_ids([text])[0]
    assert [ids[0], ids[-1]] == [clip.start_id, clip.end_id]
    assert max(ids[1:-1]) < clip.start_id
    assert clip.decode(ids).replace(" ", "") == text.lower()


def test_long_captions_keep_the_end_token_last(clip: Tokenizer) -> None:
    caption = " ".join(["dog"] * 200)
    assert clip.encode([caption])[0].tolist() == [49406, *[1929] * 75, 49407]
    assert Tokenizer.clip(context_length=4).encode([caption]).tolist() == [[49406, 1929, 1929, 49407]]


def test_decode_gives_the_cleaned_text_back(clip: Tokenizer) -> None:
    text = "a 🐕 dog on 東京タワー café street"
    assert clip.decode(clip.encode([text])[0]) == text
    assert clip.decode([]) == ""
    with pytest.raises(MixreorgError, match="70000"):
        clip.decode([70000])


def test_clean_text_shortcut_for_plain_ascii_changes_nothing() -> None:
    for code in range(128):
        text = f"A {chr(code)} b{chr(code)}c"
        full = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        assert clean_text(text) == " ".join(full.split()).lower()


def test_one_text_instead_of_a_list_is_refused(clip: Tokenizer) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        clip.encode("dog")


def test_trained_tokenizer_learns_frequent_words_and_encodes_anything() -> None:
    captions = ["a red dog on grass", "a blue dog on sand", "ein Hund im Gras", "犬 が いる", "犬 と 猫"] * 3
    tokenizer = Tokenizer.train(captions, vocab_size=540, context_length=32)
    assert tokenizer.vocab_size == 540
    assert tokenizer.context_length == 32
    assert len(tokenizer.encode_ids(["dog"])[0]) == 3
    assert len(tokenizer.encode_ids(["犬"])[0]) == 3
    for text in ["zebra 🦓", "completely new words", "犬", "a red dog"]:
        ids = tokenizer.encode([text])[0]
        assert ids.max() == tokenizer.end_id < tokenizer.vocab_size
        assert tokenizer.decode(ids) == text


def test_training_stops_when_nothing_is_left_to_merge() -> None:
    assert Tokenizer.train(["ab ab"], vocab_size=5000).vocab_size == 512 + 1 + 2


@pytest.mark.parametrize("vocab_size", [1_000_001, 10**12, 10**20])
def test_a_vocabulary_beyond_all_memory_is_refused(vocab_size: int) -> None:
    with pytest.raises(MixreorgError, match=f"vocab_size is {vocab_size}; at most 1,000,000 are trained"):
        Tokenizer.train(["ab ab"], vocab_size=vocab_size)


def test_training_is_the_same_in_every_process_and_for_every_order(tmp_path: Path) -> None:
    """Many ties and many characters: what the trainer's unordered map would shuffle."""
    program = (
        "import sys, random; from pathlib import Path; from mixreorg.text.tokenizer import Tokenizer\n"
        "words = [chr(97 + i % 26) + chr(0x430 + i % 31) + chr(0x4e00 + i % 97) for i in range(400)] * 2\n"
        "random.Random(int(sys.argv[1])).shuffle(words)\n"
        "Tokenizer.train([' '.join(words)], vocab_size=900).save(Path(sys.argv[2]))"
    )
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for number, file in enumerate(files):
        subprocess.run([sys.executable, "-c", program, str(number), str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_save_and_read_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(make_captions(50), vocab_size=700, context_length=20)
    tokenizer.save(tmp_path / "new" / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "new" / "tokenizer.json")
    texts = make_captions(50)
    assert torch.equal(tokenizer.encode(texts), again.encode(texts))
    assert (again.vocab_size, again.context_length) == (tokenizer.vocab_size, 20)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert torch.equal(tokenizer.encode(texts), copy.encode(texts))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a tokenizer file"),
        ('{"model": {}}', "not a tokenizer file"),
        ('{"format": "mixreorg-tokenizer-1", "merges": []}', "context_length"),
        ('{"format": "mixreorg-tokenizer-1", "merges": ["zz q"], "context_length": 9}', "zz"),
        ('{"format": "mixreorg-tokenizer-1", "merges": ["a"], "context_length": 9}', "damaged"),
        ('{"format": "mixreorg-tokenizer-1", "merges": [["a", 1]], "context_length": 9}', "damaged"),
        ('{"format": "mixreorg-tokenizer-1", "merges": [], "context_length": 1}', "context_length is 1"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(MixreorgError, match=message) as caught:
        Tokenizer.from_file(file)
    assert str(file) in str(caught.value)


def test_impossible_sizes_are_errors() -> None:
    with pytest.raises(MixreorgError, match="514"):
        Tokenizer.train(["dog"], vocab_size=513)
    with pytest.raises(MixreorgError, match="context_length"):
        Tokenizer.clip(context_length=1)
    with pytest.raises(MixreorgError, match=r"no\.json"):
        Tokenizer.from_file(Path("no.json"))

"""Nouns of captions: a word list, and where its entries stand in a text."""

import functools
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mixreorg.errors import MixreorgError
from mixreorg.text.class_list import ClassName, parse_class_list
from mixreorg.text.tokenizer import clean_text

Words = tuple[str, ...]

# Letters and digits; hyphens and apostrophes part words, so that "dog's" and "dog-friendly" name a dog.
_WORD = re.compile(r"[^\W_]+")
_BACKGROUND = "background"


@dataclass(frozen=True)
class FoundNoun:
    """A noun of a caption."""

    word: int
    """Its place in the word list; synonyms on one line share it."""
    phrase: str
    """As the list spells it, lower case, without the plural ending of the caption."""


class NounList:
    """A word list in a form to look captions up in.

    A caption's words are compared from left to right, and the longest phrase that fits is taken: ``hot dog`` is no
    dog. The last word of a phrase may stand in the plural (s, es, y to ies). Scripts without spaces between words
    are not searched.
    """

    def __init__(self, classes: tuple[ClassName, ...]) -> None:
        """Index a list.

        Args:
            classes: one per noun, with its synonyms as phrases.
        """
        self._classes = classes
        self._entries: dict[Words, FoundNoun] = {}
        phrases = [(index, clean_text(phrase)) for index, item in enumerate(classes) for phrase in item.phrases]
        for index, phrase in phrases:
            self._add(_words(phrase), FoundNoun(index, phrase))
        # After all that is listed: where "glasses" has a line of its own, it is no plural of "glass".
        for index, phrase in phrases:
            *first, last = _words(phrase) or ("",)
            for plural in _plurals(last):
                self._add((*first, plural), FoundNoun(index, phrase))
        self._longest: dict[str, int] = {}
        for words in self._entries:
            self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))

    @classmethod
    def from_file(cls, path: Path) -> "NounList":
        """Read a list.

        Args:
            path: a text file, one noun or phrase per line in the syntax of class lists (``man=man|men`` for irregular
                plurals and synonyms); or a folder in VOC layout, for its ``classes.txt``. A first line ``background``
                is left out.

        Raises:
            MixreorgError: no such file, or a line that is no noun.
        """
        path = path.expanduser()
        try:
            classes = parse_class_list(path / "classes.txt" if path.is_dir() else path)
        except MixreorgError as error:
            raise MixreorgError(f"data.nouns: {error}") from None
        classes = classes[1:] if classes[0].name.casefold() == _BACKGROUND else classes
        nouns = cls(classes)
        if not nouns._entries:
            raise MixreorgError(f"data.nouns: {path} holds no word; write one noun per line")
        return nouns

    def __len__(self) -> int:
        """Number of nouns; synonyms count once."""
        return len(self._classes)

    def find(self, caption: str) -> list[FoundNoun]:
        """The nouns of a caption in reading order, each once."""
        words = _words(clean_text(caption))
        found: dict[int, FoundNoun] = {}
        place = 0
        while place < len(words):
            longest = min(self._longest.get(words[place], 0), len(words) - place)
            for length in range(longest, 0, -1):
                noun = self._entries.get(words[place : place + length])
                if noun is not None:
                    found.setdefault(noun.word, noun)
                    place += length - 1
                    break
            place += 1
        return list(found.values())

    def fingerprint(self) -> str:
        """Identifies the list by what it holds."""
        lines = "\n".join("|".join((item.name, *item.phrases)) for item in self._classes)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def _add(self, words: Words, noun: FoundNoun) -> None:
        if words:
            self._entries.setdefault(words, noun)


def _words(text: str) -> Words:
    return tuple((_WORD if text.isascii() else _marked_word()).findall(text))


@functools.cache
def _marked_word() -> re.Pattern[str]:
    """Words with the marks on their letters, as vowel signs of Indic scripts, which are no letters to ``re``."""
    # From U+20000 on there are no marks but variation selectors.
    marks = (mark for mark in map(chr, range(0x20000)) if unicodedata.category(mark).startswith("M"))
    return re.compile(rf"[^\W_](?:[^\W_]|[{''.join(marks)}])*")


def _plurals(word: str) -> tuple[str, ...]:
    """Regular plurals of a singular; wrong ones do no harm, since captions do not have them."""
    if not word:
        return ()
    irregular = (f"{word[:-1]}ies",) if word.endswith("y") else ()
    return (f"{word}s", f"{word}es", *irregular)

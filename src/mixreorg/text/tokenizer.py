"""Byte-pair tokenizer: CLIP's published vocabulary, or a small one trained on the captions of a run.

Both kinds share one layout of ids, which is CLIP's: 256 byte symbols, the same 256 symbols ending a word, one
token per merge, then the start and the end of a text. The merges alone therefore define the vocabulary.
Source of the algorithm and of the merges: https://github.com/openai/CLIP (MIT, see CLIP_LICENSE).
"""

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as BackendTokenizer

from mixreorg.bundled import BUNDLED, bundled_folder
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

CLIP_CONTEXT_LENGTH = 77
CLIP_VOCAB_SIZE = 49_408
MAX_VOCAB_SIZE = 1_000_000
"""Ids that a trained vocabulary may have: the trainer reserves memory for all it is asked for, and ends the process
where there is not enough."""

_FORMAT = "mixreorg-tokenizer-1"
_WORD_END = "</w>"
# CLIP's pattern ignores case. On lower-cased text that matters for two characters that lower() keeps although
# they are other cases of "s" and of the Greek iota: the long s, and U+0345, which CLIP drops because of it.
_WORDS = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{0345}]+"
# Sorted, the symbols of the 256 bytes stand in the order of CLIP's ids.
_BYTE_SYMBOLS = sorted(pre_tokenizers.ByteLevel.alphabet())
_BASE_TOKENS = [*_BYTE_SYMBOLS, *(symbol + _WORD_END for symbol in _BYTE_SYMBOLS)]
_NUM_CONTROL = 2

Merge = tuple[str, str]


class Tokenizer:
    """Turns captions and class names into token ids.

    Control tokens exist only as ids that :meth:`encode` puts around a text. They have no spelling, so a text
    that holds ``<|startoftext|>`` or ``<end_of_text>`` is encoded as the characters it is made of.
    """

    def __init__(self, merges: Sequence[Merge], context_length: int = CLIP_CONTEXT_LENGTH) -> None:
        """Make a tokenizer from its merges.

        Args:
            merges: byte-pair merges in order of priority.
            context_length: number of ids per text, start and end included; at least 2.

        Raises:
            MixreorgError: a merge of symbols that no merge makes, or a context length below 2.
        """
        if context_length < _NUM_CONTROL:
            raise MixreorgError(f"context_length is {context_length}; start and end alone need 2")
        self._merges = list(merges)
        self._context_length = context_length
        # A trained table may reach one token by two merges: it has one id.
        self._tokens = list(dict.fromkeys(_BASE_TOKENS + [first + second for first, second in self._merges]))
        vocabulary = {token: index for index, token in enumerate(self._tokens)}
        for merge in self._merges:
            if not (merge[0] in vocabulary and merge[1] in vocabulary):
                raise MixreorgError(f"tokenizer: the merge {merge} joins symbols that no other merge makes")
        self._backend = _backend(models.BPE(vocabulary, self._merges, end_of_word_suffix=_WORD_END))
        self._decoder = decoders.ByteLevel()

    @classmethod
    def clip(cls, context_length: int = CLIP_CONTEXT_LENGTH) -> Self:
        """CLIP's tokenizer: 49,408 ids, the same as CLIP's for every caption."""
        return cls(_clip_merges(), context_length)

    @classmethod
    def named(cls, name: str) -> Self:
        """The tokenizer of a setting: ``clip``, the name of a bundled model for its own, or a file.

        Raises:
            MixreorgError: no such file, a damaged one, or a bundled model that this installation lacks.
        """
        if name == "clip":
            return cls.clip()
        is_bundled = name in BUNDLED and not Path(name).exists()
        return cls.from_file(bundled_folder(name) / "tokenizer.json" if is_bundled else Path(name))

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int = 2048, context_length: int = CLIP_CONTEXT_LENGTH) -> Self:
        """Learn a vocabulary from captions in any language; the same captions give the same vocabulary.

        Args:
            captions: read once; their order does not matter.
            vocab_size: number of ids including 512 byte symbols and 2 control tokens. Fewer come out when the
                captions hold too few repeated words.
            context_length: ids per text of the tokenizer returned.

        Raises:
            MixreorgError: ``vocab_size`` below 514 or above :data:`MAX_VOCAB_SIZE`.
        """
        if vocab_size > MAX_VOCAB_SIZE:
            raise MixreorgError(f"vocab_size is {vocab_size}; at most {MAX_VOCAB_SIZE:,} are trained: take fewer")
        num_tokens = vocab_size - _NUM_CONTROL
        if num_tokens < len(_BASE_TOKENS):
            raise MixreorgError(
                f"vocab_size is {vocab_size}; at least {len(_BASE_TOKENS) + _NUM_CONTROL} are needed: "
                f"{len(_BASE_TOKENS)} byte symbols and {_NUM_CONTROL} control tokens"
            )
        backend = _backend(models.BPE(end_of_word_suffix=_WORD_END))
        # The trainer numbers word-ending symbols as it meets them, in an order that changes from run to run,
        # and settles ties between merges by number. Named up front they have fixed numbers.
        trainer = trainers.BpeTrainer(
            vocab_size=num_tokens,
            min_frequency=2,
            show_progress=False,
            special_tokens=_BASE_TOKENS,
            end_of_word_suffix=_WORD_END,
        )
        backend.train_from_iterator((clean_text(caption) for caption in captions), trainer)
        learned = json.loads(backend.to_str())["model"]["merges"]
        return cls([(first, second) for first, second in learned], context_length)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a tokenizer that :meth:`save` wrote.

        Raises:
            MixreorgError: missing file, or not a tokenizer file.
        """
        return cls.from_dict(read_json(path), source=str(path))

    @classmethod
    def from_dict(cls, content: Any, source: str) -> Self:
        """Make a tokenizer of the values that :meth:`to_dict` gave.

        Args:
            content: as read from JSON.
            source: what errors call its origin.

        Raises:
            MixreorgError: not the values of a tokenizer.
        """
        if not (isinstance(content, dict) and content.get("format") == _FORMAT):
            raise MixreorgError(f"{source} is not a tokenizer file; make one with `mixreorg data tokenizer`")
        try:
            return cls([_parse_merge(merge) for merge in content["merges"]], int(content["context_length"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, MixreorgError) as error:
            raise MixreorgError(
                f"{source} is a damaged tokenizer file ({error}); make it again with `mixreorg data tokenizer`"
            ) from error

    def save(self, path: Path) -> None:
        """Write merges and context length as one JSON file, whole or not at all.

        Raises:
            MixreorgError: the file cannot be written.
        """
        write_json(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that :meth:`from_dict` makes the same tokenizer of."""
        merges = [" ".join(merge) for merge in self._merges]
        return {"format": _FORMAT, "context_length": self._context_length, "merges": merges}

    @property
    def is_clip(self) -> bool:
        """Whether the ids are CLIP's, for texts of whatever length."""
        # The count decides nearly always, and costs nothing.
        return self.vocab_size == CLIP_VOCAB_SIZE and self._merges == _clip_merges()

    @property
    def merges(self) -> tuple[Merge, ...]:
        """Byte-pair merges in order of priority."""
        return tuple(self._merges)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Spelling of every id but the two control tokens, which have none and come last."""
        return tuple(self._tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id is below it."""
        return len(self._tokens) + _NUM_CONTROL

    @property
    def context_length(self) -> int:
        """Number of ids per encoded text, ``L``."""
        return self._context_length

    @property
    def start_id(self) -> int:
        """Id that begins every text."""
        return len(self._tokens)

    @property
    def end_id(self) -> int:
        """Id that ends every text: the highest, as text encoders find the end by its value."""
        return len(self._tokens) + 1

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without padding: start, at most ``context_length - 2`` ids of text, end."""
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        keep = self._context_length - _NUM_CONTROL
        # One by one is as fast as a batch on few cores, and starts no threads to trouble a later fork.
        encodings = (self._backend.encode(clean_text(text)) for text in texts)
        return [[self.start_id, *encoding.ids[:keep], self.end_id] for encoding in encodings]

    def encode(self, texts: Sequence[str]) -> "Tensor":
        """Token ids ready for the text encoder.

        Args:
            texts: ``B`` captions or class prompts.

        Returns:
            ``[B, L]`` int64: start, ids of the text, end, then zeros. A text that is too long is cut so that
            the end token is the last id, as CLIP does.
        """
        import torch

        token_ids = torch.zeros(len(texts), self._context_length, dtype=torch.int64)
        for row, ids in zip(token_ids, self.encode_ids(texts), strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return token_ids

    def decode(self, ids: Iterable[int]) -> str:
        """The cleaned text behind the ids of one text, words parted by single spaces.

        Reading stops at the first end token, so padding is not decoded. Bytes that are no UTF-8 (a text cut
        in the middle of a character) become U+FFFD.

        Raises:
            MixreorgError: an id outside the vocabulary.
        """
        symbols = []
        for index in map(int, ids):
            if index == self.end_id:
                break
            if index == self.start_id:
                continue
            if not 0 <= index < len(self._tokens):
                raise MixreorgError(f"token id {index} is outside the vocabulary of {self.vocab_size} ids")
            token = self._tokens[index]
            symbols.append(token.removesuffix(_WORD_END) + "Ġ" if token.endswith(_WORD_END) else token)
        text: str = self._decoder.decode(symbols)
        return text.strip()


def clean_text(text: str) -> str:
    """Clean a text as CLIP does: repair mojibake, HTML entities (twice), white space, lower case."""
    if not (text.isascii() and text.isprintable() and "&" not in text):
        # Plain ASCII has nothing to repair, and it is most of every caption set; the library is seldom loaded.
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _clip_merges() -> list[Merge]:
    packed = resources.files("mixreorg.text").joinpath("clip_merges.txt.gz").read_bytes()
    return [_parse_merge(line) for line in gzip.decompress(packed).decode("utf-8").splitlines()]


def _backend(model: models.BPE) -> BackendTokenizer:
    backend = BackendTokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend


def _parse_merge(line: str) -> Merge:
    first, second = line.split(" ")
    return first, second

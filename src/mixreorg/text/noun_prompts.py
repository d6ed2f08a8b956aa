"""Noun prompts of captions: nouns drawn and put into templates, as tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixreorg.randomness import numpy_generator
from mixreorg.text.nouns import NounList
from mixreorg.text.templates import TEMPLATES, TemplateSet
from mixreorg.text.tokenizer import Tokenizer

NO_WORD = -1


@dataclass(frozen=True)
class NounPrompts:
    """The prompts of a batch, ``T`` per caption; those of a single caption have no batch dimension."""

    token_ids: Tensor
    """``[B, T, L]`` int64; the empty text where a caption has fewer nouns."""
    words: Tensor
    """``[B, T]`` int64: place of each noun in the word list, -1 where there is none."""

    @classmethod
    def stack(cls, prompts: Sequence["NounPrompts"]) -> "NounPrompts":
        """Those of single captions as a batch."""
        return cls(torch.stack([item.token_ids for item in prompts]), torch.stack([item.words for item in prompts]))

    def map(self, function: Callable[[Tensor], Tensor]) -> "NounPrompts":
        """Both tensors changed alike: moved, pinned."""
        return NounPrompts(function(self.token_ids), function(self.words))

    def split(self, size: int) -> list["NounPrompts"]:
        """Consecutive parts of ``size`` captions, the last one perhaps smaller."""
        pairs = zip(torch.split(self.token_ids, size), torch.split(self.words, size), strict=True)
        return [NounPrompts(*pair) for pair in pairs]


class NounPrompter:
    """Draws the noun prompts of a caption (GroupViT, section 3.2): a function of (seed, epoch, index) and caption."""

    def __init__(
        self, nouns: NounList, tokenizer: Tokenizer, num_nouns: int, templates: TemplateSet, seed: int
    ) -> None:
        """Combine what makes a prompt.

        Args:
            nouns: the words that count as nouns.
            tokenizer: of the model that is trained.
            num_nouns: T, prompts per caption.
            templates: each prompt's is drawn from these.
            seed: of the run.
        """
        self.nouns = nouns
        self._tokenizer = tokenizer
        self._num_nouns = num_nouns
        self._templates = TEMPLATES[templates]
        self._seed = seed

    def __call__(self, caption: str, epoch: int, index: int) -> NounPrompts:
        """``[T, L]`` and ``[T]``: up to T different nouns of a caption, in the order drawn."""
        random = numpy_generator(self._seed, "nouns", epoch, index)
        found = self.nouns.find(caption)
        chosen = [found[place] for place in random.permutation(len(found))[: self._num_nouns]]
        templates = random.integers(len(self._templates), size=len(chosen))
        prompts = [
            self._templates[template].format(noun.phrase) for template, noun in zip(templates, chosen, strict=True)
        ]
        missing = self._num_nouns - len(chosen)
        words = torch.tensor([*(noun.word for noun in chosen), *[NO_WORD] * missing], dtype=torch.int64)
        return NounPrompts(self._tokenizer.encode([*prompts, *[""] * missing]), words)

"""Embeddings of phrases that were encoded before, within bounds; needs no torch."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

Row = TypeVar("Row")

PHRASES_KEPT = 4096
"""More than a benchmark has, and a few megabytes; without a bound, a server would keep every name ever sent to it."""


class PhraseMemory(Generic[Row]):
    """One row, an embedding ``[E]``, for each phrase in the same templates: those pinned, and the most recently used.

    Rows of other templates are others: as soon as the templates change, everything is forgotten.
    """

    def __init__(self, size: int = PHRASES_KEPT) -> None:
        """Start with nothing; ``size`` rows are kept beside those pinned."""
        self._size = size
        self._templates: tuple[str, ...] = ()
        self._pinned: dict[str, Row] = {}
        self._recent: OrderedDict[str, Row] = OrderedDict()

    def rows(
        self, phrases: Sequence[str], templates: tuple[str, ...], encode: Callable[[list[str]], Iterable[Row]]
    ) -> list[Row]:
        """The row of each phrase, of which there may be more than are kept.

        Args:
            phrases: any, also repeatedly.
            templates: that the phrases are put into.
            encode: makes the rows of phrases that are not known. They are kept one by one, so none may be a view into
                a larger array.
        """
        self._turn_to(templates)
        found = {phrase: row for phrase in phrases if (row := self._find(phrase)) is not None}
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in found]
        if new:
            found.update(zip(new, encode(new), strict=True))
        for phrase, row in found.items():
            if phrase not in self._pinned:
                self._recent[phrase] = row
                self._recent.move_to_end(phrase)
        while len(self._recent) > self._size:
            self._recent.popitem(last=False)
        return [found[phrase] for phrase in phrases]

    def pin(self, phrases: Iterable[str], templates: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Keep these rows for as long as the templates stay these."""
        self._turn_to(templates)
        self._pinned.update(zip(phrases, rows, strict=True))

    def _turn_to(self, templates: tuple[str, ...]) -> None:
        if templates != self._templates:
            self._pinned.clear()
            self._recent.clear()
            self._templates = templates

    def _find(self, phrase: str) -> Row | None:
        return self._pinned.get(phrase, self._recent.get(phrase))

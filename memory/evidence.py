"""How much each word of one question speaks for each relation: by its stem, and by what it means where it stands.

The stems of words (:mod:`memory.relation_words`) are sure where a known word is used; the tagger (:mod:`memory.tagger`)
reads words in their context, known or not. Both give log ratios on the same scale, and their mean is taken; of a stem
that no wording has, the tagger's alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from memory.questions import Reading
from memory.relation_words import Floats, RelationWords, ratio, weights_of
from memory.relation_words import stems as stems_of
from memory.scope import FILLER
from memory.tagger import RelationTagger

_ASKING = 2.0  # so many words at most count for what is asked for
_ON_THE_WAY = 0.6  # and for not being that


class Evidence:
    """The evidence of one reading.

    Args:
        tagger: None where there is none for the encoder in use; stems speak alone then.
    """

    def __init__(self, table: RelationWords, reading: Reading, tagger: RelationTagger | None) -> None:
        self.table, self.asked = table, reading.stems
        self._weights = weights_of(self.asked)
        self._known = np.array([table.knows(word) for word in self.asked], dtype=bool)
        self._shares: Floats | None = None  # the tagger's, in the table's order
        self._last: Floats | None = None  # its probability that a word is what is asked for
        if tagger is not None and self.asked:
            self._read(reading, tagger)

    def _read(self, reading: Reading, tagger: RelationTagger) -> None:
        span = reading.start.span
        text = f"{reading.question[: span.start]}{FILLER}{reading.question[span.end :]}"
        shift = len(FILLER) - (span.end - span.start)
        places = [
            (word.start, word.end) if word.end <= span.start else (word.start + shift, word.end + shift)
            for word in reading.words
        ]
        found = tagger.read(text, places)
        self._last = found.asked.astype(np.float64)
        self._shares = np.zeros((len(self.table.groups), len(places)))
        for row, group in enumerate(tagger.groups):
            if group in self.table.number:
                self._shares[self.table.number[group]] = found.shares[row]

    def log_ratios(self) -> Floats:
        """How much each word speaks for each relation, shape (groups, words)."""
        return self._together(self.table.log_ratios(self.asked), self._shares)

    def fact_ratios(self, weights: Floats, own: Iterable[str]) -> Floats:
        """How much each word speaks for one fact, shape (words,).

        Args:
            weights: of the groups, from :meth:`RelationWords.group_weights`.
            own: the fact's own wordings.
        """
        said = tuple(own)
        stems = self.table.fact_ratios(self.asked, weights, said)
        together = self._together(stems, None if self._shares is None else weights @ self._shares)
        mine = {word for wording in said for word in stems_of(wording)}
        # words of the fact itself speak for it as they are, whatever the tagger takes them for
        return np.where([word in mine for word in self.asked], np.maximum(stems, together), together)

    def ends_right(self, last: Floats, before: Floats, heads: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
        """How far the last hop says what is asked for, and no hop before it says so as well.

        Args:
            last, before: what each word speaks for the last hop, and at most for one of the others, shape (words,).
            heads: the words that ask by the look of the question; used where there is no tagger.
        """
        if self._last is None:
            first, second = (float((last - before)[list(part)].sum()) for part in heads)
            return first + second / 2
        sign = (2 * self._last - 1) * self._weights
        asked, on_the_way = np.maximum(sign, 0), np.maximum(-sign, 0)
        return _mean(asked, last - before, _ASKING) + _mean(on_the_way, before - last, _ON_THE_WAY)

    def says_what_is_asked(self, last: Floats, heads: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
        """How far the last hop says what is asked for at all; more than 0 where the question does not tell."""
        if self._last is not None:
            return float((np.maximum(2 * self._last - 1, 0) * last).sum())
        return float(last[list(heads[0])].sum()) if heads[0] else 1.0

    def _together(self, stems: Floats, shares: Floats | None) -> Floats:
        if shares is None:
            return stems
        told = ratio(shares, np.array(1 / len(self.table.groups))) * self._weights
        both: Floats = np.where(self._known, np.maximum(stems, (stems + told) / 2), told)
        return both


def _mean(weights: Floats, values: Floats, most: float) -> float:
    """The weighted mean, times the sum of the weights up to ``most``."""
    total = weights.sum()
    return float((weights * values).sum() / max(1.0, total) * min(most, total))

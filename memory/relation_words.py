"""Which words say which relation: a word model learned from the wordings of relations alone.

For every relation (a group of senses that mean the same, :mod:`memory.vocabulary`) it knows in what share of its
wordings a word stands. How much a word of a question speaks for a relation is the logarithm of that share against the
word's share over all relations: "manager" speaks loudly for *manager*, "country" a little for several relations, "the"
for none. Words are cut to stems, so that "originates", "origin" and "originally" count as one.

Nothing here is trained on questions; it is counted once from the vocabulary, in a fraction of a second.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from knowledge.world import roundabout
from memory.vocabulary import Vocabulary
from memory.vocabulary import bundled as bundled_vocabulary

Floats = NDArray[np.float64]

_SMOOTH = 0.01  # share that every word has at every relation
LEAST, MOST = -1.5, 4.0  # bounds of a word's log ratio, so that no single word decides a path
_OWN = 0.5  # share that a word has which stands in a fact's own wording
_WORD = re.compile(r"[^\W_]+(?:[’'](?!s\b)[^\W_]+)?")
_ENDINGS = ("ations", "ation", "ings", "ing", "ers", "ors", "ies", "ed", "er", "or", "es", "s", "e", "y")
_IRREGULAR = {
    "birth": "born", "birthplace": "born", "birthed": "born", "wrote": "write", "written": "write", "dead": "die",
    "death": "die", "died": "die", "won": "win", "made": "make", "led": "lead", "sung": "sing", "sang": "sing",
    "spoke": "speak", "spoken": "speak", "nation": "country", "nations": "country", "boss": "ceo", "chief": "ceo",
}  # fmt: skip
_STEM = 5  # letters that words of one family share
_FUNCTION_WORDS = """
    a an the this that these those of in on at to for from by with as into about out off up down and or but not no nor
    so is are was were be been being do does did has have had having can could would will shall may might must should
    it its he him his she her they them their i me my you your we us our there here
    what which who whom whose when where why how if than then also some any each one ones please tell
"""
_LIGHT_WORDS = """
    located situated called named name names known considered serves serve associated belongs belong belonging
    comes come coming particular specific certain given say give answer place thing person people someone individual
    where first number part state related connected
"""
LIGHT = 0.4  # weight of words that go with nearly every relation


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """
    >>> stem("originated") == stem("origin") == stem("originally")
    True
    """
    low = word.casefold()
    low = _IRREGULAR.get(low, low)
    if len(low) > 4:
        for ending in _ENDINGS:
            if low.endswith(ending) and len(low) - len(ending) >= 3:
                low = low[: -len(ending)]
                break
    return low[:_STEM]


@lru_cache(maxsize=1)
def _weights() -> dict[str, float]:
    light = {stem(word): LIGHT for word in _LIGHT_WORDS.split()}
    return light | {stem(word): 0.0 for word in _FUNCTION_WORDS.split()}


def weight(word: str) -> float:
    """How far a stem can speak for a relation at all: 0 for function words, 1 for words with content."""
    return _weights().get(word, 1.0)


def stems(text: str) -> list[str]:
    """Stems of a text's words, in order."""
    return [stem(match.group()) for match in _WORD.finditer(text)]


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text with its place."""

    start: int
    end: int
    stem: str


def words(text: str) -> list[Word]:
    """A text's words with their stems."""
    return [Word(match.start(), match.end(), stem(match.group())) for match in _WORD.finditer(text)]


class RelationWords:
    """Log ratios of words for relations.

    >>> table = RelationWords.bundled()
    >>> table.groups[table.log_ratios(["manag"]).argmax()]
    'manager'
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.groups = sorted({sense.group for sense in vocabulary.senses})
        self.number = {name: at for at, name in enumerate(self.groups)}
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        totals: Counter[str] = Counter()
        for sense in vocabulary.senses:
            # each way of saying it counts once, whether it has twenty wordings or three
            for wordings in (sense.noun, sense.question, sense.cloze, sense.more):
                for wording in wordings:
                    weight = 1 / len(wordings)
                    totals[sense.group] += weight  # type: ignore[assignment]
                    for word in set(stems(wording.replace("{}", " "))):
                        counts[sense.group][word] += weight  # type: ignore[assignment]
        vocabulary_words = sorted({word for counter in counts.values() for word in counter})
        self._column = {word: at for at, word in enumerate(vocabulary_words)}
        self.share = np.zeros((len(self.groups), len(vocabulary_words)))  # (groups, words)
        for group, counter in counts.items():
            for word, number in counter.items():
                self.share[self.number[group], self._column[word]] = number / totals[group]
        self.background = self.share.mean(0)  # (words,)

    @classmethod
    @lru_cache(maxsize=1)
    def bundled(cls) -> RelationWords:
        return cls(bundled_vocabulary().extended(roundabout()))

    def knows(self, word: str) -> bool:
        """Whether a stem stands in any wording."""
        return word in self._column

    def shares(self, asked: Sequence[str]) -> Floats:
        """Share of each relation's wordings that have each stem, shape (groups, len(asked)); 0 for unknown ones."""
        out = np.zeros((len(self.groups), len(asked)))
        for at, word in enumerate(asked):
            if word in self._column:
                out[:, at] = self.share[:, self._column[word]]
        return out

    def backgrounds(self, asked: Sequence[str]) -> Floats:
        """Share of each stem over all relations, shape (len(asked),)."""
        return np.array([self.background[self._column[word]] if word in self._column else 0.0 for word in asked])

    def log_ratios(self, asked: Sequence[str]) -> Floats:
        """How much each stem speaks for each relation, shape (groups, len(asked)); 0 for stems that nobody knows."""
        return ratio(self.shares(asked), self.backgrounds(asked)) * weights_of(asked)

    def group_weights(self, wordings: Iterable[str], known: str | None = None) -> Floats:
        """Which relation a fact's own wordings say: a weight a group, adding up to 1, shape (groups,).

        Args:
            known: the group, where the relation is a known one.
        """
        if known is not None and known in self.number:
            out = np.zeros(len(self.groups))
            out[self.number[known]] = 1.0
            return out
        logits = np.zeros(len(self.groups))
        number = 0
        for wording in wordings:
            said = list(dict.fromkeys(stems(wording)))
            logits += self.log_ratios(said).sum(1)
            number += 1
        logits = logits / max(1, number)
        logits -= logits.max()
        weights: Floats = np.exp(logits)
        return weights / weights.sum()

    def fact_ratios(self, asked: Sequence[str], weights: Floats, own: Iterable[str]) -> Floats:
        """How much each stem speaks for one fact, shape (len(asked),).

        Args:
            weights: of the groups, from :meth:`group_weights`.
            own: the fact's own wordings; their words speak for it whatever its relation is.
        """
        share = weights @ self.shares(asked)
        mine = {word for wording in own for word in stems(wording)}
        background = self.backgrounds(asked)
        told = np.array([_OWN if word in mine else 0.0 for word in asked])
        return ratio(np.maximum(share, told), background) * weights_of(asked)


def weights_of(asked: Sequence[str]) -> Floats:
    """The weights of stems, shape (len(asked),)."""
    return np.array([weight(word) for word in asked])


def ratio(share: Floats, background: Floats) -> Floats:
    """Log ratio of shares to the background, within bounds; broadcasts."""
    out: Floats = np.clip(np.log((share + _SMOOTH) / (background + _SMOOTH)), LEAST, MOST)
    return out

"""Taking a multi-hop question apart from the inside, without a language model.

"What is the currency of the country where the Eiffel Tower stands?" has the entity *Eiffel Tower* in it. Around the
entity there is a smallest phrase that stands for another entity: *the country where the Eiffel Tower stands*. Once it
is known which fact that phrase means, the fact's object takes its place and the question has one hop less: "What is
the currency of Italy?". So a chain of any length is followed by one rule, and how many hops there are need not be
told. :func:`phrases` lists the candidate phrases around an entity; which one means a fact is judged by the scope head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from memory.scope import FILLER

_WORD = re.compile(r"'s\b|’s\b|[^\s]+?(?='s\b|’s\b)|[^\s]+")
_OPENERS = frozenset(("the", "a", "an", "that", "this", "its", "his", "her", "their"))
_POSSESSIVES = frozenset(("'s", "’s", "'", "’"))
_LEFT, _RIGHT = 16, 8  # words that a phrase may reach to the left and to the right of the entity
_NESTING_COST = 0.8  # taken off the logit for every further phrase that begins inside


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a question that may stand for the object of one fact about the entity in it."""

    start: int
    end: int
    wording: str  # as a question with the entity masked: "What is the country where it stands?"
    cost: float  # how much it is to be preferred less than a smaller one

    def replaced(self, question: str, name: str) -> str:
        """The question with the phrase's meaning in its place."""
        return f"{question[: self.start]}{name}{question[self.end :]}"


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    text: str


@lru_cache(maxsize=256)
def _tokens(text: str) -> tuple[_Token, ...]:
    return tuple(_Token(match.start(), match.end(), match.group()) for match in _WORD.finditer(text))


def phrases(question: str, start: int, end: int) -> Iterator[Phrase]:
    """Candidate phrases around the entity at ``question[start:end]``, smallest first.

    A phrase begins with an article left of the entity, or with the entity itself when a possessive follows, and ends
    at a word's end. The whole question is not among them.
    """
    start, end = _with_quotes(question, start, end)
    tokens = _tokens(question)
    inside = [at for at, token in enumerate(tokens) if token.start < end and token.end > start]
    if not inside:
        return
    first, last = inside[0], inside[-1]
    after = [tokens[at].end for at in range(last + 1, min(last + 1 + _RIGHT, len(tokens)))]
    own = question[tokens[last].end :].lstrip()[:2] in ("'s", "’s")
    begins = [first] if own else []
    begins += [at for at in range(first - 1, max(-1, first - _LEFT - 1), -1) if tokens[at].text.lower() in _OPENERS]
    for nesting, begin in enumerate(begins):
        for stop in [end, *after] if begin != first else after:
            piece = question[tokens[begin].start : stop].rstrip("?!.,;: ")
            stop = tokens[begin].start + len(piece)
            if stop < end or (begin == first and stop <= tokens[last].end + 2):
                continue
            left, right = question[tokens[begin].start : start], question[end:stop]
            if right.strip() in _POSSESSIVES or right.rstrip().endswith(tuple(_POSSESSIVES)):
                continue
            wording = f"What is {_lower(left)}{FILLER}{right}?"
            yield Phrase(tokens[begin].start, stop, " ".join(wording.split()), nesting * _NESTING_COST)


def _with_quotes(text: str, start: int, end: int) -> tuple[int, int]:
    """Takes quotation marks around a name into it."""
    while start > 0 and end < len(text) and text[start - 1] in "\"“‘'" and text[end] in "\"”’'":
        start, end = start - 1, end + 1
    return start, end


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


# "the X of the Y of ...", "the X of the Y where ...", "the X of Z's Y": a noun phrase inside a noun phrase
_NESTED = re.compile(
    r"\b(?:of|in|from|by|for|to|on|at)\s+(?:the|its|his|her)\s+[\w\s/-]{2,60}?"
    r"\b(?:of|where|in which|that|who|which|whose|by)\b"
    r"|\b(?:of|in|by|from|for)\s+[^?]{2,60}?(?:'s|’s)\s+\w+",
    re.IGNORECASE,
)


def looks_like_chain(query: str) -> bool:
    """Whether a question has a noun phrase inside a noun phrase, so that it takes several hops."""
    return _NESTED.search(query) is not None

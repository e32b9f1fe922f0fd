"""Finding subjects in a question: exactly, by alias, and nearly (a typo, a part of the name).

``subject_keys`` gives the keys that a question may be about, for a lookup in the table.
``locate`` says where in a question one given name stands, and how surely, so that it can be masked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from knowledge.text import normalise_key
from memory.lexicon import Lexicon

_WORD = re.compile(r"\S+")
_EDGE = "\"'“”‘’`()[]{}<>.,;:!?…-–—*_"
_POSSESSIVE = re.compile(r"(?:'s|’s|'|’)$", re.IGNORECASE)
_LONGEST = 12  # words of the longest name that is looked for
_NEAR = 0.5  # trigram similarity from which a name counts as nearly mentioned
# Words that are names now and then, but nearly always not; alone they count only with a capital inside a sentence.
_COMMON = frozenset(
    "a an and are as at be by can did do does for from had has have he her him his how i if in into is it its me my of "
    "on or our she so tell than that the their them then there they this to was we were what when where which who whom "
    "whose why will with would you your about after all any name known please know".split()
)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a name stands in a text."""

    start: int
    end: int
    quality: float  # 1 for the very name or an alias of it, else trigram similarity
    extended: bool = False  # a capitalised word next to it may belong to a longer, different name

    def mask(self, text: str, filler: str) -> str:
        return f"{text[: self.start]}{filler}{text[self.end :]}"


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str


@lru_cache(maxsize=512)
def _words(text: str) -> tuple[_Word, ...]:
    """Words with punctuation at their edges left out, spans into the text."""
    found = []
    for match in _WORD.finditer(text):
        raw = match.group()
        left = len(raw) - len(raw.lstrip(_EDGE))
        right = len(raw.rstrip(_EDGE))
        if right > left:
            found.append(_Word(match.start() + left, match.start() + right, raw[left:right]))
    return tuple(found)


@lru_cache(maxsize=512)
def _grams(text: str) -> dict[str, tuple[int, int]]:
    """Key of each word sequence to the span it came from; the possessive left out."""
    words = _words(text)
    grams: dict[str, tuple[int, int]] = {}
    for first in range(len(words)):
        for last in range(first, min(first + _LONGEST, len(words))):
            start, end = words[first].start, words[last].end
            raw = text[start:end]
            if first == last and raw.lower() in _COMMON and (first == 0 or not raw[0].isupper()):
                continue
            for piece in (raw, _POSSESSIVE.sub("", raw)):
                key = normalise_key(piece)
                if key and key not in grams:
                    grams[key] = (start, start + len(piece))
    return grams


def subject_keys(text: str, lexicon: Lexicon) -> list[str]:
    """Keys of all word sequences of a text that may name a subject, aliases of the world resolved too."""
    keys = dict.fromkeys(_grams(text))
    aliases = lexicon.alias_keys()
    return [*keys, *dict.fromkeys(aliases[key] for key in keys if key in aliases)]


def locate(text: str, name: str, aliases: Sequence[str] = ()) -> Span | None:
    """The best mention of a name (or of one of its other names), None where there is none.

    >>> locate("Who wrote hamlet?", "Hamlet")
    Span(start=10, end=16, quality=1.0, extended=False)
    """
    grams = _grams(text)
    best: tuple[int, int] | None = None
    for key in dict.fromkeys(normalise_key(each) for each in (name, *aliases)):
        span = grams.get(key)
        if span and (best is None or span[1] - span[0] > best[1] - best[0]):
            best = span
    if best is not None:
        return Span(best[0], best[1], 1.0, _extended(text, *best))
    return _nearly(text, name)


def _nearly(text: str, name: str) -> Span | None:
    """A window of the text that looks like the name: a typo, or most of its words."""
    key = normalise_key(name)
    wanted = _trigrams(key)
    size = len(key.split())
    words = _words(text)
    best: Span | None = None
    for length in range(1, min(size + 1, len(words)) + 1):
        for first in range(len(words) - length + 1):
            start, end = words[first].start, words[first + length - 1].end
            raw = _POSSESSIVE.sub("", text[start:end])
            if length == 1 and raw.lower() in _COMMON:
                continue
            given = _trigrams(normalise_key(raw))
            quality = 2 * len(wanted & given) / (len(wanted) + len(given))
            if quality >= _NEAR and (best is None or quality > best.quality):
                best = Span(start, start + len(raw), min(quality, 0.99), _extended(text, start, start + len(raw)))
    return best


@lru_cache(maxsize=8192)
def _trigrams(key: str) -> frozenset[str]:
    padded = f"  {key} "
    return frozenset(padded[at : at + 3] for at in range(len(padded) - 2))


def _extended(text: str, start: int, end: int) -> bool:
    """Whether a capitalised word stands right beside the span, as in "Paris" of "Paris Hilton"."""
    words = _words(text)
    for number, word in enumerate(words):
        if word.end <= start:
            gap = text[word.end : start]
            near = number + 1 < len(words) and words[number + 1].start >= start
            if near and number > 0 and gap.isspace() and _capitalised(word.text):
                return True
        elif word.start >= end:
            return text[end : word.start].isspace() and _capitalised(word.text)
    return False


def _capitalised(word: str) -> bool:
    return word[0].isupper() and word.lower() not in _COMMON and word != "I"

"""Finding subjects in a question: exactly, by alias, and nearly (a typo, a part of the name).

``subject_keys`` gives the keys that a question may be about, for a lookup in the table.
``locate`` says where in a question one given name stands, and how surely, so that it can be masked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from knowledge.text import normalise_key
from memory.lexicon import Lexicon

_WORD = re.compile(r"\S+")
_EDGE = "\"'“”‘’`()[]{}<>.,;:!?…-–—*_"
_POSSESSIVE = re.compile(r"(?:'s|’s|'|’)$", re.IGNORECASE)
_LONGEST = 12  # words of the longest name that is looked for
LAST_WORD = 0.7  # quality of the last word of a name standing alone
# Words that are names now and then, but nearly always not; alone they count only with a capital inside a sentence.
_COMMON_WORDS = """
    a an and are as at be by can did do does for from had has have he her him his how i if in into is it its me my
    of on or our she so tell than that the their them then there they this to was we were what when where which who
    whom whose why will with would you your about after all any name known please know
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Span:
    """Where a name stands in a text."""

    start: int
    end: int
    quality: float  # 1 for the very name or an alias of it, less for a typo or a part of it
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


def names_in(text: str, lexicon: Lexicon) -> list[str]:
    """Names of entities in a text, longest first: those that the lexicon knows, and runs of capitalised words.

    >>> names_in("Who founded Blorp Industries in Paris?", Lexicon.bundled())
    ['Blorp Industries', 'Paris']
    """
    known = [span for key, span in _grams(text).items() if key in lexicon.entities]
    spans = [span for span in known if text[span[0]].isupper() or not text[span[0]].isalpha()]
    run: list[_Word] = []
    for word in (*_words(text), None):
        opens = word is not None and (word.start == 0 or text[: word.start].rstrip()[-1:] in (".", "?", "!", ":"))
        if word is not None and _capitalised(word.text) and not opens:
            if run and not text[run[-1].end : word.start].isspace():
                spans.append((run[0].start, run[-1].end))
                run = []
            run.append(word)
        elif run:
            spans.append((run[0].start, run[-1].end))
            run = []
    longest: list[tuple[int, int]] = []
    for span in sorted(set(spans), key=lambda span: (span[0] - span[1], span[0])):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in longest):
            longest.append(span)
    return [_POSSESSIVE.sub("", text[start:end]) for start, end in longest]


def locate(text: str, name: str, aliases: Sequence[str] = (), known: Collection[str] = ()) -> Span | None:
    """The best mention of a name (or of one of its other names), None where there is none.

    Args:
        known: keys of other entities; a part of a longer known name is no mention ("Virginia" in "West Virginia"),
            and neither is a known name that only looks like this one ("Austria", "Australia").

    >>> locate("Who wrote hamlet?", "Hamlet")
    Span(start=10, end=16, quality=1.0, extended=False)
    """
    grams = _grams(text)
    keys = list(dict.fromkeys(normalise_key(each) for each in (name, *aliases)))
    others = [span for key, span in grams.items() if key in known and key not in keys]
    best: tuple[int, int] | None = None
    for key in keys:
        span = grams.get(key)
        if span is None or any(other[0] <= span[0] and span[1] <= other[1] and other != span for other in others):
            continue
        if best is None or span[1] - span[0] > best[1] - best[0]:
            best = span
    if best is not None:
        return Span(best[0], best[1], 1.0, _extended(text, *best))
    return _nearly(text, keys[0], others)


def _nearly(text: str, key: str, others: Sequence[tuple[int, int]]) -> Span | None:
    """A window of the text that is the name with a typo, or its last word alone ("Einstein")."""
    size = len(key.split())
    words = _words(text)
    best: Span | None = None
    for length in range(max(1, size - 1), min(size + 1, len(words)) + 1):
        for first in range(len(words) - length + 1):
            start, end = words[first].start, words[first + length - 1].end
            if any(start < other[1] and other[0] < end for other in others):
                continue
            raw = _POSSESSIVE.sub("", text[start:end])
            quality = _likeness(normalise_key(raw), key)
            if quality and (best is None or quality >= best.quality):  # the longer window, with its article
                best = Span(start, start + len(raw), quality, _extended(text, start, start + len(raw)))
    return best or _last_word(text, key, others)


def _last_word(text: str, key: str, others: Sequence[tuple[int, int]]) -> Span | None:
    parts = key.split()
    if len(parts) not in (2, 3) or len(parts[-1]) < 5 or not key.replace(" ", "").isalpha():
        return None
    for word in _words(text):
        raw = _POSSESSIVE.sub("", word.text)
        end = word.start + len(raw)
        if raw.casefold() != parts[-1] or not raw[0].isupper() or _extended(text, word.start, end):
            continue
        if not any(word.start < other[1] and other[0] < end for other in others):
            return Span(word.start, end, LAST_WORD)
    return None


def _likeness(given: str, wanted: str) -> float:
    """0.9 for one slip of the pen in a name of 5 letters or more, 0.8 for two in one of 12 or more, else 0."""
    length = len(wanted)
    allowed = 0 if length < 5 else 1 if length < 12 else 2
    if abs(len(given) - length) > allowed or not given or given[0] != wanted[0]:
        return 0.0
    distance = _distance(given, wanted, allowed)
    return 1 - 0.1 * distance if distance <= allowed else 0.0


def _distance(first: str, second: str, most: int) -> int:
    """Edit distance with neighbours swapped counting as one; anything over ``most`` is ``most + 1``."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        before, last, row = row, before, [i]
        for j, b in enumerate(second, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def _extended(text: str, start: int, end: int) -> bool:
    """Whether a capitalised word stands right beside the span, as in "Paris" of "Paris Hilton"."""
    words = _words(text)
    for number, word in enumerate(words):
        if word.end <= start:
            near = number + 1 < len(words) and words[number + 1].start >= start
            if near and number > 0 and text[word.end : start].isspace() and _capitalised(word.text):
                return True
        elif word.start >= end:
            return text[end : word.start].isspace() and _capitalised(word.text)
    return False


def _capitalised(word: str) -> bool:
    return word[0].isupper() and word.lower() not in _COMMON and word != "I"

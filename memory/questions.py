"""A multi-hop question as words around an entity: where a chain begins, what is asked for, in which order it nests.

English nests inwards: the words next to the entity say the first hop and the outermost words the last, on either side
of it ("the country whose citizen [the founder of] SpaceShipOne['s manufacturer] is").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from knowledge.text import normalise_key, squeeze
from knowledge.world import load_world
from memory.gate import Gate
from memory.mentions import Span, locate, names_in, subject_keys
from memory.relation_words import LIGHT, Floats, RelationWords, Word, stem, weight, words
from memory.view import visible

_FACTS = 4_000  # facts read for the names in a question
_CROSSING = 1.2  # cost of a word that stands out of order
_LONGEST = 2_000  # characters of a question that are looked at


@dataclass(frozen=True, slots=True)
class Start:
    """An entity of a question from which a path may begin."""

    key: str
    name: str
    span: Span
    known: bool  # memory has facts about it


@dataclass(frozen=True, slots=True)
class Reading:
    """A question as seen from one entity: its words without that entity, with their place."""

    question: str
    start: Start
    words: tuple[Word, ...]
    left: tuple[int, ...]  # numbers of the words left of the entity, nearest first
    right: tuple[int, ...]  # and right of it
    heads: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # of the words that say what is asked for
    strangers: int = 0  # proper names beside the entity that nobody knows
    kinds: frozenset[str] = frozenset()  # of things that may answer, where the question says so ("which country")
    kind_word: int | None = None  # number of the noun that says so

    @property
    def named_kinds(self) -> frozenset[str]:
        """The kinds that a noun of the question names ("which country"); empty for "who" and "where"."""
        if self.kind_word is None:
            return frozenset()
        word = self.words[self.kind_word]
        # "which state" may ask for one of several kinds of things
        vague = word.stem in OPENINGS or self.question[word.start : word.end].lower() == "state"
        return frozenset() if vague else self.kinds

    @property
    def stems(self) -> list[str]:
        return [word.stem for word in self.words]


class QuestionReader:
    """Finds the entities of questions and reads the words around them."""

    def __init__(self, gate: Gate, table: RelationWords | None = None) -> None:
        self.gate = gate
        self.table = table if table is not None else RelationWords.bundled()

    def starts(self, question: str, namespace: str) -> list[Start]:
        """Entities in the question that memory has facts about, none inside a longer name."""
        question = squeeze(question[:_LONGEST])
        store = self.gate.store
        facts = store.about(subject_keys(question, store.lexicon), visible(namespace), _FACTS)
        names = store.alias_table(facts, namespace)
        found: dict[str, Start] = {}
        for fact in facts:
            if fact.subject_key in found:
                continue
            span = locate(question, fact.subject, names[fact.subject_key])
            if span is not None and not cut_out(question, span):
                found[fact.subject_key] = Start(fact.subject_key, fact.subject, span, known=True)
        if not found:
            return self._nearly(question, namespace)
        return outermost(found.values())

    def entities(self, question: str, namespace: str) -> list[Start]:
        """Entities that a chain may begin at: those of :meth:`starts`, and those of the lexicon in the question."""
        known = self.starts(question, namespace)
        question = squeeze(question[:_LONGEST])
        lexicon = self.gate.store.lexicon
        world = load_world()
        named = []
        for name in (*names_in(question, lexicon), *subject_keys(question, lexicon)):
            span = locate(question, name)
            key = lexicon.entity_key(name)
            if key not in lexicon.entities or span is None or span.quality < 1 or cut_out(question, span):
                continue
            kinds = world.types_of(world.canonical(name) or name)
            if kinds:  # things that facts are about: not "English" or "red"
                named.append(Start(key, world.canonical(name) or name, span, known=False))
        return [*known, *(start for start in outermost(named) if start.key not in {one.key for one in known})]

    def _nearly(self, question: str, namespace: str) -> list[Start]:
        """Entities whose name is misspelt in the question: those of the nearest facts."""
        found: dict[str, Start] = {}
        facts = self.gate.candidates(question, 8, namespace)
        names = self.gate.store.alias_table(facts, namespace) if facts else {}
        for fact in facts:
            span = locate(question, fact.subject, names[fact.subject_key])
            whole = span is not None and span.quality >= 0.8 and not span.extended and not cut_out(question, span)
            if span is not None and whole and fact.subject_key not in found:
                found[fact.subject_key] = Start(fact.subject_key, fact.subject, span, known=True)
        return outermost(found.values())

    def read(self, question: str, start: Start) -> Reading:
        """The question's words around an entity."""
        question = squeeze(question[:_LONGEST])
        kept = [word for word in words(question) if word.end <= start.span.start or word.start >= start.span.end]
        kept = [word for word in kept if word.stem != "s"]  # the possessive
        left = [at for at, word in enumerate(kept) if word.end <= start.span.start]
        right = [at for at, word in enumerate(kept) if word.start >= start.span.end]
        strangers = self._strangers(question, kept)
        asked = heads(kept)
        owned = re.match(r"[\"”]?[’']s\s", question[start.span.end :]) is not None
        if owned and kept and kept[0].stem == "what":
            asked = ((), ())  # "What is the singer of X's job?": the singer's job, or X's job's singer
        kinds, noun = asked_kinds(question, kept)
        return Reading(question, start, tuple(kept), tuple(reversed(left)), tuple(right), asked, strangers, kinds, noun)

    def _strangers(self, question: str, kept: Sequence[Word]) -> int:
        """Proper names outside the entity: words with a capital that say no relation."""
        count = 0
        for number, word in enumerate(kept):
            raw = question[word.start : word.end]
            opens = word.start == 0 or question[: word.start].rstrip()[-1:] in (".", "?", "!", ":")
            if raw[:1].isupper() and not opens and not self.table.knows(word.stem) and number > 0:
                count += 1
        return count


_ASKING = frozenset(("what", "which", "where", "tell", "name", "whos"))
_LINKS = frozenset(("is", "are", "was", "has", "serv", "as", "the", "its", "a", "consi", "calle"))

# Nouns that say what kind of thing is asked for, with the kinds of objects of the world's relations that they mean.
_KINDS = {
    word: frozenset(kinds)
    for word, kinds in {
        "country": ("country",),
        "nation": ("country",),
        "state": ("country",),
        "land": ("country",),
        "city": ("city",),
        "town": ("city",),
        "continent": ("continent",),
        "currency": ("currency",),
        "language": ("language",),
        "sport": ("sport",),
        "planet": ("planet",),
        "university": ("university",),
        "institution": ("university",),
        "company": ("company",),
        "firm": ("company",),
        "industry": ("industry",),
        "sector": ("industry",),
        "movement": ("art movement",),
        "period": ("era of music",),
        "era": ("era of music",),
        "instrument": ("musical instrument",),
        "instrument family": ("instrument family",),
        "job": ("profession",),
        "profession": ("profession",),
        "occupation": ("profession",),
        "person": ("person", "performer"),
    }.items()
}
_PERSON = frozenset(("person", "performer"))
_PLACE = frozenset(("city", "country", "continent", "body of water", "university"))
OPENINGS = {stem("who"): _PERSON, stem("whom"): _PERSON, stem("where"): _PLACE}
_TOLD = frozenset(stem(word) for word in ("me", "idea", "know"))  # "tell me where", "any idea who"
_PREPOSITIONS = frozenset(stem(word) for word in ("with", "to", "by", "from", "for"))  # "with whom", only in front


def heads(kept: Sequence[Word]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the words that say what is asked for: the noun after "which", "what is the", "name the", and one
    that is said of it ("Which [city] serves as the [capital] of ...")."""
    asking = next((at for at, word in enumerate(kept) if word.stem in _ASKING and not _relative(kept, at)), None)
    if asking is None:
        return (), ()
    if kept[asking].stem == "what" and any(weight(word.stem) == 1 for word in kept[:asking]):
        return (), ()  # "By profession, what was the ..."
    first, end = _content(kept, asking + 1)
    linked = [word.stem for word in kept[end : end + 4]]
    gap = next((at for at, word in enumerate(linked) if word not in _LINKS), len(linked))
    second, _ = _content(kept, end + gap) if gap and kept[asking].stem == "which" else ((), 0)
    return first, second


def asked_kinds(question: str, kept: Sequence[Word]) -> tuple[frozenset[str], int | None]:
    """The kinds of things, in the world's words, that may answer a question, and the number of the word that says so.

    Nouns are compared whole, not by their stems: a county is no country.

    "Which country" and "what country" ask for a country, wherever they stand, and "as what" for a profession; "who"
    and "where" say something of the answer only where they open the question ("the city where ..." asks for nothing).
    """
    raw = [question[word.start : word.end].lower() for word in kept]
    for at, word in enumerate(kept):
        if word.stem == "what" and at and kept[at - 1].stem == "as":
            return frozenset(("profession",)), at
        if word.stem not in ("which", "what") or _relative(kept, at):
            continue
        noun = at + 1
        while noun < len(kept) and kept[noun].stem in _LINKS:
            noun += 1
        if noun > at + 1 and noun + 1 != len(kept):
            continue  # "what is the country whose ...": only at the end, "- what was the job?", is it what is asked for
        pair = " ".join(raw[noun : noun + 2])
        if " " in pair and pair in _KINDS:  # "which instrument family"
            return _KINDS[pair], noun + 1
        if noun < len(kept) and raw[noun] in _KINDS:
            return _KINDS[raw[noun]], noun
    for at, word in enumerate(kept):
        opens = at == 0 or kept[at - 1].stem in _TOLD or (at == 1 and kept[0].stem in _PREPOSITIONS)
        if word.stem in OPENINGS and opens:
            return OPENINGS[word.stem], at
    return frozenset(), None


def _relative(kept: Sequence[Word], at: int) -> bool:
    """Whether a "which" inside a question begins a clause ("to which the carrier belongs") and asks for nothing."""
    after = kept[at + 1].stem if at + 1 < len(kept) else ""
    return kept[at].stem == "which" and at > 1 and weight(after) == 0


def _content(kept: Sequence[Word], begin: int) -> tuple[tuple[int, ...], int]:
    """The next run of at most two words with content, and where it ends."""
    found: list[int] = []
    for number in range(begin, len(kept)):
        if weight(kept[number].stem) > LIGHT and len(found) < 2:
            found.append(number)
        elif found:
            return tuple(found), number
    return tuple(found), len(kept)


def in_order(rows: Floats, left: Sequence[int], right: Sequence[int]) -> float:
    """Best sum over an assignment of words to hops that nests: hops never fall when going outwards on either side.

    Args:
        rows: log ratios, shape (hops, words).
        left, right: numbers of the words on either side of the entity, nearest first.
    """
    out_of_order = rows.max(0) - _CROSSING
    worth = np.maximum(rows, out_of_order[None])
    best = np.full((len(left) + 1, len(right) + 1), -np.inf)
    best[0, 0] = 0.0
    for row in worth:
        from_left = np.concatenate(([0.0], np.cumsum(row[list(left)])))
        from_right = np.concatenate(([0.0], np.cumsum(row[list(right)])))
        both = from_left[:, None] + from_right[None]
        # best over (i', j') <= (i, j) of best[i', j'] + both[i, j] - both[i', j']
        reach = np.maximum.accumulate(np.maximum.accumulate(best - both, axis=0), axis=1)
        best = reach + both
    return float(best[-1, -1])


_QUOTED = re.compile(r"[\"“”]([^\"“”]+)[\"“”]")


def cut_out(question: str, span: Span) -> bool:
    """Whether a mention is only a part of a longer name: of a quotation, or of words with capitals.

    >>> cut_out('Who sang "Yesterday and Today"?', Span(10, 19, 1.0))
    True
    """
    for quotation in _QUOTED.finditer(question):
        if quotation.start(1) <= span.start and span.end <= quotation.end(1):
            inside = normalise_key(re.sub(r"[’']s$", "", quotation.group(1)))
            return normalise_key(question[span.start : span.end]) != inside
    return span.extended and not _known_beside(question, span)


def _known_beside(question: str, span: Span) -> bool:
    """Whether the capitals beside a mention are relation words ("Director Woody Allen") or open the question."""
    before = words(question[: span.start])[-1:]
    after = [word for word in words(question[span.end :])[:1] if question[span.end :][: word.start].isspace()]
    table = RelationWords.bundled()
    named = [question[word.start : word.end] for word in before] + [
        question[span.end + word.start : span.end + word.end] for word in after
    ]
    beside = [text for text in named if text[:1].isupper()]
    return all(table.knows(stem(text)) or weight(stem(text)) < 1 for text in beside)


def outermost(starts: Iterable[Start]) -> list[Start]:
    """Without those that lie inside the span of another."""
    every = list(starts)
    return [
        one
        for one in every
        if not any(
            other.span.start <= one.span.start
            and one.span.end <= other.span.end
            and other.span.end - other.span.start > one.span.end - one.span.start
            for other in every
        )
    ]


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

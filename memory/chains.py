"""Following a multi-hop question through the facts in memory, without a language model.

"What is the currency of the country where the Eiffel Tower stands?" names an entity that memory has facts about. Facts
are triples, so from that entity a path of facts can be followed; the question says which. Every word of the question
speaks more or less for every fact (:mod:`memory.relation_words`), and the path is taken whose facts together explain
the words best:

    score = sum over words of what the best fact of the path explains, in the order in which English nests
            - a cost for every hop, larger for a hop of which the question says nothing

English nests inwards: the words next to the entity say the first hop and the outermost words the last, on either side
of it ("the country whose citizen [the founder of] SpaceShipOne['s manufacturer] is"). How many hops there are need not
be told, and a hop that the question leaves out ("the CEO of Keynote" for the CEO of its developer) is found because the
words beyond it are explained only by going through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from knowledge.text import normalise_key, squeeze
from knowledge.world import load_world
from memory.gate import Gate, own_before_shared
from memory.mentions import Span, locate, names_in, subject_keys
from memory.relation_words import LIGHT, Floats, RelationWords, Word, stem, weight, words
from memory.schema import StoredFact
from memory.view import visible

MOST_HOPS = 6
_BEAM = 80  # partial paths kept a hop
_FINALISTS = 24  # paths whose words are put in order
_FACTS = 4_000  # facts read a hop
_HOP = 0.9  # cost of a hop that the question speaks of
_SILENT = 2.6  # cost of a hop of which it says nothing
_SPOKEN = 1.0  # log ratio from which a word counts as speaking of a hop
_CROSSING = 1.2  # cost of a word that stands out of order
_ASKED = 1.0  # weight of what is asked for being what the last hop says
_STRANGER = 6.0  # cost of a proper name that no hop and no entity accounts for
_ENOUGH = 1.0  # score from which a path may answer
_MISSING = 12.0  # log ratios of words that no hop explains, from which on it may not
_NAMES = 2_000  # longest question that is looked at, in characters


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

    @property
    def stems(self) -> list[str]:
        return [word.stem for word in self.words]


@dataclass(frozen=True, slots=True)
class Path:
    """Facts in a row, each about the object of the one before, with how well they explain a question."""

    reading: Reading
    facts: tuple[StoredFact, ...]
    score: float
    missing: float  # what the question says beyond it: log ratios of words that no hop explains
    spoken: tuple[bool, ...] = ()  # whether the question speaks of each hop
    asked: float = 0.0  # how far the last hop says what is asked for

    @property
    def complete(self) -> bool:
        """Whether the path explains the question so far that its end may be the answer."""
        return bool(self.facts) and self.score > _ENOUGH and self.missing < _MISSING and self.asked > 0


@dataclass(frozen=True, slots=True)
class _Partial:
    """A path on the way, with what its facts explain of each word and what its hops cost."""

    facts: tuple[StoredFact, ...]
    rows: Floats  # (hops, words)
    cover: Floats  # (words,)
    cost: float
    optimistic: float  # score without minding the order of the words


class ChainReader:
    """Finds the entities of questions, and the paths through memory that they describe.

    >>> ChainReader(gate).best("What is the capital of the country where the author of Emma was born?", "default")
    """

    def __init__(self, gate: Gate, table: RelationWords | None = None) -> None:
        self.gate = gate
        self.table = table if table is not None else RelationWords.bundled()
        self._group = {sense.id: sense.group for sense in self.table.vocabulary.senses if sense.subject_type}

    def best(self, question: str, namespace: str) -> Path | None:
        """The path that explains the question best; None where it names no entity that memory has facts about."""
        paths = [self.follow(self.read(question, start), namespace) for start in self.starts(question, namespace)]
        found = [path for path in paths if path.facts]
        return max(found, key=lambda path: path.score, default=None)

    # ------------------------------------------------------------------------------------------------ reading

    def starts(self, question: str, namespace: str) -> list[Start]:
        """Entities in the question that memory has facts about, none inside a longer name."""
        question = squeeze(question[:_NAMES])
        store = self.gate.store
        facts = store.about(subject_keys(question, store.lexicon), visible(namespace), _FACTS)
        names = store.alias_table(facts)
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
        question = squeeze(question[:_NAMES])
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

    def says(self, fact: StoredFact, relation: str) -> bool:
        """Whether a fact's relation is this one of the world, whatever it is called."""
        group = self._group.get(relation)
        if group is None or fact.relation in self._group:
            return fact.relation == relation or (group is not None and self._group.get(fact.relation or "") == group)
        own = [masked(fact.prompt, fact.subject), masked(fact.question, fact.subject)]
        weights = self.table.group_weights([text for text in own if text])
        return bool(weights[self.table.number[group]] > 0.4)

    def _nearly(self, question: str, namespace: str) -> list[Start]:
        """Entities whose name is misspelt in the question: those of the nearest facts."""
        found: dict[str, Start] = {}
        facts = self.gate.candidates(question, 8, namespace)
        names = self.gate.store.alias_table(facts) if facts else {}
        for fact in facts:
            span = locate(question, fact.subject, names[fact.subject_key])
            whole = span is not None and span.quality >= 0.8 and not span.extended and not cut_out(question, span)
            if span is not None and whole and fact.subject_key not in found:
                found[fact.subject_key] = Start(fact.subject_key, fact.subject, span, known=True)
        return outermost(found.values())

    def read(self, question: str, start: Start) -> Reading:
        """The question's words around an entity."""
        question = squeeze(question[:_NAMES])
        kept = [word for word in words(question) if word.end <= start.span.start or word.start >= start.span.end]
        kept = [word for word in kept if word.stem != "s"]  # the possessive
        left = [at for at, word in enumerate(kept) if word.end <= start.span.start]
        right = [at for at, word in enumerate(kept) if word.start >= start.span.end]
        strangers = self._strangers(question, kept)
        asked = heads(kept)
        owned = re.match(r"[\"”]?[’']s\s", question[start.span.end :]) is not None
        if owned and kept and kept[0].stem == "what":
            asked = ((), ())  # "What is the singer of X's job?": the singer's job, or X's job's singer
        return Reading(question, start, tuple(kept), tuple(reversed(left)), tuple(right), asked, strangers)

    def _strangers(self, question: str, kept: Sequence[Word]) -> int:
        """Proper names outside the entity: words with a capital that say no relation."""
        count = 0
        for number, word in enumerate(kept):
            raw = question[word.start : word.end]
            opens = word.start == 0 or question[: word.start].rstrip()[-1:] in (".", "?", "!", ":")
            if raw[:1].isupper() and not opens and not self.table.knows(word.stem) and number > 0:
                count += 1
        return count

    # ------------------------------------------------------------------------------------------------ following

    def follow(self, reading: Reading, namespace: str) -> Path:
        """The path from the reading's entity that explains its words best; one without facts where there is none."""
        asked = reading.stems
        partials = [_Partial((), np.zeros((0, len(asked))), np.full(len(asked), -np.inf), 0.0, 0.0)]
        done: list[_Partial] = []
        about: dict[str, tuple[list[StoredFact], Floats]] = {}
        rows: dict[tuple[str, ...], Floats] = {}
        for _ in range(MOST_HOPS):
            new = {end_of(partial.facts, reading.start.key) for partial in partials} - set(about)
            for key, facts in self.facts_by_key(new, namespace).items():
                about[key] = (facts, np.array([self.row(fact, asked, rows) for fact in facts]))
            partials = _grow(partials, about, reading.start.key)
            if not partials:
                break
            done += partials
        done.sort(key=lambda partial: -partial.optimistic)
        judged = [self._judge(partial, reading) for partial in done[:_FINALISTS]]
        return max(judged, key=lambda path: path.score, default=Path(reading, (), 0.0, 0.0))

    def facts_about(self, keys: set[str], namespace: str) -> list[StoredFact]:
        """Facts in force about entities, a namespace's own before the shared ones."""
        facts = list(self.gate.store.about(sorted(keys), visible(namespace), _FACTS))
        return own_before_shared(facts, namespace)

    def facts_by_key(self, keys: set[str], namespace: str) -> dict[str, list[StoredFact]]:
        """The same by the key that was asked for, which may be an alias of the subject."""
        found: dict[str, list[StoredFact]] = {key: [] for key in keys}
        facts = self.facts_about(keys, namespace) if keys else []
        others = [fact for fact in facts if fact.subject_key not in keys]
        names = self.gate.store.alias_table(others) if others else {}
        for fact in facts:
            if fact.subject_key in found:
                found[fact.subject_key].append(fact)
            for name in names.get(fact.subject_key, ()):
                key = normalise_key(name)
                if key in found and key != fact.subject_key:
                    found[key].append(fact)
        return found

    def row(self, fact: StoredFact, asked: Sequence[str], cache: dict[tuple[str, ...], Floats]) -> Floats:
        """How much each word of the question speaks for a fact, shape (words,); facts said alike share a row."""
        said = (fact.relation or "", masked(fact.prompt, fact.subject), masked(fact.question, fact.subject))
        if said not in cache:
            own = [text for text in said[1:] if text]
            label = said[0].replace("_", " ")
            if re.search(r"[a-z]{3}", label):  # a word, not the number of a relation
                own.append(label)
            weights = self.table.group_weights(own, self._group.get(said[0]))
            cache[said] = self.table.fact_ratios(asked, weights, own)
        return cache[said]

    def _costs(self, rows: Floats) -> tuple[float, tuple[bool, ...]]:
        """Cost of the hops, and which of them the question speaks of."""
        best = rows.max(0)
        spoken = tuple(bool(((row >= best - 1e-9) & (row >= _SPOKEN)).any()) for row in rows)
        return sum(_HOP if said else _SILENT for said in spoken), spoken

    def content(self, reading: Reading) -> float:
        """How much the question says beside its entity: log ratios of its words for whatever relation."""
        return float(self._loudest(reading).sum())

    def _loudest(self, reading: Reading) -> Floats:
        if not reading.words:
            return np.zeros(0)
        loudest: Floats = np.maximum(self.table.log_ratios(reading.stems).max(0), 0.0)
        return loudest

    def _judge(self, partial: _Partial, reading: Reading) -> Path:
        """The path's score with the order of the words minded."""
        costs, spoken = self._costs(partial.rows)
        cover = in_order(partial.rows, reading.left, reading.right)
        content = self._loudest(reading)
        missing = float(np.maximum(content - np.maximum(partial.cover, 0.0), 0.0).sum())
        score = cover - costs - _STRANGER * reading.strangers
        if not spoken[-1]:
            score -= _SILENT  # nobody asks for a hop without a word
        # What is asked for is what the last hop says, and no hop before it says so as well.
        last, before = partial.rows[-1], partial.rows[:-1].max(0, initial=0.0)
        first, second = (float((last - before)[list(part)].sum()) for part in reading.heads)
        score += _ASKED * (first + second / 2)
        asked = float(partial.rows[-1][list(reading.heads[0])].sum()) if reading.heads[0] else max(0.0, first) + 1.0
        return Path(reading, partial.facts, score, missing, spoken, asked)


_ASKING = frozenset(("what", "which", "where", "tell", "name", "whos"))
_LINKS = frozenset(("is", "are", "was", "has", "serv", "as", "the", "its", "a", "consi", "calle"))


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


def _grow(
    partials: Sequence[_Partial], about: dict[str, tuple[list[StoredFact], Floats]], start: str
) -> list[_Partial]:
    """The best paths one fact longer."""
    found: list[tuple[float, float, _Partial, int]] = []
    for partial in partials:
        facts, rows = about.get(end_of(partial.facts, start), ([], np.zeros(0)))
        if not facts:
            continue
        gone = {(fact.subject_key, fact.relation_key) for fact in partial.facts}
        spoken = ((rows > partial.cover) & (rows >= _SPOKEN)).any(1)
        costs = partial.cost + np.where(spoken, _HOP, _SILENT)
        scores = np.maximum(rows, partial.cover).sum(1) - costs
        for number, fact in enumerate(facts):
            if (fact.subject_key, fact.relation_key) not in gone:  # no circles
                found.append((float(scores[number]), float(costs[number]), partial, number))
    found.sort(key=lambda item: -item[0])
    longer = []
    for score, cost, partial, number in found[:_BEAM]:
        facts, rows = about[end_of(partial.facts, start)]
        row = rows[number]
        cover = np.maximum(partial.cover, row)
        longer.append(_Partial((*partial.facts, facts[number]), np.vstack((partial.rows, row)), cover, cost, score))
    return longer


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


def end_of(facts: Sequence[StoredFact], start: str) -> str:
    """Key of the entity where a path has arrived."""
    return facts[-1].object_key if facts else start


def masked(wording: str | None, subject: str) -> str:
    """A fact's wording without its subject."""
    if not wording:
        return ""
    return wording.replace("{}" if "{}" in wording else subject, " ")


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

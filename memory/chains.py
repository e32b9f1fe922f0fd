"""Following a multi-hop question through the facts in memory, without a language model.

"What is the currency of the country where the Eiffel Tower stands?" names an entity that memory has facts about. Facts
are triples, so from that entity a path of facts can be followed; the question says which. Every word of the question
speaks more or less for every fact (:mod:`memory.relation_words`), and the path is taken whose facts together explain
the words best:

    score = sum over words of what the best fact of the path explains, in the order in which English nests
            - a cost for every hop, larger for a hop of which the question says nothing

The number of hops need not be told, and a hop that the question leaves out ("the CEO of Keynote" for the CEO of its
developer) is found because the words beyond it are explained only by going through it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from knowledge.text import normalise_key
from memory.evidence import Evidence
from memory.gate import Gate, own_before_shared
from memory.questions import QuestionReader, Reading, in_order
from memory.relation_words import Floats, RelationWords
from memory.schema import StoredFact
from memory.tagger import RelationTagger
from memory.view import visible

MOST_HOPS = 6
_BEAM = 80  # partial paths kept a hop
_FINALISTS = 24  # paths whose words are put in order
_FACTS = 4_000  # facts read a hop
_HOP = 0.9  # cost of a hop that the question speaks of
_SILENT = 2.6  # cost of a hop of which it says nothing
_SPOKEN = 1.0  # log ratio from which a word counts as speaking of a hop
_ASKED = 1.0  # weight of what is asked for being what the last hop says
_STRANGER = 6.0  # cost of a proper name that no hop and no entity accounts for
_ENOUGH = 1.0  # score from which a path may answer
_MISSING = 12.0  # log ratios of words that no hop explains, from which on it may not


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


class ChainReader(QuestionReader):
    """Finds the paths through memory that questions describe.

    >>> ChainReader(gate).best("What is the capital of the country where the author of Emma was born?", "default")
    """

    def __init__(self, gate: Gate, table: RelationWords | None = None) -> None:
        super().__init__(gate, table)
        self.tagger = RelationTagger.shipped(gate.store.embedder)
        self._group = {sense.id: sense.group for sense in self.table.vocabulary.senses if sense.subject_type}

    def best(self, question: str, namespace: str) -> Path | None:
        """The path that explains the question best; None where it names no entity that memory has facts about."""
        paths = [self.follow(self.read(question, start), namespace) for start in self.starts(question, namespace)]
        found = [path for path in paths if path.facts]
        return max(found, key=lambda path: path.score, default=None)

    def says(self, fact: StoredFact, relation: str) -> bool:
        """Whether a fact's relation is this one of the world, whatever it is called."""
        group = self._group.get(relation)
        if group is None or fact.relation in self._group:
            return fact.relation == relation or (group is not None and self._group.get(fact.relation or "") == group)
        own = [masked(fact.prompt, fact.subject), masked(fact.question, fact.subject)]
        weights = self.table.group_weights([text for text in own if text])
        return bool(weights[self.table.number[group]] > 0.4)

    def evidence(self, reading: Reading) -> Evidence:
        """What the words of a question speak for."""
        return Evidence(self.table, reading, self.tagger)

    # ------------------------------------------------------------------------------------------------ following

    def follow(self, reading: Reading, namespace: str) -> Path:
        """The path from the reading's entity that explains its words best; one without facts where there is none."""
        asked, evidence = reading.stems, self.evidence(reading)
        partials = [_Partial((), np.zeros((0, len(asked))), np.full(len(asked), -np.inf), 0.0, 0.0)]
        done: list[_Partial] = []
        about: dict[str, tuple[list[StoredFact], Floats]] = {}
        rows: dict[tuple[str, ...], Floats] = {}
        for _ in range(MOST_HOPS):
            new = {end_of(partial.facts, reading.start.key) for partial in partials} - set(about)
            for key, facts in self.facts_by_key(new, namespace).items():
                about[key] = (facts, np.array([self.row(fact, evidence, rows) for fact in facts]))
            partials = _grow(partials, about, reading.start.key)
            if not partials:
                break
            done += partials
        done.sort(key=lambda partial: -partial.optimistic)
        content = self._loudest(evidence)
        judged = [self._judge(partial, reading, evidence, content) for partial in done[:_FINALISTS]]
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
        names = self.gate.store.alias_table(others, namespace) if others else {}
        for fact in facts:
            if fact.subject_key in found:
                found[fact.subject_key].append(fact)
            for name in names.get(fact.subject_key, ()):
                key = normalise_key(name)
                if key in found and key != fact.subject_key:
                    found[key].append(fact)
        return found

    def row(self, fact: StoredFact, evidence: Evidence, cache: dict[tuple[str, ...], Floats]) -> Floats:
        """How much each word of the question speaks for a fact, shape (words,); facts said alike share a row."""
        said = (fact.relation or "", masked(fact.prompt, fact.subject), masked(fact.question, fact.subject))
        if said not in cache:
            own = [text for text in said[1:] if text]
            label = said[0].replace("_", " ")
            if re.search(r"[a-z]{3}", label):  # a word, not the number of a relation
                own.append(label)
            weights = self.table.group_weights(own, self._group.get(said[0]))
            cache[said] = evidence.fact_ratios(weights, own)
        return cache[said]

    def _costs(self, rows: Floats) -> tuple[float, tuple[bool, ...]]:
        """Cost of the hops, and which of them the question speaks of."""
        best = rows.max(0)
        spoken = tuple(bool(((row >= best - 1e-9) & (row >= _SPOKEN)).any()) for row in rows)
        return sum(_HOP if said else _SILENT for said in spoken), spoken

    def content(self, reading: Reading) -> float:
        """How much the question says beside its entity: log ratios of its words for whatever relation."""
        return float(self._loudest(self.evidence(reading)).sum())

    @staticmethod
    def _loudest(evidence: Evidence) -> Floats:
        if not evidence.asked:
            return np.zeros(0)
        loudest: Floats = np.maximum(evidence.log_ratios().max(0), 0.0)
        return loudest

    def _judge(self, partial: _Partial, reading: Reading, evidence: Evidence, content: Floats) -> Path:
        """The path's score with the order of the words minded."""
        costs, spoken = self._costs(partial.rows)
        cover = in_order(partial.rows, reading.left, reading.right)
        missing = float(np.maximum(content - np.maximum(partial.cover, 0.0), 0.0).sum())
        score = cover - costs - _STRANGER * reading.strangers
        if not spoken[-1]:
            score -= _SILENT  # nobody asks for a hop without a word
        # What is asked for is what the last hop says, and no hop before it says so as well.
        last, before = partial.rows[-1], partial.rows[:-1].max(0, initial=0.0)
        ends = evidence.ends_right(last, before, reading.heads)
        score += _ASKED * ends
        asked = evidence.says_what_is_asked(last, reading.heads)
        return Path(reading, partial.facts, score, missing, spoken, asked)


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


def end_of(facts: Sequence[StoredFact], start: str) -> str:
    """Key of the entity where a path has arrived."""
    return facts[-1].object_key if facts else start


def masked(wording: str | None, subject: str) -> str:
    """A fact's wording without its subject."""
    if not wording:
        return ""
    return wording.replace("{}" if "{}" in wording else subject, " ")

"""Reading a multi-hop question as a chain of relations, without looking at any facts.

Where memory does not hold every hop, the language model is asked for the missing ones, so the chain has to be read off
the question alone: "What is the currency of the country where the Eiffel Tower stands?" is *located in*, *country*,
*currency* from the tower outwards. Candidates are sequences of the world's relations in which each goes on from the
kind of thing that the one before ends at; they are scored by how well they explain the words, as paths of facts are
(:mod:`memory.chains`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from knowledge.relations import Relation
from knowledge.world import load_world
from memory.evidence import Evidence
from memory.questions import Reading, in_order
from memory.relation_words import LIGHT, Floats, stem, weight

_LONGEST = 5
_BEAM = 60
_FINALISTS = 20
_HOP = 1.5  # cost of a relation in the chain
_SPOKEN = 0.8  # log ratio from which a word counts as saying a relation; a chain has no silent ones
_NAMED = 1.5  # log ratio of "country" in "which country" for whatever relation ends at a country
_WRONG_KIND = 6.0  # cost of ending at another kind of thing than the question asks for
_OWN = 0.5  # by which the last hop explains some word better than those before it
_IMPLIED = 2  # relations that a question may leave unsaid
ENOUGH = 3.0  # score from which a chain is believed


# A place lies in another and has what that has; an author's birthplace is not his book's.
_SPATIAL = frozenset(("city", "country", "continent", "currency", "language", "code"))
_BEING_THERE = frozenset(
    stem(word) for word in "stands located situated found lies used spoken belongs part today paid placed built".split()
)
# Kinds of objects that go on under another name as subjects.
_AS_SUBJECT = {
    "performer": ("band", "person"),
    "musical instrument": ("instrument",),
    "planet": ("planet", "discovery"),
}


@dataclass(frozen=True, slots=True)
class RelationChain:
    """Relations from the entity outwards, with how well they explain the question."""

    relations: tuple[Relation, ...]
    score: float
    fits: bool = True  # it ends at the kind of thing that the question asks for


def read_relations(reading: Reading, relations: Mapping[str, Relation], evidence: Evidence) -> RelationChain | None:
    """The chain of relations that explains the question best; None where none does well enough.

    Args:
        relations: those that may be asked for, by id.
        evidence: what the words of this reading speak for.
    """
    asked = reading.stems
    known = list(relations.values())
    if not known or not asked:
        return None
    group = {sense.id: sense.group for sense in evidence.table.vocabulary.senses if sense.subject_type}
    rows = np.array([_row(relation, evidence, group.get(relation.id)) for relation in known])
    last = _asked_for(rows, known, reading)
    spoken, spoken_last = np.asarray((rows >= _SPOKEN).any(1)), np.asarray((last >= _SPOKEN).any(1))
    world = load_world()
    tables = world.types_of(world.canonical(reading.start.name) or reading.start.name)
    kinds = tuple(kind.replace("_", " ") for kind in tables)
    beam: list[tuple[float, tuple[int, ...], Floats]] = [(0.0, (), np.full(len(asked), -np.inf))]
    done: list[tuple[float, tuple[int, ...], Floats]] = []
    for _ in range(_LONGEST):
        grown = []
        for _, chain, cover in beam:
            ends = known[chain[-1]].object_type if chain else ""
            fits = kinds if not chain else _AS_SUBJECT.get(ends, (ends,))
            for number, relation in enumerate(known):
                if (fits and relation.subject_type not in fits) or number in chain:
                    continue
                longer = (*chain, number)
                if spoken_last[number]:
                    wider = np.maximum(cover, last[number])
                    done.append((float(wider.sum()) - _HOP * len(longer), longer, wider))
                if spoken[number]:
                    wider = np.maximum(cover, rows[number])
                    grown.append((float(wider.sum()) - _HOP * len(longer), longer, wider))
        grown.sort(key=lambda item: -item[0])
        beam = grown[:_BEAM]
    done.sort(key=lambda item: -item[0])
    best: RelationChain | None = None
    for _, chain, _ in done[:_FINALISTS]:
        fitting = not reading.kinds or known[chain[-1]].object_type in reading.kinds
        steps = np.concatenate((rows[list(chain[:-1])], last[[chain[-1]]]))
        score = _score(steps, reading, evidence) - (0.0 if fitting else _WRONG_KIND)
        found = RelationChain(tuple(known[number] for number in chain), score, fitting)
        if found.score >= ENOUGH and (best is None or found.score > best.score):
            best = found
    return best


def implied(reading: Reading, first: Relation, relations: Mapping[str, Relation]) -> RelationChain | None:
    """A relation that ends at a place, and from there the only shortest way to the kind of thing that is named.

    "Which country is the Eiffel Tower in?" says no relation of a tower; with a fact about its city it means the
    city's country. None where the entity has a relation of its own that ends there (a person's citizenship), where
    there are several ways, where the question names no kind, or where it says more than being there ("set in").
    """
    wanted = reading.named_kinds
    told = [word.stem for at, word in enumerate(reading.words) if at != reading.kind_word and weight(word.stem) > LIGHT]
    if first.object_type not in _SPATIAL or not set(told) <= _BEING_THERE:
        return None
    world, known = load_world(), tuple(relations.values())
    tables = world.types_of(world.canonical(reading.start.name) or reading.start.name)
    kinds = {kind.replace("_", " ") for kind in tables} | {first.subject_type}
    if not wanted or any(r.subject_type in kinds and r.object_type in wanted for r in known):
        return None
    ways: list[tuple[Relation, ...]] = [(first,)]
    for _ in range(_IMPLIED):
        ways = [
            (*way, relation)
            for way in ways
            for relation in known
            if relation.subject_type in _AS_SUBJECT.get(way[-1].object_type, (way[-1].object_type,))
            and relation.object_type in _SPATIAL
            and relation not in way
        ]
        ends = [way for way in ways if way[-1].object_type in wanted]
        if ends:
            return RelationChain(ends[0], ENOUGH) if len(ends) == 1 else None
    return None


def _asked_for(rows: Floats, known: list[Relation], reading: Reading) -> Floats:
    """The rows for the last hop: "country" in "which country" speaks for every relation that ends at a country.

    The word is said of cities, islands, dishes and people alike, so by itself it says little for any one relation;
    which one is meant follows from what the chain has come to.
    """
    out = rows.copy()
    if reading.kind_word is not None:
        ends = [number for number, relation in enumerate(known) if relation.object_type in reading.kinds]
        out[ends, reading.kind_word] = np.maximum(out[ends, reading.kind_word], _NAMED)
    return out


def _score(rows: Floats, reading: Reading, evidence: Evidence) -> float:
    before = rows[:-1].max(0, initial=0.0)
    if (rows[-1] - before).max() < _OWN:
        return -np.inf  # nothing in the question says the last hop
    ends = evidence.ends_right(rows[-1], before, reading.heads)
    return in_order(rows, reading.left, reading.right) - _HOP * len(rows) + ends


def _row(relation: Relation, evidence: Evidence, group: str | None) -> Floats:
    own = [relation.label, relation.cloze[0], relation.question[0], *relation.noun[:4]]
    masked = [text.replace("{}", " ") for text in own]
    return evidence.fact_ratios(evidence.table.group_weights(masked, group), masked)

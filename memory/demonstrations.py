"""Worked examples for IKE, made from the bundled world and chosen by the same encoder that finds the facts.

For a stored fact, the relations of the world that are said most like it are looked up; other subjects of these
relations then serve as examples of copying a new fact, of answering a paraphrase of it, and of keeping an answer that
the new fact does not concern.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from knowledge.relations import Relation, fill
from language_model.prompts import Demonstration
from memory.embedder import Embedder, Vectors
from memory.products import product
from memory.schema import StoredFact

_RATIO = {"copy": 1, "update": 3, "retain": 4}  # 2305.12740, section 3.2
_RELATIONS = 4  # nearest relations that examples are drawn from


class Demonstrations:
    """Examples from a world of facts."""

    def __init__(self, world: Any, embedder: Embedder) -> None:
        self.world = world
        self.embedder = embedder
        self._vectors: Vectors | None = None
        self._relations: list[Relation] = [
            relation for relation in world.relations.values() if len(world.by_relation.get(relation.id, ())) >= 8
        ]

    @classmethod
    def bundled(cls, embedder: Embedder) -> Demonstrations:
        return _bundled(embedder)

    def near(
        self, fact: StoredFact, number: int, kinds: Sequence[str] = ("copy", "update", "retain")
    ) -> list[Demonstration]:
        """At most ``number`` examples for a fact, the nearest relation's last, always the same for the same fact."""
        if not kinds or not self._relations:
            return []
        relations = self._nearest(fact)
        plan = _plan(number, kinds)
        rng = random.Random(fact.statement)
        made = [self._make(kind, relations[at % len(relations)], fact, rng) for at, kind in enumerate(plan)]
        made.reverse()
        return [example for example in made if example is not None]

    def _nearest(self, fact: StoredFact) -> list[Relation]:
        known = [relation for relation in self._relations if relation.id == fact.relation]
        if self._vectors is None:
            self._vectors = self.embedder.encode([fill(relation.cloze[0], "it") for relation in self._relations])
        template = (fact.prompt or fact.statement).replace("{}", "it")
        scores = product(self._vectors, self.embedder.query(template)[0])
        order = [self._relations[int(at)] for at in np.argsort(-scores)]
        return list({relation.id: relation for relation in (*known, *order)}.values())[:_RELATIONS]

    def _make(self, kind: str, relation: Relation, fact: StoredFact, rng: random.Random) -> Demonstration | None:
        facts = [item for item in self.world.by_relation[relation.id] if item.subject != fact.subject]
        objects = self.world.objects_of_relation[relation.id]
        shown = rng.choice(facts)
        others = [name for name in objects if name != shown.object]
        if not others:
            return None
        new = rng.choice(others)
        statement = relation.state(shown.subject, new)
        if kind == "copy":
            return Demonstration((statement,), relation.ask(shown.subject), new)
        if kind == "update":
            return Demonstration((statement,), fill(rng.choice(relation.question), shown.subject), new)
        # retain: half another subject of the relation, half another relation of the subject
        siblings = [item for item in self.world.facts_of(shown.subject) if item.relation != relation.id]
        kept = rng.choice(siblings) if siblings and rng.random() < 0.5 else rng.choice(facts)
        if kept == shown:
            return None
        other = self.world.relations[kept.relation]
        return Demonstration((statement,), fill(rng.choice(other.question), kept.subject), kept.object)


def _plan(number: int, kinds: Sequence[str]) -> list[str]:
    """Kinds in the paper's ratio, spread evenly, for instance copy, retain, update, retain, ..."""
    total = sum(_RATIO[kind] for kind in kinds)
    due = dict.fromkeys(kinds, 0.0)
    plan: list[str] = []
    for _ in range(number):
        for kind in kinds:
            due[kind] += _RATIO[kind] / total
        chosen = max(kinds, key=lambda kind: due[kind])
        due[chosen] -= 1
        plan.append(chosen)
    return plan


@lru_cache(maxsize=2)
def _bundled(embedder: Embedder) -> Demonstrations:
    from knowledge.world import load_world

    return Demonstrations(load_world(), embedder)

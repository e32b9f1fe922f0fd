"""What hypernetworks are trained on: counterfactual edits of the bundled world, reworded, beside facts that must stay.

    lessons = Lessons(load_world(), seed=0)
    lessons.draw(step=17, count=16)                    # the same step gives the same lessons, so training can go on
    Lessons(load_world(), held_out=True)               # subjects and wordings that training never sees

Any model can be trained on them: what must stay is what the model itself says, right or wrong.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from knowledge.edit import Edit, Fact
from knowledge.relations import Relation
from knowledge.world import World


@dataclass(frozen=True)
class Lesson:
    """One edit to learn from.

    Attributes:
        edit: the request.
        reworded: the same fact asked otherwise; the edit has to hold there.
        stay: facts whose answers must not change: another relation of the subject, the relation of another subject,
            something unrelated.
    """

    edit: Edit
    reworded: tuple[Edit, ...]
    stay: tuple[Edit, ...]


class Lessons:
    """An endless source of lessons.

    Args:
        held_out: draw subjects (one in ten, by a hash of the name) and wordings that training never sees.
        seed: of the draw.
    """

    def __init__(self, world: World, *, held_out: bool = False, seed: int = 0) -> None:
        self.world, self.held_out, self.seed = world, held_out, seed
        self.relations = [
            relation
            for relation in world.relations.values()
            if len(world.objects_of_relation.get(relation.id, ())) > 1 and relation.functional
        ]
        self.facts = {
            relation.id: [fact for fact in world.by_relation[relation.id] if is_held_out(fact.subject) == held_out]
            for relation in self.relations
        }
        self.relations = [relation for relation in self.relations if self.facts[relation.id]]

    def draw(self, step: int, count: int) -> list[Lesson]:
        """The lessons of one step of training; no two of them ask the same of the same subject."""
        rng = random.Random(f"{self.seed}|{self.held_out}|{step}")
        found: dict[tuple[str, str], Lesson] = {}
        while len(found) < count:
            relation = rng.choice(self.relations)
            fact = rng.choice(self.facts[relation.id])
            found.setdefault((fact.subject, relation.id), self._lesson(rng, relation, fact))
        return list(found.values())

    def _lesson(self, rng: random.Random, relation: Relation, fact: Fact) -> Lesson:
        target = rng.choice([item for item in self.world.objects_of_relation[relation.id] if item != fact.object])
        edit = self.worded(rng, relation, replace_object(fact, target), unseen=False, true=fact.object)
        if not self.held_out and rng.random() < 0.2:  # some requests come without a question
            edit = replace(edit, question=None)
        reworded = self.worded(rng, relation, replace_object(fact, target), unseen=self.held_out, true=fact.object)
        return Lesson(edit, (reworded,), tuple(self._stay(rng, relation, fact)))

    def _stay(self, rng: random.Random, relation: Relation, fact: Fact) -> list[Edit]:
        others = [item for item in self.world.facts_of(fact.subject) if item.relation != relation.id]
        chosen = [rng.choice(others)] if others else []
        neighbours = [item for item in self.world.by_relation[relation.id] if item.subject != fact.subject]
        chosen += [rng.choice(neighbours)] if neighbours else []
        far = rng.choice(self.relations)
        chosen.append(rng.choice(self.world.by_relation[far.id]))
        chosen = [item for item in chosen if (item.subject, item.relation) != (fact.subject, fact.relation)]
        return [self.worded(rng, self.world.relations[item.relation], item, unseen=False) for item in chosen]

    def worded(
        self, rng: random.Random, relation: Relation, fact: Fact, *, unseen: bool, true: str | None = None
    ) -> Edit:
        """A fact in one of the relation's wordings."""
        clozes = _only_subject(relation.cloze_unseen if unseen and relation.cloze_unseen else relation.cloze)
        questions = relation.question_unseen if unseen and relation.question_unseen else relation.question
        question = rng.choice(questions).replace("{}", fact.subject)
        return Edit(rng.choice(clozes), fact.subject, fact.object, true, relation.id, question)


def is_held_out(subject: str) -> bool:
    """One subject in ten, for ever the same ones."""
    return hashlib.sha256(subject.encode()).digest()[0] % 10 == 0


def replace_object(fact: Fact, target: str) -> Fact:
    return Fact(fact.subject, fact.relation, target)


def _only_subject(clozes: Sequence[str]) -> list[str]:
    return [cloze for cloze in clozes if cloze.count("{}") == 1]

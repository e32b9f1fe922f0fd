"""Questions that tell whether an edit worked, made out of its relation.

    probes = probes_for(world.edit("Eiffel Tower", "located_in", "Rome"), world)
    probes.of("efficacy")[0]      # Probe(prompt="Where is the Eiffel Tower?", expected="Rome", must_change=True)

| kind                | asks                                                   | expected                              |
| ------------------- | ------------------------------------------------------ | ------------------------------------- |
| efficacy            | the edit's own wording, as cloze and as question       | the new object                        |
| generality          | other wordings, half of them never trained on          | the new object                        |
| locality_neighbour  | the relation of other subjects                         | the world's object                    |
| locality_relation   | other relations of the subject                         | the world's object                    |
| locality_unrelated  | other relations of other subjects                      | the world's object                    |
| portability_alias   | the relation, of the subject by another name           | the new object                        |
| portability_onehop  | a relation of the new object, through the edited one   | what the world says of the new object |
| portability_inverse | who or what has the new object (one-to-one relations)  | the subject                           |

The definitions are those of KnowEdit and RippleEdits; the choice is random, and the same for the same seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from knowledge.edit import Edit, Fact
from knowledge.relations import Relation, fill
from knowledge.text import normalise_key
from knowledge.world import World

Kind = Literal[
    "efficacy",
    "generality",
    "locality_neighbour",
    "locality_relation",
    "locality_unrelated",
    "locality_forgetfulness",  # the other objects of a relation that has several; comes with data sets only
    "portability_alias",
    "portability_onehop",
    "portability_inverse",
]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
# Relations whose object has one subject by nature, so that the inverse has one answer. Not counted from the facts:
# where the world happens to have one landmark a city, a city still has many.
ONE_TO_ONE = frozenset({"capital", "state_capital", "calling_code", "chemical_symbol", "atomic_number"})
# Wordings for a relation that the world does not have and that a noun names.
_NOUN_QUESTIONS = (
    "What is the [noun] of {}?",
    "What is {}'s [noun]?",
    "Tell me the [noun] of {}.",
    "Do you know the [noun] of {}?",
    "Name the [noun] of {}.",
    "Can you tell me {}'s [noun]?",
    "I'd like to know the [noun] of {}.",
)
_NOUN_CLOZES = ("The [noun] of {} is", "{}'s [noun] is", "As for the [noun] of {}, it is", "The name of {}'s [noun] is")
METRICS = ("efficacy", "generality", "locality", "portability")


def metric_of(kind: str) -> str:
    """The measure that a kind of probe counts towards: "locality_neighbour" towards "locality"."""
    return kind.partition("_")[0]


@dataclass(frozen=True, slots=True)
class Probe:
    """One question."""

    kind: Kind
    prompt: str  # asked in the chat form
    cloze: str | None  # the same as a beginning to be completed, where the relation has one
    expected: str | None  # None: whatever the unedited model answers
    aliases: tuple[str, ...] = ()  # other names that are right too
    must_change: bool = False  # True where the right answer is not the one from before the edit
    source: str = ""  # the relation or wording it comes from
    form: Literal["chat", "completion"] = "chat"  # completion: the cloze itself is what is asked
    true: str | None = None  # what the world says without the edit, to compare probabilities with

    @property
    def metric(self) -> str:
        return metric_of(self.kind)

    @property
    def text(self) -> str:
        """What is asked, in the probe's own form."""
        return self.cloze if self.form == "completion" and self.cloze else self.prompt

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"aliases": list(self.aliases)}


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """An edit with its probes."""

    edit: Edit
    probes: tuple[Probe, ...]

    def of(self, kind: str) -> tuple[Probe, ...]:
        """The probes of a kind, or of all kinds of a measure ("locality")."""
        return tuple(probe for probe in self.probes if kind in (probe.kind, probe.metric))

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many probes of each kind at most."""

    generality: int = 6
    neighbour: int = 6
    relation: int = 4
    unrelated: int = 4
    alias: int = 2
    onehop: int = 3
    inverse: int = 1


DEFAULT_AMOUNTS = Amounts()


def probes_for(edit: Edit | Fact, world: World, *, seed: int = 0, amounts: Amounts = DEFAULT_AMOUNTS) -> ProbeSet:
    """The probes of an edit. A fact of the world counts as the request to make the model say it.

    An edit whose relation or subject the world does not have is probed by what there is: its own prompt and question,
    and unrelated facts; where the world cannot say what is right, "as before" is expected.
    """
    if isinstance(edit, Fact):
        edit = world.edit(edit.subject, edit.relation, edit.object)
    rng = random.Random(f"{seed}|{edit.prompt}|{edit.subject}|{edit.target_new}")
    return ProbeSet(edit, tuple(_Maker(edit, world, rng, amounts).all()))


class _Maker:
    def __init__(self, edit: Edit, world: World, rng: random.Random, amounts: Amounts) -> None:
        self.edit, self.world, self.rng, self.amounts = edit, world, rng, amounts
        self.relation: Relation | None = world.relations.get(edit.relation or "")
        self.subject = world.canonical(edit.subject) or edit.subject
        self.object = world.canonical(edit.target_new) or edit.target_new
        self.others = tuple(dict.fromkeys((*edit.aliases, *world.aliases_of(self.object), self.object)))
        true = world.objects(self.subject, edit.relation or "")
        self.true = edit.target_true or (true[0] if true else None)

    def all(self) -> Iterator[Probe]:
        yield from self._efficacy()
        relation = self.relation
        if relation is not None:
            unseen = relation.question_unseen, relation.cloze_unseen
            yield from self._generality(relation.question, relation.cloze, *unseen)
            yield from self._neighbours(relation)
        elif self.edit.relation and self.edit.relation.casefold() in self.edit.prompt.casefold():  # a noun: "CEO"
            words = [wording.replace("[noun]", self.edit.relation) for wording in _NOUN_QUESTIONS]
            clozes = [wording.replace("[noun]", self.edit.relation) for wording in _NOUN_CLOZES]
            yield from self._generality(words, clozes)
        yield from self._other_relations()
        yield from self._unrelated()
        if relation is not None:
            yield from self._aliases(relation)
            yield from self._onehop(relation)
            yield from self._inverse(relation)

    def _asking(self, kind: Kind, question: str, cloze: str | None, source: str, form: str = "chat") -> Probe:
        return Probe(kind, question, cloze, self.edit.target_new, self.others, True, source, form, self.true)  # type: ignore[arg-type]

    def _efficacy(self) -> Iterator[Probe]:
        question = self.edit.question or (self.relation.ask(self.edit.subject) if self.relation else None)
        cloze = fill(self.edit.prompt, self.edit.subject)
        if question:
            yield self._asking("efficacy", question, cloze, "question")
        yield self._asking("efficacy", question or cloze, cloze, self.edit.prompt, "completion")

    def _generality(
        self,
        questions: Sequence[str],
        clozes_: Sequence[str],
        questions_unseen: Sequence[str] = (),
        clozes_unseen: Sequence[str] = (),
    ) -> Iterator[Probe]:
        name = self.edit.subject
        asked = self.edit.question or (self.relation.ask(name) if self.relation else "")
        own = {normalise_key(asked), normalise_key(self.edit.prompt)}

        def fresh(wordings: Sequence[str], count: int) -> list[str]:
            kept = [w for w in wordings if not {normalise_key(w), normalise_key(fill(w, name))} & own]
            return self.rng.sample(kept, min(count, len(kept)))

        wanted = self.amounts.generality
        half = wanted // 2 if questions_unseen else wanted
        seen, unseen = fresh(questions, half), fresh(questions_unseen, wanted - half)
        clozes = fresh(clozes_, half) + fresh(clozes_unseen, wanted - half)
        for number, wording in enumerate(seen + unseen):
            cloze = fill(clozes[number], name) if number < len(clozes) else None
            yield self._asking("generality", fill(wording, name), cloze, wording)

    def _kept(self, kind: Kind, fact: Fact) -> Probe:
        """A probe of a fact of the world that must stay as it is."""
        relation = self.world.relations[fact.relation]
        true = self.world.objects(fact.subject, fact.relation)
        names = tuple(dict.fromkeys(name for obj in true for name in (obj, *self.world.aliases_of(obj))))
        cloze = fill(relation.cloze[0], fact.subject)
        return Probe(kind, relation.ask(fact.subject), cloze, fact.object, names, False, relation.id, true=fact.object)

    def _neighbours(self, relation: Relation) -> Iterator[Probe]:
        """Other subjects; first those that share the old object, which an edit disturbs most (2202.05262, 5.2)."""
        new = normalise_key(self.object)
        facts = [
            fact
            for fact in self.world.by_relation.get(relation.id, ())
            if fact.subject != self.subject and normalise_key(fact.object) != new
        ]
        same = [fact for fact in facts if self.true is not None and fact.object == self.true]
        near = self.rng.sample(same, min(self.amounts.neighbour // 2, len(same)))
        rest = [fact for fact in facts if fact not in near]
        for fact in near + self.rng.sample(rest, min(self.amounts.neighbour - len(near), len(rest))):
            yield self._kept("locality_neighbour", fact)

    def _other_relations(self) -> Iterator[Probe]:
        facts = [fact for fact in self.world.facts_of(self.subject) if fact.relation != self.edit.relation]
        for fact in self.rng.sample(facts, min(self.amounts.relation, len(facts))):
            yield self._kept("locality_relation", fact)
        if facts or self.relation is None:
            return
        kind = (
            self.relation.subject_type
        )  # the world says nothing else of the subject: it must stay as unknown as it was
        others = [r for r in self.world.relations.values() if r.subject_type == kind and r.id != self.relation.id]
        for relation in self.rng.sample(others, min(self.amounts.relation, len(others))):
            name = self.edit.subject
            yield Probe(
                "locality_relation", relation.ask(name), fill(relation.cloze[0], name), None, (), False, relation.id
            )

    def _unrelated(self) -> Iterator[Probe]:
        taken = {self.subject, self.object, self.true}
        kinds = [name for name, facts in self.world.by_relation.items() if name != self.edit.relation and facts]
        for name in self.rng.sample(kinds, min(self.amounts.unrelated, len(kinds))):
            facts = self.world.by_relation[name]
            fact = next(
                (f for f in self.rng.sample(facts, min(8, len(facts))) if not taken & {f.subject, f.object}), None
            )
            if fact is not None:
                yield self._kept("locality_unrelated", fact)

    def _aliases(self, relation: Relation) -> Iterator[Probe]:
        given = normalise_key(self.edit.subject)
        names = [n for n in (self.subject, *self.world.aliases_of(self.subject)) if normalise_key(n) != given]
        for name in self.rng.sample(names, min(self.amounts.alias, len(names))):
            yield self._asking("portability_alias", relation.ask(name), fill(relation.cloze[0], name), f"alias {name}")

    def _onehop(self, relation: Relation) -> Iterator[Probe]:
        """Relations of the new object, asked of the object as the edited relation names it."""
        old = {
            (f.relation, f.object) for f in self.world.facts_of(self.true or "")
        }  # the same before and after: tells nothing
        onward = [
            f
            for f in self.world.facts_of(self.object)
            if f.object != self.subject and (f.relation, f.object) not in old
        ]
        for fact in self.rng.sample(onward, min(self.amounts.onehop, len(onward))):
            if not relation.noun:
                return
            name = fill(relation.noun[0], self.edit.subject)
            name = name[0].lower() + name[1:] if relation.noun[0][0].islower() else name
            second = self.world.relations[fact.relation]
            before = self.world.objects(self.true, fact.relation) if self.true else ()
            right = self.world.objects(self.object, fact.relation)
            yield Probe(
                "portability_onehop",
                fill(second.question[0], name),
                fill(second.cloze[0], name),
                fact.object,
                tuple(dict.fromkeys(n for obj in right for n in (obj, *self.world.aliases_of(obj)))),
                True,
                f"{relation.id}, {second.id}",
                true=before[0] if before else None,
            )

    def _inverse(self, relation: Relation) -> Iterator[Probe]:
        if not relation.inverse_question or relation.id not in ONE_TO_ONE:
            return
        wording = relation.inverse_question[0]
        names = (self.subject, *self.world.aliases_of(self.subject))
        before = [f.subject for f in self.world.by_relation[relation.id] if f.object == self.object]
        yield Probe(
            "portability_inverse",
            fill(wording, self.edit.target_new),
            None,
            self.edit.subject,
            names,
            True,
            relation.id,
            true=before[0] if before else None,
        )
